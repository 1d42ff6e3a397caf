package customer_test

import (
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// What a bank has stored it can read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()

	schematest.Golden(t, customer.Events, "testdata/events",
		customer.Created{Name: "Ann", Email: "ann@example.org", Phone: "+47 1", Address: "Bergen"},
		customer.Created{Name: "Bo", Email: "bo@example.org"},
		customer.AddedToAccount{AccountID: "a1", Title: "Savings", Owner: "Ann"}, customer.ToAccountDeleted{AccountID: "a1"},
	)
}
