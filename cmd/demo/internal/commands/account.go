// Package commands is the bank's command side: its aggregates, what their
// commands decide, and the reactor that drives transfers.
package commands

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

// maxCents keeps sums of amounts far from overflow.
const maxCents = 1_000_000_000_000

// Account is the state of an account.
type Account struct {
	Cents   int64 `json:"cents"`
	Deleted bool  `json:"deleted,omitempty"`
}

type (
	// OpenAccount opens an account.
	OpenAccount struct {
		CustomerID   string `json:"customerId,omitempty"`
		Title        string `json:"title"`
		InitialCents int64  `json:"initialCents"`
	}
	// Debit takes money for a transfer.
	Debit struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// Credit adds money of a transfer.
	Credit struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// Refund gives a transfer's money back, to a deleted account too: it has to be
	// somewhere.
	Refund struct {
		TransferID string `json:"transferId"`
		Cents      int64  `json:"cents"`
	}
	// DeleteAccount ends an account. Whatever it holds stays in the books.
	DeleteAccount struct{}
)

// AccountType is the aggregate type of accounts.
func AccountType() *aggregate.Type[Account] {
	return aggregate.New[Account](account.Events,
		aggregate.Apply(func(a *Account, e account.Opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *Account, e account.Debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *Account, e account.Credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Apply(func(a *Account, e account.Refunded, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Apply(func(a *Account, _ account.Deleted, _ jetstream.Meta) { a.Deleted = true }),

		aggregate.Create("open", func(c OpenAccount, _ aggregate.Decision) ([]any, error) {
			if err := short("title", c.Title); err != nil {
				return nil, err
			}
			if c.CustomerID != "" && jetstream.ValidateID(c.CustomerID) != nil {
				return nil, aggregate.Reject("invalid-customer", "%v", jetstream.ValidateID(c.CustomerID))
			}
			if c.InitialCents < 0 || c.InitialCents > maxCents {
				return nil, aggregate.Reject(
					"invalid-amount",
					"initialCents %d is not between 0 and %d",
					c.InitialCents,
					maxCents,
				)
			}
			return []any{account.Opened{CustomerID: c.CustomerID, Title: c.Title, Cents: c.InitialCents}}, nil
		}),
		aggregate.Handle("debit", func(a Account, c Debit, _ aggregate.Decision) ([]any, error) {
			if err := movement(c.TransferID, c.Cents); err != nil {
				return nil, err
			}
			if a.Deleted {
				return nil, aggregate.Reject(transfer.CodeAccountDeleted, "the account is deleted")
			}
			if a.Cents < c.Cents {
				return nil, aggregate.Reject(
					transfer.CodeInsufficientFunds,
					"the balance is %d cents, %d are wanted",
					a.Cents,
					c.Cents,
				)
			}
			return []any{account.Debited(c)}, nil
		}),
		aggregate.Handle("credit", func(a Account, c Credit, _ aggregate.Decision) ([]any, error) {
			if err := movement(c.TransferID, c.Cents); err != nil {
				return nil, err
			}
			if a.Deleted {
				return nil, aggregate.Reject(transfer.CodeAccountDeleted, "the account is deleted")
			}
			return []any{account.Credited(c)}, nil
		}),
		aggregate.Handle("refund", func(_ Account, c Refund, _ aggregate.Decision) ([]any, error) {
			if err := movement(c.TransferID, c.Cents); err != nil {
				return nil, err
			}
			return []any{account.Refunded(c)}, nil
		}),
		aggregate.Handle("delete", func(a Account, _ DeleteAccount, _ aggregate.Decision) ([]any, error) {
			if a.Deleted {
				return nil, nil
			}
			return []any{account.Deleted{}}, nil
		}),
	)
}

// maxText bounds every text, in bytes: views hold many of them in one value.
const maxText = 256

func short(field, text string) error {
	if len(text) > maxText {
		return aggregate.Reject("too-long", "%s is longer than %d bytes", field, maxText)
	}
	return nil
}

// movement refuses money without a transfer: the books could never settle.
func movement(transferID string, cents int64) error {
	if err := jetstream.ValidateID(transferID); err != nil {
		return aggregate.Reject("invalid-transfer", "transferId: %v", err)
	}
	return positive(cents)
}

func positive(cents int64) error {
	if cents <= 0 || cents > maxCents {
		return aggregate.Reject("invalid-amount", "cents %d is not between 1 and %d", cents, maxCents)
	}
	return nil
}
