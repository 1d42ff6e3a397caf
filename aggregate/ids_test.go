package aggregate_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// The same id gets the first outcome: in this process, in another, in one that has
// been started again, a day and many commits later.
func TestCommandIDs(t *testing.T) { // C3, C23
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo, other := newRepo(t, store), newRepo(t, reopen(t, connect(), store))
		must(t, repo, "a1", open{1000})
		calls := map[string]aggregate.Result{}
		for _, id := range []string{jetstream.NewCommandID(), "any string", "größer – 1/2"} {
			calls[id] = must(t, repo, "a1", move{Out: 10, In: 1}, aggregate.CommandID(id))
		}
		again := func(where string, r *aggregate.Repository[account]) {
			t.Helper()
			for id, first := range calls {
				res := must(t, r, "a1", move{Out: 10, In: 1}, aggregate.CommandID(id))
				if !res.Duplicate || res.Version != first.Version || res.Position != first.Position || len(res.Events) != 2 ||
					res.Events[1].EventID != first.Events[1].EventID || res.Events[1].Event != (credited{1}) {
					t.Errorf("%s: %+v, first %+v", where, res, first)
				}
				if _, err := r.Execute(t.Context(), "a1", move{Out: 11, In: 1}, aggregate.CommandID(id)); !errors.Is(err, aggregate.ErrOtherPayload) {
					t.Errorf("%s: %v", where, err)
				}
				if _, err := r.Execute(t.Context(), "a1", debit{10}, aggregate.CommandID(id)); !errors.Is(err, aggregate.ErrOtherPayload) {
					t.Errorf("%s: another command: %v", where, err)
				}
			}
		}
		again("at once", repo)
		again("elsewhere", other)
		grown := times(400, 100)
		grow(t, other, "a1", grown)
		again("after many commits of another process", repo)
		restarted := newRepo(t, reopen(t, connect(), store))
		restarted.SetClock(func() time.Time { return time.Now().Add(23 * time.Hour) })
		again("a day later, started again", restarted)
		// Ids belong to their aggregate.
		must(t, repo, "a2", open{1000})
		for id := range calls {
			if res := must(t, repo, "a2", move{Out: 10, In: 1}, aggregate.CommandID(id)); res.Duplicate {
				t.Errorf("%+v", res)
			}
		}
		balance(t, restarted, "a1", int64(973+grown), uint64(7+grown))
	})
}

// A command with an id of ours that is new costs no search, however busy the
// aggregate is: what the last minute brought is remembered.
func TestNewIDsAreNotSearched(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	_, repo := newRepository(t, nc)
	must(t, repo, "a1", open{0})
	n := times(1000, 300)
	// What is not answered for a second is asked again.
	for range n {
		began := time.Now()
		sent := sentBy(nc, func() { must(t, repo, "a1", credit{1}, aggregate.CommandID(jetstream.NewCommandID())) })
		if sent != 1 && time.Since(began) < time.Second {
			t.Fatalf("%d requests for a command", sent)
		}
	}
}

// Ids that bear no time are remembered for as long as the repository says, each
// repository for itself.
func TestReceiptTTL(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		nc := connect()
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		_, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{ReceiptTTL: 500 * time.Millisecond})
		invalid(t, err, "ReceiptTTL")
		brief, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{ReceiptTTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		must(t, repo, "a1", open{100})
		must(t, repo, "a1", debit{1}, aggregate.CommandID("for a day"))
		must(t, brief, "a1", debit{1}, aggregate.CommandID("for a second"))
		must(t, repo, "a1", debit{1})
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		natstest.Eventually(t, "one receipt is gone", func() error {
			stream, err := js.Stream(t.Context(), "KV_"+store.Name()+"__receipts")
			if err != nil {
				return err
			}
			if n := stream.CachedInfo().State.Msgs; n != 1 {
				return fmt.Errorf("%d receipts", n)
			}
			return nil
		})
		if res := must(t, brief, "a1", debit{1}, aggregate.CommandID("for a day")); !res.Duplicate {
			t.Errorf("%+v", res)
		}
		// At least for a second: a process that remembers the commit knows it longer.
		if res := must(t, newRepo(t, store), "a1", debit{1}, aggregate.CommandID("for a second")); res.Duplicate {
			t.Errorf("%+v", res)
		}
		balance(t, repo, "a1", 96, 5)
	})
}
