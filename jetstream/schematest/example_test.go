package schematest_test

import (
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Error(args ...any)                 { fmt.Println(args...) }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// A test beside the events keeps them readable for ever. testdata/events holds
// what it recorded when "deposited" was in its first version, and in its second.
func ExampleGolden() {
	t := printer{} // in a test: t *testing.T

	deposited := jetstream.Event[Cents]("deposited", jetstream.Version(2),
		jetstream.Upcast(func(old Euros) Cents { return Cents{Cents: old.Euros * 100} }))
	events := jetstream.NewSchema("account", deposited, jetstream.Event[Fee]("charged"))
	schematest.Golden(t, events, "testdata/events", Cents{Cents: 700}, Euros{Euros: 5}, Fee{Cents: 1})

	// Somebody renames a field, and forgets that it is stored under its old name.
	careless := jetstream.NewSchema("account", deposited, jetstream.Event[Retagged]("charged"))
	schematest.Golden(t, careless, "testdata/events")
	// Output:
	// testdata/events/charged.v1.json: schematest_test.Retagged has no place for what event "charged" version 1 has stored (was a field renamed or dropped? raise jetstream.Version and add the jetstream.Upcast from the old type): json: unknown field "cents"
}
