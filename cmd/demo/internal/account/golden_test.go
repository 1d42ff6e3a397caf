package account_test

import (
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// What a bank has stored it can read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()

	schematest.Golden(t, account.Events, "testdata/events",
		account.Opened{CustomerID: "c1", Title: "Savings", Cents: 10_000}, account.Opened{Title: "No customer"},
		account.Debited{TransferID: "t1", Cents: 500}, account.Credited{TransferID: "t1", Cents: 500},
		account.Refunded{TransferID: "t2", Cents: 700}, account.Deleted{},
	)
}
