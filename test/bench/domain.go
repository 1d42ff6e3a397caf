package main

import (
	"fmt"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The domain: accounts whose events are about 100 bytes and whose state is about
// as large.
type (
	opened struct {
		Owner string `json:"owner"`
		Title string `json:"title"`
		Cents int64  `json:"cents"`
	}
	credited struct {
		TransferID  string `json:"transferId"`
		Description string `json:"description"`
		Cents       int64  `json:"cents"`
	}
	state struct {
		Owner        string `json:"owner"`
		Title        string `json:"title"`
		Cents        int64  `json:"cents"`
		LastTransfer string `json:"lastTransfer"`
	}

	openAccount struct {
		Owner string `json:"owner"`
	}
	credit struct {
		TransferID  string `json:"transferId"`
		Description string `json:"description"`
		Cents       int64  `json:"cents"`
	}
)

var accountEvents = jetstream.NewSchema("account",
	jetstream.Event[opened]("opened"),
	jetstream.Event[credited]("credited"),
)

var accountType = aggregate.New[state](accountEvents,
	aggregate.Apply(func(s *state, e opened, _ jetstream.Meta) {
		s.Owner, s.Title, s.Cents = e.Owner, e.Title, e.Cents
	}),
	aggregate.Apply(func(s *state, e credited, _ jetstream.Meta) {
		s.Cents, s.LastTransfer = s.Cents+e.Cents, e.TransferID
	}),
	aggregate.Create("open", func(c openAccount, _ aggregate.Decision) ([]any, error) {
		return []any{opened{Owner: c.Owner, Title: "Savings", Cents: 1000}}, nil
	}),
	aggregate.Handle("credit", func(_ state, c credit, _ aggregate.Decision) ([]any, error) {
		return []any{credited(c)}, nil
	}),
)

var (
	someOpen   = openAccount{Owner: "01k60000000000000000000000"}
	someCredit = credit{TransferID: "01k60000000000000000000001", Description: "rent for September", Cents: 1250}
)

// accountView counts what it is given: events, and the sum of their numbers, so
// that any event left out or folded twice shows.
type accountView struct {
	Owner  string `json:"owner"`
	Cents  int64  `json:"cents"`
	Events uint64 `json:"events"`
	Sum    uint64 `json:"sum"`
}

func (v *accountView) count(m jetstream.Meta) { v.Events, v.Sum = v.Events+1, v.Sum+m.Version }

func (v *accountView) check(key string, want uint64) error {
	if v.Events != want || v.Sum != want*(want+1)/2 {
		return fmt.Errorf("%s: %d events with numbers that add up to %d, want 1 to %d each once", key, v.Events, v.Sum, want)
	}
	return nil
}

func definition(view string) *projection.Definition[accountView] {
	return projection.NewKeyed(view,
		projection.On(accountEvents, func(v *accountView, e opened, m jetstream.Meta) {
			v.Owner, v.Cents = e.Owner, e.Cents
			v.count(m)
		}),
		projection.On(accountEvents, func(v *accountView, e credited, m jetstream.Meta) {
			v.Cents += e.Cents
			v.count(m)
		}),
	)
}
