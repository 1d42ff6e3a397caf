// Package accounts has the commands of an account, as the documents show them.
package accounts

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/docs/internal/account"
	"github.com/rossby-go/rossby/jetstream"
)

// snippet:type

// The state of an account, and its commands.
type (
	Account struct{ Cents int64 }
	Open    struct{ Cents int64 }
	Credit  struct{ Cents int64 }
	Debit   struct{ Cents int64 }
)

// Type is what events do to the state, and what commands decide.
var Type = aggregate.New[Account](account.Events,
	aggregate.Apply(func(a *Account, e account.Opened, _ jetstream.Meta) { a.Cents = e.Cents }),
	aggregate.Apply(func(a *Account, e account.Credited, _ jetstream.Meta) { a.Cents += e.Cents }),
	aggregate.Apply(func(a *Account, e account.Debited, _ jetstream.Meta) { a.Cents -= e.Cents }),

	aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) {
		return []any{account.Opened(c)}, nil
	}),
	aggregate.Handle("credit", func(_ Account, c Credit, _ aggregate.Decision) ([]any, error) {
		if c.Cents == 0 {
			return nil, nil // nothing changes, nothing is stored
		}
		return []any{account.Credited(c)}, nil
	}),
	aggregate.Handle("debit", func(a Account, c Debit, _ aggregate.Decision) ([]any, error) {
		if a.Cents < c.Cents {
			return nil, aggregate.Reject("insufficient-funds", "the balance is %d", a.Cents)
		}
		return []any{account.Debited(c)}, nil
	}),
)

// end:type
