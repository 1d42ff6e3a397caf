package aggregatetest_test

import (
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

type (
	Opened  struct{ Cents int64 }
	Debited struct {
		Cents int64
		Note  string
	}
	Account struct {
		Cents int64
		Notes []string
	}
	Open  struct{ Cents int64 }
	Debit struct {
		Cents int64
		Note  string
	}
)

var events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Debited]("debited"),
)

// accountType is a sound type; the mistakes replace parts of it.
func accountType(mistakes ...func(*mistaken)) *aggregate.Type[Account] {
	m := mistaken{
		debit: func(a Account, c Debit, _ aggregate.Decision) ([]any, error) {
			if a.Cents < c.Cents {
				return nil, aggregate.Reject("insufficient-funds", "the balance is %d", a.Cents)
			}
			if c.Cents == 0 {
				return nil, nil
			}
			return []any{Debited(c)}, nil
		},
		debited: func(a *Account, e Debited, m jetstream.Meta) {
			a.Cents -= e.Cents
			a.Notes = append(a.Notes, e.Note+m.Metadata["by"])
		},
	}
	for _, mistake := range mistakes {
		mistake(&m)
	}
	return aggregate.New[Account](events, append([]aggregate.Option{
		aggregate.Apply(func(a *Account, e Opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(m.debited),
		aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) { return []any{Opened(c)}, nil }),
		aggregate.Handle("debit", m.debit),
	}, m.more...)...)
}

type mistaken struct {
	debit   func(Account, Debit, aggregate.Decision) ([]any, error)
	debited func(*Account, Debited, jetstream.Meta)
	more    []aggregate.Option
}
