package aggregate_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// onR1AndR3 runs a test against one server and against a cluster of three.
func onR1AndR3(t *testing.T, test func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int)) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		srv := natstest.Run(t)
		test(t, func(t testing.TB) *nats.Conn { t.Helper(); return natstest.Conn(t, srv.URL()) }, 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		test(t, func(t testing.TB) *nats.Conn { t.Helper(); return c.Conn(t) }, 3)
	})
}

// AC-A16, AC-A18: an event that creates is handled three times, also while others
// of it come first: one aggregate, whether its id is derived or given.
func TestCreateFromEvent(t *testing.T) {
	t.Parallel()
	onR1AndR3(t, func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int) {
		store := newStore(t, conn(t), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		var tried attempts
		made := make(chan [3]string, 3)
		run(t, newReactor(t, store, "creates", aggregate.On(events, func(ctx context.Context, e debited, m jetstream.Meta, do *aggregate.Do) error {
			// A repository of its own each time: nothing is remembered.
			fresh := newRepo(t, store)
			derived, err := do.Create(ctx, fresh, "", open(e))
			if err != nil {
				return err
			}
			given, err := do.Create(ctx, fresh, "given", open(e))
			if err != nil {
				return err
			}
			other, err := do.Create(ctx, fresh, "", open(e), aggregate.Step("another"))
			if err != nil {
				return err
			}
			tell(made, [3]string{derived.ID, given.ID, other.ID})
			if tried.add(m.ID) < 3 {
				return errPlain
			}
			return nil
		})))
		must(t, repo, "start", open{9})
		must(t, repo, "start", debit{4})
		first := received(t, made)
		if first[0] == first[2] {
			t.Fatalf("two steps made one aggregate: %v", first)
		}
		for range 2 {
			if again := received(t, made); again != first {
				t.Fatalf("made %v, then %v", first, again)
			}
		}
		for _, id := range first {
			balance(t, repo, id, 4, 1)
		}
	})
}

// The instance of a process that events of several aggregates belong to: the first
// makes it, the others find it, whatever order and however often.
func TestCreateOrUpdate(t *testing.T) {
	t.Parallel()
	onR1AndR3(t, func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int) {
		store := newStore(t, conn(t), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		const sources = 8
		var tried attempts
		run(t, newReactor(t, store, "finds", aggregate.On(events, func(ctx context.Context, e debited, m jetstream.Meta, do *aggregate.Do) error {
			for _, opts := range [][]aggregate.CallOption{nil, {aggregate.Step("named")}} {
				id := "instance"
				if opts != nil {
					id = "named"
				}
				if _, err := do.CreateOrUpdate(ctx, repo, id, open(e), credit(e), opts...); err != nil {
					return err
				}
			}
			if tried.add(m.ID) < 3 {
				return errPlain
			}
			return nil
		})))
		for i := range sources {
			id := string(rune('a' + i))
			must(t, repo, id, open{100})
			must(t, repo, id, debit{1})
		}
		settles(t, repo, "instance", sources)
		natstest.Eventually(t, "every event is handled three times", func() error {
			for i := range sources {
				if tried.get(string(rune('a'+i))) < 3 {
					return errors.New("not yet")
				}
			}
			return nil
		})
		balance(t, repo, "instance", sources, sources)
		balance(t, repo, "named", sources, sources)
	})
}

// A command that is computed from the state is decided once, like any other; none
// is recorded, too.
func TestUpdateFunc(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	var tried attempts
	done := make(chan struct{}, 1)
	run(t, newReactor(t, store, "computes", aggregate.On(events, func(ctx context.Context, _ debited, m jetstream.Meta, do *aggregate.Do) error {
		double := func(a account, _ aggregate.Decision) (any, error) { return credit(a), nil }
		if _, err := aggregate.UpdateFunc(ctx, do, repo, "to", double); err != nil {
			return err
		}
		if _, err := aggregate.UpdateFunc(ctx, do, repo, "to", double); !errors.Is(err, aggregate.ErrStepTwice) {
			return errors.New("twice")
		}
		drained := func(a account, _ aggregate.Decision) (any, error) {
			if a.Cents < 1000 {
				return nil, nil //nolint:nilnil // no command
			}
			return debit{1000}, nil
		}
		if _, err := aggregate.UpdateFunc(ctx, do, repo, "to", drained, aggregate.Step("drain")); err != nil {
			return err
		}
		if tried.add(m.ID) < 3 {
			// What was "no command" at first would be one now.
			if _, err := repo.Execute(ctx, "to", credit{1000}); err != nil {
				return err
			}
			return errPlain
		}
		tell(done, struct{}{})
		return nil
	})))
	must(t, repo, "to", open{3})
	must(t, repo, "from", open{3})
	must(t, repo, "from", debit{1})
	received(t, done)
	balance(t, repo, "to", 2006, 4)
}
