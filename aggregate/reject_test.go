package aggregate_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// Recorded refusals are commits without events: exact, and the answer for ever.
func TestRecordRejections(t *testing.T) { // C30
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		plain := newRepo(t, store)
		recording, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{RecordRejections: true})
		if err != nil {
			t.Fatal(err)
		}
		run(t, newService(t, newRepo(t, reopen(t, connect(), store)), aggregate.ServiceConfig{}))
		client := newClient(t, connect(), store)
		must(t, plain, "a1", open{10})
		for _, c := range []struct {
			name   string
			target aggregate.Target
			opts   []aggregate.CallOption
		}{
			{"Repository", recording, nil},
			{"Call", plain, opts(aggregate.RecordRejections())},
			{"Client", client, opts(aggregate.RecordRejections())},
		} {
			before := head(t, store)
			rejected := append(opts(aggregate.CommandID(jetstream.NewCommandID())), c.opts...)
			nothing := append(opts(aggregate.CommandID("nothing for "+c.name)), c.opts...)
			if _, err := c.target.Execute(t.Context(), "a1", debit{1000}, rejected...); !errors.Is(err, aggregate.ErrRejected) {
				t.Fatalf("%s: %v", c.name, err)
			}
			res := must(t, c.target, "a1", credit{}, nothing...)
			commit := lastCommit(t, store, "a1")
			if head(t, store) != before+2 || res.Position != store.Position(commit.Sequence) || commit.Events() != 0 || commit.State == nil ||
				commit.Decisions[0].Outcome != jetstream.OutcomeNone {
				t.Fatalf("%s: %+v %+v", c.name, res, commit)
			}
			// The aggregate could do both by now, but they have been decided.
			must(t, plain, "a1", credit{2000})
			for _, again := range []aggregate.Target{plain, newRepo(t, store), client} {
				if _, err := again.Execute(t.Context(), "a1", debit{1000}, rejected[0]); !errors.Is(err, aggregate.ErrRejected) {
					t.Errorf("%s: %v", c.name, err)
				}
				if r, err := again.Execute(t.Context(), "a1", credit{}, nothing[0]); err != nil || !r.Duplicate || r.Version != res.Version {
					t.Errorf("%s: %+v %v", c.name, r, err)
				}
			}
			must(t, plain, "a1", debit{2000})
		}
		// "Not found" can be recorded, too: the aggregate can still be made.
		id := aggregate.CommandID(jetstream.NewCommandID())
		if _, err := recording.Execute(t.Context(), "a2", debit{1}, id); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		must(t, plain, "a2", open{5})
		if _, err := plain.Execute(t.Context(), "a2", debit{1}, id); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		balance(t, newRepo(t, store), "a2", 5, 1)
		balance(t, newRepo(t, store), "a1", 10, 7)
	})
}

// A refusal that was decided upon an old state is not recorded: the append finds
// out that it is old.
func TestRecordedRefusalsAreExact(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, other := newRepository(t, nc)
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{RecordRejections: true})
	if err != nil {
		t.Fatal(err)
	}
	must(t, repo, "a1", open{10})
	must(t, other, "a1", credit{90}) // repo's cache says 10
	if res := must(t, repo, "a1", debit{100}); res.Version != 3 {
		t.Fatalf("%+v", res)
	}
	if s := repo.Stats(); s.Conflicts != 1 || s.Refusals != 0 {
		t.Errorf("%+v", s)
	}
}

// A leader without its peers may answer reads for a while. A refusal that is
// recorded is never reported on its word.
func TestRecordedRefusalsNeedAQuorum(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	name := newStore(t, c.Conn(t), jetstream.Config{Replicas: 3}).Name()
	leader := -1
	natstest.Eventually(t, "there is a leader", func() error {
		if leader = c.StreamLeader(name); leader < 0 {
			return errors.New("not yet")
		}
		return nil
	})
	store := newStore(t, natstest.Conn(t, c.URLs()[leader]), jetstream.Config{
		Name: name, AttemptTimeout: 200 * time.Millisecond, AppendTimeout: 600 * time.Millisecond,
	})
	repo := newRepo(t, store)
	if _, err := surely(t.Context(), repo, "a1", open{10}); err != nil {
		t.Fatal(err)
	}
	for i := range c.URLs() {
		if i != leader {
			c.Stop(i)
		}
	}
	id := aggregate.CommandID(jetstream.NewCommandID())
	_, err := repo.Execute(t.Context(), "a1", debit{100}, id, aggregate.RecordRejections())
	// A leader that has noticed by now that it is alone does not take the commit.
	if !errors.Is(err, jetstream.ErrUnknownOutcome) && !errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, aggregate.ErrRejected) {
		t.Errorf("%v, want an unknown outcome", err)
	}
}
