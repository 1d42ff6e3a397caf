package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

// copyOf copies a store into one with another number of partitions.
func copyOf(t *testing.T, from *jetstream.Store, nc *nats.Conn, cfg archive.CopyConfig) *jetstream.Store {
	t.Helper()
	to := newStore(t, nc, jetstream.Config{Partitions: 5, Replicas: from.Replicas()})
	if _, err := archive.Copy(t.Context(), from, to, cfg); err != nil {
		t.Fatal(err)
	}
	report, err := archive.Compare(t.Context(), from, to, archive.CompareConfig{Type: cfg.Type, ID: cfg.ID})
	if err != nil || !report.Equal() {
		t.Fatalf("%+v, %v", report, err)
	}
	return to
}

// TestCopiesKnowCommands: a command sent again to the copy of a store gets what came
// of it in the original – with ids that bear their time and with others, events and
// refusals, from the first commit to the last, also once the copy was written to,
// and also in the copy of one aggregate, and in a copy of a copy.
func TestCopiesKnowCommands(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, nc *nats.Conn, replicas int) {
		t.Helper()
		from := newStore(t, nc, jetstream.Config{Replicas: replicas})
		original := newRepo(t, from)
		must(t, original, "a1", open{1000})
		must(t, original, "b1", open{7})
		n := times(30, 10)
		ids, results := make([]string, n), make([]aggregate.Result, n)
		for i := range n {
			if ids[i] = jetstream.NewCommandID(); i%2 == 1 {
				ids[i] = fmt.Sprintf("key %d", i)
			}
			results[i] = must(t, original, "a1", debit{int64(i + 1)}, aggregate.CommandID(ids[i]))
			must(t, original, "b1", credit{1})
		}
		whole := copyOf(t, from, nc, archive.CopyConfig{})
		again := copyOf(t, whole, nc, archive.CopyConfig{})
		one := copyOf(t, from, nc, archive.CopyConfig{Type: "account", ID: "a1"})
		for name, store := range map[string]*jetstream.Store{"whole": whole, "copy of the copy": again, "one aggregate": one} {
			for round := range 2 {
				repo := newRepo(t, store)
				for i := n - 1; i >= 0; i-- {
					got := must(t, repo, "a1", debit{int64(i + 1)}, aggregate.CommandID(ids[i]))
					if want := results[i]; !got.Duplicate || got.Version != want.Version || len(got.Events) != 1 ||
						got.Events[0].EventID != want.Events[0].EventID || got.Events[0].Event != want.Events[0].Event {
						t.Errorf("%s, round %d: %q: %+v, want %+v", name, round, ids[i], got, want)
					}
				}
				if _, err := repo.Execute(t.Context(), "a1", debit{99}, aggregate.CommandID(ids[1])); !errors.Is(err, aggregate.ErrOtherPayload) {
					t.Errorf("%s: other payload: %v", name, err)
				}
				// The copy lives on, and knows what was sent to it as well.
				for _, id := range []string{fmt.Sprintf("new key %d", round), jetstream.NewCommandID()} {
					first := must(t, repo, "a1", credit{1}, aggregate.CommandID(id))
					if second := must(t, newRepo(t, store), "a1", credit{1}, aggregate.CommandID(id)); first.Duplicate || !second.Duplicate ||
						second.Version != first.Version {
						t.Errorf("%s: %q: %+v, then %+v", name, id, first, second)
					}
				}
			}
			balance(t, newRepo(t, store), "a1", int64(1000-n*(n+1)/2+4), uint64(n+5))
		}
		// Positions are each store's own, and can be asked for.
		repo := newRepo(t, whole)
		var foreign *jetstream.ForeignPositionError
		_, err := repo.Load(t.Context(), "a1", aggregate.AtLeast(results[3].Position))
		if !errors.As(err, &foreign) || !strings.Contains(err.Error(), "CopyOf") {
			t.Errorf("a position of the original: %v", err)
		}
		for i, r := range results {
			p, err := whole.CopyOf(t.Context(), r.Position)
			if err != nil {
				t.Fatal(err)
			}
			seq, _ := whole.Sequence(p)
			c, err := whole.At(t.Context(), "account", "a1", seq)
			if err != nil || c.EventID(0) != r.Events[0].EventID {
				t.Errorf("position %d: %+v, %v", i, c, err)
			}
		}
		if _, err := from.CopyOf(t.Context(), whole.Position(3)); !errors.As(err, &foreign) {
			t.Errorf("a position of the copy in the original: %v", err)
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		check(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		check(t, natstest.RunCluster(t).Conn(t), 3)
	})
}

// TestCopiesKnowTriggers: a reactor that runs over a copy from its beginning finds
// all that it did in the original, whether the event was copied along or not, and
// does what it had not done.
func TestCopiesKnowTriggers(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, nc *nats.Conn, replicas int) {
		t.Helper()
		from := newStore(t, nc, jetstream.Config{Replicas: replicas})
		run := func(store *jetstream.Store, until func() bool) {
			t.Helper()
			repo := newRepo(t, store)
			r, err := aggregate.NewReactor(store, "fees", aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
				aggregate.On(events, func(ctx context.Context, _ debited, _ jetstream.Meta, do *aggregate.Do) error {
					if _, err := do.Update(ctx, repo, "bank", credit{1}); err != nil {
						return err
					}
					_, err := do.Update(ctx, repo, "bank", debit{1_000_000}) // refused, for ever
					if !errors.Is(err, aggregate.ErrRejected) {
						return fmt.Errorf("was to be refused: %w", err)
					}
					return nil
				}))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			natstest.Eventually(t, "the reactor", func() error {
				if !until() {
					return errors.New("is not there yet")
				}
				return nil
			})
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		bank := func(store *jetstream.Store) (cents int64, commits uint64) {
			snap, err := newRepo(t, store).Load(t.Context(), "bank")
			if err != nil {
				t.Fatal(err)
			}
			c, err := store.Last(t.Context(), "account", "bank", jetstream.Leader)
			if err != nil {
				t.Fatal(err)
			}
			return snap.State.Cents, c.Ordinal
		}
		repo := newRepo(t, from)
		must(t, repo, "bank", open{0})
		must(t, repo, "a1", open{1000})
		const n = 20
		for range n {
			must(t, repo, "a1", debit{1})
		}
		reached := func(store *jetstream.Store, cents int64) func() bool {
			return func() bool { got, commits := bank(store); return got == cents && commits == uint64(2*cents+1) }
		}
		run(from, reached(from, n))

		to := copyOf(t, from, nc, archive.CopyConfig{})
		// One more in the copy tells when the reactor has been through all before it.
		must(t, newRepo(t, to), "a1", debit{1})
		run(to, reached(to, n+1))
		if cents, commits := bank(to); cents != n+1 || commits != 2*(n+1)+1 {
			t.Errorf("%d cents after %d commits: effects happened twice", cents, commits)
		}

		// The target alone is copied; the triggers stay where they were, and reach it
		// from there.
		one := copyOf(t, from, nc, archive.CopyConfig{Type: "account", ID: "bank"})
		target := newRepo(t, one)
		for c, err := range from.History(t.Context(), "account", "a1", jetstream.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			if c.EventNames[0] != "debited" {
				continue
			}
			trigger := aggregate.Trigger{
				Subscriber: "fees", EventID: c.EventID(0), Step: "credit", Position: from.Position(c.Sequence), Time: c.Time,
			}
			if res := must(t, target, "bank", credit{1}, aggregate.TriggeredBy(trigger)); !res.Duplicate {
				t.Errorf("%s happened again", c.EventID(0))
			}
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		check(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		check(t, natstest.RunCluster(t).Conn(t), 3)
	})
}

// TestCopiesAreSearchedByTheirFirstTime: an id that is younger than what was copied
// costs a copy no walk through all of it.
func TestCopiesAreSearchedByTheirFirstTime(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from := newStore(t, nc, jetstream.Config{})
	original := newRepo(t, from)
	must(t, original, "a1", open{1})
	for range 300 {
		must(t, original, "a1", credit{1})
	}
	b := new(strings.Builder)
	if _, err := archive.Export(t.Context(), from, b, archive.Config{}); err != nil {
		t.Fatal(err)
	}
	// The original is long ago: each message says it was stored an hour earlier.
	r, err := archive.NewReader(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	to := newStore(t, nc, jetstream.Config{})
	old := func(yield func(jetstream.Message, error) bool) {
		for m, err := range r.Messages() {
			m.Time = m.Time.Add(-time.Hour)
			if !yield(m, err) {
				return
			}
		}
	}
	if _, err := to.AppendCopies(t.Context(), jetstream.CopySource{StoreID: from.ID()}, old); err != nil {
		t.Fatal(err)
	}
	repo := newRepo(t, to)
	costs(t, "a command", nc, 10, func() {
		if res := must(t, repo, "a1", credit{1}, aggregate.CommandID(jetstream.NewCommandID())); res.Duplicate {
			t.Error("found what never was")
		}
	})
}
