package projection_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestSlowConsumer: an updater that does not read what it is sent is cut off by
// its server. It goes on where it was.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		slowConsumer(t, 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		slowConsumer(t, 3)
	})
}

func slowConsumer(t *testing.T, replicas int) {
	t.Helper()
	cluster := natstest.RunCluster(t, func(_ int, o *server.Options) { o.MaxPending = 2 << 20 })
	slow := func() (n int64) {
		for _, s := range cluster.Servers {
			n += s.NumSlowConsumers()
		}
		return n
	}
	f := fixtureAt(t, strings.Join(cluster.URLs(), ","), replicas)
	const events, ids = 300, 30
	f.fillWith(opened{Owner: strings.Repeat("x", 60_000)}, "opened", events, ids)
	p := newProxy(t, cluster.URLs()[0])
	nc := natstest.Conn(t, p.url, nats.IgnoreDiscoveredServers())
	store := f.attachOn(nc)
	cfg := quiet()
	cfg.PageEvents = 500
	up, err := projection.NewUpdater(store, accounts(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	held := make(chan struct{})
	projection.Steps(up, func(s string) {
		if s == "opened" { // Then it asks for more than the server keeps for it.
			once.Do(func() { p.hold(false, true); close(held) })
		}
	})
	before := slow()
	launch(t, up)
	<-held
	natstest.Eventually(t, "the server cuts it off", func() error {
		if slow() == before {
			return errors.New("not yet")
		}
		return nil
	})
	p.hold(false, false)
	r := reader[account](t, f, "accounts")
	for i := range ids {
		if e := get(t, r, id(i), projection.AtLeast(f.last)); e.Value.Events != events/ids {
			t.Errorf("%s has %d events, wanted %d", e.Key, e.Value.Events, events/ids)
		}
	}
}

// TestSlowFold: events wait for a fold that is slow, no more than fit into a bounded
// space, however large they are, and none is dropped on the way.
func TestSlowFold(t *testing.T) {
	t.Parallel()
	const window = 64
	for name, c := range map[string]struct{ bytes, events, most int }{
		"Small": {10, 10_000, 34*256 + 3*window},
		"Large": {100_000, 500, 34*6 + 3*window},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			const ids = 10
			f.fillWith(opened{Owner: strings.Repeat("x", c.bytes)}, "opened", c.events, ids)
			var dropped atomic.Int64
			nc := natstest.Conn(t, f.url, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				if errors.Is(err, nats.ErrSlowConsumer) {
					dropped.Add(1)
				}
			}))
			store := f.attachOn(nc)
			release := make(chan struct{})
			cfg := quiet()
			cfg.Window, cfg.PageEvents = window, 50
			start(t, store, projection.NewKeyed("v", projection.On(accountEvents, func(a *account, _ opened, _ jetstream.Meta) {
				<-release
				a.Events++
			})), cfg)
			js, err := natsjs.New(f.nc)
			if err != nil {
				t.Fatal(err)
			}
			came, same := uint64(0), 0
			natstest.Eventually(t, "nothing more comes", func() error {
				c, err := js.Consumer(t.Context(), f.store.Name(), "v")
				if err != nil {
					return err
				}
				same++
				if now := c.CachedInfo().Delivered.Consumer; now < window || now != came {
					came, same = now, 0
				}
				if same < 20 {
					return fmt.Errorf("%d came", came)
				}
				return nil
			})
			if came > uint64(c.most) {
				t.Errorf("%d events wait, %d are the most", came, c.most)
			}
			close(release)
			r := reader[account](t, f, "v")
			for i := range ids {
				if e := get(t, r, id(i), projection.AtLeast(f.last)); e.Value.Events != c.events/ids {
					t.Errorf("%s has %d events, wanted %d", e.Key, e.Value.Events, c.events/ids)
				}
			}
			if n := dropped.Load(); n > 0 {
				t.Errorf("%d times messages were dropped", n)
			}
		})
	}
}
