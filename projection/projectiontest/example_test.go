package projectiontest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/projection/projectiontest"
)

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatalf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Given events, then view.
func ExampleNew() {
	t := printer{} // in a test: t *testing.T

	projectiontest.New(t, accounts()).
		Given(events, "a1", Opened{Owner: "ann"}, Credited{Cents: 70}).
		Given(events, "a2", Opened{Owner: "bob"}).
		Given(events, "a1", Moved{From: "a1", To: "a2", Cents: 20}).
		Then(map[string]Account{
			"a1": {Owner: "ann", Cents: 50},
			"a2": {Owner: "bob", Cents: 20},
		}).
		Finds("owner", "ann", "a1")

	// What a wrong expectation reads like:
	projectiontest.New(t, accounts()).
		Given(events, "a1", Opened{Owner: "ann"}).
		Holds("a2", Account{Owner: "ann"})
	// Output:
	// the view does not hold key "a2"; its keys are ["a1"]
}
