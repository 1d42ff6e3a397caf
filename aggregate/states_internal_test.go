package aggregate

import (
	"context"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// lags is a store whose replicas have stopped at a commit.
type lags struct {
	*jetstream.Store

	old *jetstream.Commit
}

func (l lags) Last(ctx context.Context, typ, id string, from jetstream.Source) (*jetstream.Commit, error) {
	if from == jetstream.Replica {
		return l.old, nil
	}
	return l.Store.Last(ctx, typ, id, from)
}

// A replica that is behind the state in the bucket does not make a load replay the
// history up to where it is: the leader is asked.
func TestReplicaBehindTheBucket(t *testing.T) {
	t.Parallel()
	type tallied struct{}
	type tally struct{ N int }
	type add struct{}
	typ := New[tally](jetstream.NewSchema("tally", jetstream.Event[tallied]("tallied")), StateLimit(0),
		Apply(func(s *tally, _ tallied, _ jetstream.Meta) { s.N++ }),
		Create("open", func(struct{ A int }, Decision) ([]any, error) { return []any{tallied{}}, nil }),
		Handle("add", func(tally, add, Decision) ([]any, error) { return []any{tallied{}}, nil }),
	)
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	open := func(s eventStore) *Repository[tally] {
		r, err := newRepository(s, typ, RepositoryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	writer := open(store)
	if _, err := writer.Execute(t.Context(), "t1", struct{ A int }{}); err != nil {
		t.Fatal(err)
	}
	var old *jetstream.Commit
	for i := range 159 {
		if i == 149 {
			if old, err = store.Last(t.Context(), "tally", "t1", jetstream.Leader); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := writer.Execute(t.Context(), "t1", add{}); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, "the newest state is in the bucket", func() error {
		fresh := open(store) // one that has given the bucket up leaves it alone for a while
		b, found := fresh.core.states.get(t.Context(), "t1", false)
		if found && b.head.Ordinal == 160 {
			return nil
		}
		fresh.core.cfg.StateEvery = 1 // what the writer left out, whoever loads it next writes
		_, err := fresh.Load(t.Context(), "t1")
		return fmt.Errorf("%+v %v (%w)", b.head, found, err)
	})
	var behind *Repository[tally]
	// What is not answered in its time is asked again.
	natstest.Eventually(t, "a load asks the leader, and does not replay", func() error {
		behind = open(lags{store, old})
		before := nc.Stats().OutMsgs
		snap, err := behind.Load(t.Context(), "t1", Follower())
		if n := nc.Stats().OutMsgs - before; err != nil || snap.State.N != 160 || n > 5 {
			return fmt.Errorf("%+v %w after %d requests", snap, err, n)
		}
		return nil
	})
	// What this process has seen itself makes a replica's old answer none.
	if snap, err := behind.Load(t.Context(), "t1", Follower()); err != nil || snap.State.N != 160 {
		t.Errorf("%+v %v", snap, err)
	}
}
