// Package account holds the events of bank accounts, and nothing else: views and
// gateways need no more.
package account

import "github.com/rossby-go/rossby/jetstream"

type (
	// Opened is the first event of an account.
	Opened struct {
		CustomerID string `json:"customerId,omitempty"`
		Title      string `json:"title"`
		Cents      int64  `json:"cents"`
	}
	// Debited is money that left the account for a transfer.
	Debited struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// Credited is money that came from a transfer.
	Credited struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// Refunded is money that came back because its transfer could not be
	// completed.
	Refunded struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// Deleted is the last event of an account, but for refunds that were under way.
	Deleted struct{}
)

// Events are the account's events.
var Events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Debited]("debited"),
	jetstream.Event[Credited]("credited"),
	jetstream.Event[Refunded]("refunded"),
	jetstream.Event[Deleted]("deleted"),
)
