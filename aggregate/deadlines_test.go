package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// waiting counts the timers on the wire by kind, set or due.
func waiting(t testing.TB, nc *nats.Conn, store *jetstream.Store) map[string]int {
	t.Helper()
	n := map[string]int{}
	for subject := range timerMessages(t, nc, store) {
		n[strings.Split(subject, ".")[2]]++
	}
	return n
}

// A deadline that was overtaken is cancelled; those of other names, of other
// aggregates, and those that later events set, stay. Cancelling again changes
// nothing.
func TestDeadlineCancel(t *testing.T) {
	t.Parallel()
	onR1AndR3(t, func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int) {
		nc := conn(t)
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		timers := newTimers(t, store, repo)
		var tried attempts
		cancelled := make(chan struct{}, 10)
		run(t, newReactor(t, store, "cancels",
			aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
				// Version 1 sets, and much later; nothing here waits for time.
				for _, step := range []string{"payment", "other"} {
					if err := do.After(ctx, time.Hour, repo, m.ID, debit{1}, aggregate.Step(step)); err != nil {
						return err
					}
				}
				return nil
			}),
			aggregate.On(events, func(ctx context.Context, _ credited, m jetstream.Meta, do *aggregate.Do) error {
				// Paid: the deadline is off, twice as often as needed, and a new one on.
				if err := errors.Join(do.Cancel(ctx, repo, m.ID, "payment"), do.Cancel(ctx, repo, m.ID, "never-set")); err != nil {
					return err
				}
				if err := do.After(ctx, 2*time.Hour, repo, m.ID, debit{2}, aggregate.Step("payment")); err != nil {
					return err
				}
				if tried.add(m.ID) < 3 {
					return errPlain
				}
				tell(cancelled, struct{}{})
				return nil
			}),
			aggregate.On(events, func(ctx context.Context, _ debited, m jetstream.Meta, do *aggregate.Do) error {
				var bad *jetstream.InvalidError
				if err := do.Cancel(ctx, repo, "a b", "payment"); !errors.As(err, &bad) {
					return fmt.Errorf("id: %w", err)
				}
				if err := do.Cancel(ctx, repo, m.ID, "two words"); !errors.As(err, &bad) {
					return fmt.Errorf("name: %w", err)
				}
				return do.Cancel(ctx, repo, m.ID, "payment")
			}),
		))
		run(t, timers)
		must(t, repo, "a1", open{100})
		must(t, repo, "a2", open{100})
		natstest.Eventually(t, "both aggregates' deadlines are set", func() error {
			if n := waiting(t, nc, store)["set"]; n != 4 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		must(t, repo, "a1", credit{1})
		received(t, cancelled)
		steps := map[string]int{}
		for _, data := range timerMessages(t, nc, store) {
			text := string(data)
			for _, id := range []string{"a1", "a2"} {
				for _, step := range []string{"payment", "other"} {
					if strings.Contains(text, `"id":"`+id+`"`) && strings.Contains(text, `"step":"after-`+step+`"`) {
						steps[id+" "+step]++
						if id+step == "a1payment" && !strings.Contains(text, `{"Cents":2}`) {
							t.Errorf("the first event's deadline is still there: %s", text)
						}
					}
				}
			}
		}
		want := map[string]int{"a1 payment": 1, "a1 other": 1, "a2 payment": 1, "a2 other": 1}
		if fmt.Sprint(steps) != fmt.Sprint(want) {
			t.Fatalf("timers %v, want %v", steps, want)
		}
		must(t, repo, "a1", debit{1})
		natstest.Eventually(t, "the second deadline is off, too", func() error {
			if n := waiting(t, nc, store)["set"]; n != 3 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	})
}

// A cancelled deadline does not fire: one of the same time, set later, does. One that
// was due before it was cancelled may: then the next gets more time.
func TestDeadlineCancelledDoesNotFire(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newTimers(t, store, repo))
	var delay atomic.Int64
	type cancel struct {
		id string
		at time.Time
	}
	cancelled := make(chan cancel, 100)
	run(t, newReactor(t, store, "cancels",
		aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
			return do.After(ctx, time.Duration(delay.Load()), repo, m.ID, debit{1}, aggregate.Step("off"))
		}),
		aggregate.On(events, func(ctx context.Context, _ credited, m jetstream.Meta, do *aggregate.Do) error {
			if err := do.Cancel(ctx, repo, m.ID, "off"); err != nil {
				return err
			}
			tell(cancelled, cancel{m.ID, time.Now()})
			return do.After(ctx, time.Duration(delay.Load()), repo, m.ID, debit{10}, aggregate.Step("on"))
		}),
	))
	delay.Store(int64(time.Second))
	id := ""
	natstest.Eventually(t, "a deadline is cancelled in time", func() error {
		id = fmt.Sprint("a", delay.Load())
		must(t, repo, id, open{100})
		first, err := repo.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		must(t, repo, id, credit{1})
		c := received(t, cancelled)
		for c.id != id {
			c = received(t, cancelled)
		}
		if c.at.After(first.StoredAt.Add(time.Duration(delay.Load()))) {
			delay.Store(2 * delay.Load())
			return errors.New("it was due")
		}
		return nil
	})
	settles(t, repo, id, 91)
	natstest.Eventually(t, "nothing waits any more", func() error {
		if n := waiting(t, nc, store)["set"]; n != 0 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	balance(t, repo, id, 91, 3)
}

// What has fired and is recorded as done does not stay, and what is not done does.
func TestFiredTimersAreRemoved(t *testing.T) {
	t.Parallel()
	onR1AndR3(t, func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int) {
		nc := conn(t)
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		newTimers(t, store, repo)
		const n = 8
		set := make(chan struct{}, 2*n)
		run(t, newReactor(t, store, "sets", aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
			defer tell(set, struct{}{})
			return do.After(ctx, 0, repo, m.ID, debit{1})
		})))
		for i := range n {
			must(t, repo, fmt.Sprint("a", i), open{10})
			received(t, set)
		}
		natstest.Eventually(t, "all are due", func() error {
			if w := waiting(t, nc, store); w["due"] != n || w["set"] != 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
		timers, err := aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{
			TTL: steady, Sweep: 10 * time.Millisecond, Logger: quiet,
		}, repo)
		if err != nil {
			t.Fatal(err)
		}
		run(t, timers)
		natstest.Eventually(t, "all are removed", func() error {
			if w := waiting(t, nc, store); len(w) != 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
		for i := range n {
			balance(t, repo, fmt.Sprint("a", i), 9, 2)
		}
	})
}

// Each process may run the timers of the types it has: a type that nobody runs
// waits, and stops no other.
func TestTimersOfOneType(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	others := repoOf(t, store, cards)
	newTimers(t, store, repo)
	run(t, newReactor(t, store, "sets", aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
		return errors.Join(do.After(ctx, 0, others, "c1", Count{Book: "b"}), do.After(ctx, 0, repo, m.ID, debit{1}))
	})))
	run(t, newTimers(t, store, repo))
	must(t, repo, "a1", open{10})
	settles(t, repo, "a1", 9)
	natstest.Eventually(t, "the other type's is due", func() error {
		if waiting(t, nc, store)["due"] == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if _, err := others.Load(t.Context(), "c1"); !errors.Is(err, aggregate.ErrNotFound) {
		t.Fatal(err)
	}
	run(t, newTimers(t, store, others))
	natstest.Eventually(t, "the other type's timers run", func() error {
		_, err := others.Load(t.Context(), "c1")
		return err
	})
	if _, err := aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{}, repo, repo); err == nil {
		t.Error("two targets of one type")
	}
	if _, err := aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{Sweep: -1}, repo); err == nil {
		t.Error("a negative Sweep")
	}
}
