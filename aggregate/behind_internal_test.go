package aggregate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// slowLeader is a store whose leader and replicas lack everything for a few reads, as
// where the leader has not applied yet what a consumer's server has delivered.
type slowLeader struct {
	*jetstream.Store

	reads *atomic.Int64
}

func (s slowLeader) behind() bool { return s.reads.Add(-1) >= 0 }

func (s slowLeader) Last(ctx context.Context, typ, id string, from jetstream.Source) (*jetstream.Commit, error) {
	if s.behind() {
		return nil, jetstream.ErrNotFound
	}
	return s.Store.Last(ctx, typ, id, from)
}

func (s slowLeader) LastSequence(ctx context.Context) (uint64, error) {
	if s.behind() {
		return 1, nil
	}
	return s.Store.LastSequence(ctx)
}

// TestLoadAtLeastOfASlowLeader: what an event's position is loaded for is there, though
// the leader says at first that it is not. A saga took its instance for missing then, and
// was parked. An aggregate that is not there is not waited for once the leader is.
func TestLoadAtLeastOfASlowLeader(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t), AppendTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	writer, err := NewRepository(store, newOpening(), RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	res, err := writer.Execute(ctx, "a1", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string][]LoadOption{"leader": nil, "replica": {Follower()}} {
		slow := slowLeader{store, new(atomic.Int64)}
		slow.reads.Store(5)
		r, err := newRepository(slow, newOpening(), RepositoryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		snap, err := r.Load(ctx, "a1", append(opts, AtLeast(res.Position))...)
		if err != nil || snap.Version != 1 {
			t.Errorf("%s: %+v, %v", name, snap, err)
		}
		if _, err := r.Load(ctx, "a2", append(opts, AtLeast(res.Position))...); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
