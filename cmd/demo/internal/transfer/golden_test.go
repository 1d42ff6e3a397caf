package transfer_test

import (
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// What a bank has stored it can read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	details := transfer.Details{FromAccountID: "a1", ToAccountID: "a2", Cents: 500, Description: "rent"}
	schematest.Golden(t, transfer.Events, "testdata/events",
		transfer.Created{Details: details}, transfer.Created{},
		transfer.DebitRecorded{Details: details}, transfer.DebitFailed{Details: details, Code: transfer.CodeInsufficientFunds},
		transfer.CreditRecorded{Details: details}, transfer.CreditRefused{Details: details, Code: transfer.CodeAccountDeleted},
		transfer.Refunded{Details: details, Code: transfer.CodeAccountDeleted}, transfer.TimedOut{Details: details},
		transfer.NotificationSent{Key: "notify-c1.0"},
	)
}
