package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestAtLeastFromAFollower: ten thousand times a write, and a read with its position
// from a server whose replica follows: none is older. Reads without the position go
// to the same server, so that its replica is behind now and then.
func TestAtLeastFromAFollower(t *testing.T) {
	t.Parallel()
	pairs := 10_000
	if testing.Short() {
		pairs = 500
	}
	const writers = 25
	c := natstest.RunCluster(t)
	f := fixtureAt(t, strings.Join(c.URLs(), ","), 3)
	cfg := quiet()
	cfg.LeaseTTL = projection.LeaseTTLDefault
	start(t, f.store, accounts(), cfg)
	f.append("a0", opened{})
	get(t, reader[account](t, f, "accounts"), "a0", projection.AtLeast(f.last))

	bucket := f.store.Name() + "_accounts"
	leader := -1
	natstest.Eventually(t, "the bucket has a leader", func() error {
		if leader = c.StreamLeader("KV_" + bucket); leader < 0 {
			return errors.New("not yet")
		}
		return nil
	})
	at := func(server int) (*projection.Reader[account], natsjs.KeyValue) {
		nc := natstest.Conn(t, c.URLs()[server])
		r, err := projection.NewReader[account](t.Context(), nc, f.store.Name(), "accounts", projection.ReaderConfig{Wait: natstest.Patience, OpenWait: natstest.Patience})
		if err != nil {
			t.Fatal(err)
		}
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		var kv natsjs.KeyValue
		natstest.Retry(t, "open the bucket", func(ctx context.Context) (err error) {
			kv, err = js.KeyValue(ctx, bucket)
			return err
		})
		return r, kv
	}
	led, _ := at(leader)
	followed, plain := at((leader + 1) % 3)
	var plainGets, plainStale, stale atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for w := range writers {
		wg.Go(func() {
			key := fmt.Sprint("w", w)
			data, err := accountEvents.Encode(credited{Cents: 1}, f.store.Codec())
			if err != nil {
				t.Error(err)
				return
			}
			var head jetstream.Head
			for n := 1; n <= pairs/writers; n++ {
				head, err = f.store.Append(t.Context(), jetstream.Write{
					Type: "account", ID: key, After: head,
					Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				pos := f.store.Position(head.Sequence)
				if w%5 == 0 {
					// The view has it, says the leader: does a plain get find it?
					if _, err := led.Get(t.Context(), key, projection.AtLeast(pos)); err != nil {
						t.Error(err)
						return
					}
					var v account
					if e, err := plain.Get(t.Context(), "1."+key); err == nil {
						err = json.Unmarshal(e.Value(), &v)
						if err != nil {
							t.Error(err)
						}
					}
					plainGets.Add(1)
					if v.Events < n {
						plainStale.Add(1)
					}
				}
				e, err := followed.Get(t.Context(), key, projection.AtLeast(pos))
				if err != nil {
					t.Error(err)
					return
				}
				if seq, _ := f.store.Sequence(e.Position); e.Value.Events < n || e.Sequence < head.Sequence || seq < head.Sequence {
					stale.Add(1)
					t.Errorf("%s after %d writes: %+v", key, n, e)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d writes, each read with its position from a follower in %v: %d stale; of %d plain gets of what the view had %d were (%.1f %%)",
		pairs, time.Since(began).Round(time.Millisecond), stale.Load(), plainGets.Load(), plainStale.Load(),
		100*float64(plainStale.Load())/float64(max(plainGets.Load(), 1)))
}
