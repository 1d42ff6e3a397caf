package saga_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// Seats of a train, money of a card, mail that is confirmed by an event.
type (
	Opened  struct{ Amount int }
	Taken   struct{ By string }
	Given   struct{ By string }
	Locked  struct{}
	Stock   struct{ Amount, Locked int }
	Open    struct{ Amount int }
	Take    struct{ By string }
	Give    struct{ By string }
	Lock    struct{}
	Unlock  struct{}
	Confirm struct{ Order, Code string }

	Unlocked  struct{}
	Confirmed struct{ Order, Code string }
)

func stock(name string) *aggregate.Type[Stock] {
	return aggregate.New[Stock](jetstream.NewSchema(name,
		jetstream.Event[Opened]("opened"), jetstream.Event[Taken]("taken"), jetstream.Event[Given]("given"),
		jetstream.Event[Locked]("locked"), jetstream.Event[Unlocked]("unlocked"), jetstream.Event[Confirmed]("confirmed")),
		aggregate.Apply(func(s *Stock, e Opened, _ jetstream.Meta) { s.Amount = e.Amount }),
		aggregate.Apply(func(s *Stock, _ Taken, _ jetstream.Meta) { s.Amount-- }),
		aggregate.Apply(func(s *Stock, _ Given, _ jetstream.Meta) { s.Amount++ }),
		aggregate.Apply(func(s *Stock, _ Locked, _ jetstream.Meta) { s.Locked = 1 }),
		aggregate.Apply(func(s *Stock, _ Unlocked, _ jetstream.Meta) { s.Locked = 0 }),
		aggregate.Apply(func(*Stock, Confirmed, jetstream.Meta) {}),
		aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) { return []any{Opened(c)}, nil }),
		aggregate.Handle("take", func(s Stock, c Take, _ aggregate.Decision) ([]any, error) {
			if s.Amount == 0 {
				return nil, aggregate.Reject("sold-out", "nothing is left")
			}
			return []any{Taken(c)}, nil
		}),
		aggregate.Handle("give", func(s Stock, c Give, _ aggregate.Decision) ([]any, error) {
			if s.Locked > 0 {
				return nil, aggregate.Reject("locked", "the stock is locked")
			}
			return []any{Given(c)}, nil
		}),
		aggregate.Handle("lock", func(Stock, Lock, aggregate.Decision) ([]any, error) { return []any{Locked{}}, nil }),
		aggregate.Handle("unlock", func(Stock, Unlock, aggregate.Decision) ([]any, error) { return []any{Unlocked{}}, nil }),
		aggregate.Handle("confirm", func(_ Stock, c Confirm, _ aggregate.Decision) ([]any, error) {
			return []any{Confirmed(c)}, nil
		}),
	)
}

var (
	seats = stock("seats")
	cards = stock("cards")
	mails = stock("mails")
)

type order struct{ Train, Card, Mail string }

// booking takes a seat, charges a card, and has a mail confirmed by somebody.
func booking(trains, wallets, posts aggregate.Target) *saga.Saga[order] {
	return saga.New("booking",
		saga.Step[order]{
			Name: "seat", Timeout: time.Minute,
			Do:   func(i saga.Instance[order]) saga.Command { return saga.Send(trains, i.Data.Train, Take{By: i.ID}) },
			Undo: func(i saga.Instance[order]) saga.Command { return saga.Send(trains, i.Data.Train, Give{By: i.ID}) },
		},
		saga.Step[order]{
			Name: "note", // nothing to undo
			Do: func(i saga.Instance[order]) saga.Command {
				return saga.Create(wallets, i.ID+"-note", Open{Amount: 1})
			},
		},
		saga.Step[order]{
			Name: "charge",
			Do:   func(i saga.Instance[order]) saga.Command { return saga.Send(wallets, i.Data.Card, Take{By: i.ID}) },
			Undo: func(i saga.Instance[order]) saga.Command {
				return saga.Send(wallets, i.Data.Card, Give{By: i.ID + " because " + i.Failure.Code})
			},
		},
		saga.Step[order]{
			Name: "mail", Await: true, Timeout: time.Hour,
			Do:   func(i saga.Instance[order]) saga.Command { return saga.Send(posts, i.Data.Mail, Take{By: i.ID}) },
			Undo: func(i saga.Instance[order]) saga.Command { return saga.Send(posts, i.Data.Mail, Give{By: i.ID}) },
		},
	)
}

// links start a booking when a seat is locked, and hear of mails.
func links() []saga.Link {
	return []saga.Link{
		saga.ReportOn(mails.Schema(), func(e Confirmed, _ jetstream.Meta) saga.Report {
			return saga.Report{Instance: e.Order, Step: "mail", Code: e.Code}
		}),
		saga.StartOn(seats.Schema(), func(_ Locked, m jetstream.Meta) (string, order) {
			if m.ID == "silent" {
				return "", order{}
			}
			return "of-" + m.ID, order{Train: m.ID, Card: "card", Mail: "mail"}
		}),
	}
}

// scene is a saga over a store in memory.
type scene struct {
	*aggregatetest.Store

	instances           *aggregate.Repository[saga.State[order]]
	seats, cards, posts *aggregate.Repository[Stock]
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{Store: aggregatetest.NewStore(t)}
	s.seats = aggregatetest.NewRepository(s.Store, seats)
	s.cards = aggregatetest.NewRepository(s.Store, cards)
	s.posts = aggregatetest.NewRepository(s.Store, mails)
	b := booking(s.seats, s.cards, s.posts)
	s.instances = aggregatetest.NewRepository(s.Store, b.Type())
	s.Run("booking", b.Handlers(s.instances, links()...)...)
	for _, r := range []struct {
		repo *aggregate.Repository[Stock]
		id   string
	}{{s.seats, "train"}, {s.cards, "card"}, {s.posts, "mail"}} {
		if _, err := r.repo.Create(t.Context(), r.id, Open{Amount: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func exec(t testing.TB, to aggregate.Target, id string, command any) {
	t.Helper()
	if _, err := to.Execute(t.Context(), id, command); err != nil {
		t.Fatalf("%T on %s: %v", command, id, err)
	}
}

// story is an instance's history in words.
func story(t testing.TB, repo *aggregate.Repository[saga.State[order]], id string) string {
	t.Helper()
	var words []string
	for r, err := range repo.History(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		word := r.Name
		switch e := r.Event.(type) {
		case saga.Begun:
			word += " " + e.Step
		case saga.Accepted:
			word += " " + e.Step
		case saga.Done:
			word += " " + e.Step
		case saga.Failed:
			word += " " + e.Failure.Step + " (" + e.Failure.Code + ")"
		case saga.Expired:
			word += " " + e.Step
		case saga.Undoing:
			word += " " + e.Step
		case saga.Undone:
			word += " " + e.Step
			if e.By != "" {
				word += " by " + e.By
			}
		case saga.UndoRefused:
			word += " " + e.Failure.Step + " (" + e.Failure.Code + ")"
		case saga.CompensatedEvent:
			word += " (" + e.Failure.Code + ")"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (s *scene) story(t testing.TB, id, want string) {
	t.Helper()
	if got := story(t, s.instances, id); got != want {
		t.Errorf("the story is\n%s\nwant\n%s", got, want)
	}
}

func amount(t testing.TB, repo *aggregate.Repository[Stock], id string, want int) {
	t.Helper()
	snap, err := repo.Load(t.Context(), id)
	if err != nil || snap.State.Amount != want {
		t.Errorf("%s %s has %d (%v), want %d", repo.TypeName(), id, snap.State.Amount, err, want)
	}
}

func state(t testing.TB, repo *aggregate.Repository[saga.State[order]], id string) saga.State[order] {
	t.Helper()
	snap, err := repo.Load(t.Context(), id)
	if err != nil && !errors.Is(err, aggregate.ErrNotFound) {
		t.Fatal(err)
	}
	return snap.State
}
