package main

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/torture/check"
)

// The bank: every event bears the tag of the operation that made it.
type (
	opened struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
	}
	credited struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
	}
	debited struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
		// To is the account that gets the money, "" for a plain withdrawal.
		To string `json:"to"`
	}
	// claimed is a name that no other account may have.
	claimed struct {
		Name string `json:"name"`
		Tag  string `json:"tag"`
	}
	state struct {
		Cents int64 `json:"cents"`
	}

	openAccount struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
	}
	deposit struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
	}
	// twice is a deposit in two events.
	twice struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
	}
	withdraw struct {
		Cents int64  `json:"cents"`
		Tag   string `json:"tag"`
		To    string `json:"to"`
	}
	touch struct {
		Tag string `json:"tag"`
	}
	claim struct {
		Name string `json:"name"`
		Tag  string `json:"tag"`
	}
)

var accountEvents = jetstream.NewSchema("account",
	jetstream.Event[opened]("opened"),
	jetstream.Event[credited]("credited"),
	jetstream.Event[debited]("debited"),
	jetstream.Event[claimed]("claimed"),
)

var accountType = aggregate.New[state](accountEvents,
	aggregate.Apply(func(s *state, e opened, _ jetstream.Meta) { s.Cents = e.Cents }),
	aggregate.Apply(func(s *state, e credited, _ jetstream.Meta) { s.Cents += e.Cents }),
	aggregate.Apply(func(s *state, e debited, _ jetstream.Meta) { s.Cents -= e.Cents }),
	aggregate.Ignore[claimed](),
	aggregate.Create("open", func(c openAccount, _ aggregate.Decision) ([]any, error) {
		return []any{opened(c)}, nil
	}),
	aggregate.Handle("deposit", func(_ state, c deposit, _ aggregate.Decision) ([]any, error) {
		return []any{credited(c)}, nil
	}),
	aggregate.Handle("twice", func(_ state, c twice, _ aggregate.Decision) ([]any, error) {
		half := c.Cents / 2
		return []any{credited{half, c.Tag}, credited{c.Cents - half, c.Tag}}, nil
	}),
	aggregate.Handle("withdraw", func(s state, c withdraw, _ aggregate.Decision) ([]any, error) {
		if s.Cents < c.Cents {
			return nil, aggregate.Reject("insufficient-funds", "the balance is %d", s.Cents)
		}
		return []any{debited(c)}, nil
	}),
	aggregate.Handle("claim", func(_ state, c claim, _ aggregate.Decision) ([]any, error) {
		return []any{claimed(c), aggregate.Reserve("name", c.Name)}, nil
	}),
	aggregate.Handle("touch", func(state, touch, aggregate.Decision) ([]any, error) { return nil, nil }),
)

// The set: elements that are appended without a load, and transfers between purses,
// which are two appends or none.
type added struct {
	Tag   string `json:"tag"`
	Cents int64  `json:"cents"`
}

var (
	elementEvents = jetstream.NewSchema("element", jetstream.Event[added]("added"))
	purseEvents   = jetstream.NewSchema("purse", jetstream.Event[added]("added"))
)

func tagOf(event any) string {
	switch e := event.(type) {
	case opened:
		return e.Tag
	case credited:
		return e.Tag
	case debited:
		return e.Tag
	case added:
		return e.Tag
	case claimed:
		return e.Tag
	}
	return ""
}

// fold is what an account event does to a row of a view, and to the checker's.
func fold(r *check.Row, event any, version uint64) {
	switch e := event.(type) {
	case opened:
		r.Balance += e.Cents
	case credited:
		r.Balance += e.Cents
	case debited:
		r.Balance -= e.Cents
	}
	r.Events++
	r.Sum += version
}

const (
	accountsView = "accounts"
	totalsView   = "totals"
	totalKey     = "total"
)

func onAccount[E any]() projection.Handler[check.Row] {
	return projection.On(accountEvents, func(r *check.Row, e E, m jetstream.Meta) { fold(r, e, m.Version) })
}

func accounts() *projection.Definition[check.Row] {
	return projection.NewKeyed(accountsView, onAccount[opened](), onAccount[credited](), onAccount[debited](),
		onAccount[claimed]())
}

func onTotal[E any]() projection.TxHandler[check.Row] {
	return projection.OnTx(accountEvents, func(tx *projection.Tx[check.Row], e E, m jetstream.Meta) error {
		for _, key := range []string{totalKey, m.ID} {
			r, _ := tx.Get(key)
			fold(&r, e, m.Version)
			tx.Put(key, r)
		}
		return nil
	})
}

// totals is a view whose every event changes a key that all share.
func totals() *projection.Definition[check.Row] {
	return projection.NewLookup(totalsView, onTotal[opened](), onTotal[credited](), onTotal[debited](),
		onTotal[claimed]())
}
