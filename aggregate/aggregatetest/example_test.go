package aggregatetest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/aggregate/aggregatetest"
)

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// A test of a bank account's decisions.
func ExampleGiven() {
	t := printer{} // in a test: t *testing.T

	aggregatetest.Given(t, accountType(), Opened{Cents: 700}).
		When(Debit{Cents: 500, Note: "rent"}).Then(Debited{Cents: 500, Note: "rent"}).
		When(Debit{Cents: 500}).Rejected("insufficient-funds").
		State(Account{Cents: 200, Notes: []string{"rent"}})

	// What a wrong expectation reads like:
	aggregatetest.Given(t, accountType(), Opened{Cents: 700}).
		When(Debit{Cents: 701}).Then(Debited{Cents: 701})
	// Output:
	// aggregatetest_test.Debit failed: rejected: insufficient-funds: the balance is 700; want events aggregatetest_test.Debited{Cents:701 Note:}
}
