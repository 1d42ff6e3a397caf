package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// The last entry is believed about how far deliveries came: none is stored behind
// one that knows more.
func TestLedgerKnowsTheHighest(t *testing.T) {
	t.Parallel()
	store, _, _ := setup(t)
	const total = 1500
	fill(t, store, total)
	cfg := config()
	cfg.Concurrency, cfg.MaxUnrecorded = 32, 512
	g := newGateway(t, store, "highest", cfg, gateway.On(events,
		func(context.Context, paid, gateway.Delivery) error { return nil }))
	run(t, g)
	caughtUp(t, g)
	js := natstest.JetStream(t, store.Conn())
	ledger, err := js.Stream(t.Context(), "KV_"+store.Name()+"__deliveries")
	if err != nil || ledger.CachedInfo().State.Msgs != total {
		t.Fatalf("%+v, want %d entries, %v", ledger.CachedInfo().State, total, err)
	}
	cons, err := ledger.OrderedConsumer(t.Context(), natsjs.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var known uint64
	for n := 0; n < total; {
		batch, err := cons.FetchNoWait(total - n)
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			n++
			var e struct {
				Sequence uint64 `json:"sequence"`
				Highest  uint64 `json:"highest"`
			}
			if err := json.Unmarshal(m.Data(), &e); err != nil {
				t.Fatal(err)
			}
			if e.Highest < known || e.Highest < e.Sequence {
				t.Errorf("entry %d of %d knows of %d only, an earlier one of %d", n, e.Sequence, e.Highest, known)
			}
			known = max(known, e.Highest)
		}
	}
}

// An owner that was replaced and does not know it may enter what it made behind the
// entries of its successor: that hides none of them.
func TestLedgerOfAnOwnerThatWasReplaced(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	must(t, repo, "o1", place{})
	var made calls
	instance := func(die bool) *gateway.Gateway {
		nc := natstest.Conn(t, url)
		cfg := config()
		cfg.TTL = leaseShort
		return newGateway(t, open(t, nc, store.Name()), "replaced", cfg, gateway.On(events,
			func(_ context.Context, _ placed, d gateway.Delivery) error { made.begin(d.ID)(); return nil },
			gateway.Report(func(placed, gateway.Delivery, gateway.Outcome) *gateway.Command {
				if die {
					nc.Close() // the delivery is entered, the record is not written
				}
				return nil
			})))
	}
	if err := <-ends(t, instance(true)); err == nil {
		t.Error("the first instance ended as if it had not died")
	}
	js := natstest.JetStream(t, store.Conn())
	_, err := js.Publish(t.Context(), "$KV."+store.Name()+"__deliveries.replaced.other", []byte(`{"sequence":1,"highest":1,"epoch":0}`))
	if err != nil {
		t.Fatal(err)
	}
	second := instance(false)
	run(t, second)
	caughtUp(t, second)
	if made.total() != 1 {
		t.Errorf("delivered %d times", made.total())
	}
}

// A bucket that is made with the first delivery is missing when servers are away by
// then.
func TestLedgerIsMadeWithTheFirstOwner(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *jetstream.Store, _ *aggregate.Repository[order]) {
		run(t, newGateway(t, store, "early", config(), gateway.On(events,
			func(context.Context, placed, gateway.Delivery) error { return nil })))
		js := natstest.JetStream(t, store.Conn())
		natstest.Retry(t, "the ledger is there", func(ctx context.Context) error {
			_, err := js.Stream(ctx, "KV_"+store.Name()+"__deliveries")
			return err
		})
	})
}

// What could not be entered would be repeated by a crash: nothing is delivered, and
// all of it when the ledger can be made.
func TestNothingIsDeliveredWithoutTheLedger(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	var made calls
	instance := func(ttl time.Duration) *gateway.Gateway {
		cfg := config()
		cfg.LedgerTTL = ttl
		return newGateway(t, store, "without", cfg, gateway.On(events,
			func(_ context.Context, _ placed, d gateway.Delivery) error { made.begin(d.ID)(); return nil }))
	}
	before := instance(-1)
	stop := run(t, before)
	must(t, repo, "o1", place{})
	caughtUp(t, before)
	stop()
	js := natstest.JetStream(t, store.Conn())
	// Somebody else's stream has the ledger's subjects.
	_, err := js.CreateStream(t.Context(), natsjs.StreamConfig{
		Name: "others", Subjects: []string{"$KV." + store.Name() + "__deliveries.>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, repo, "o2", place{})
	g := instance(0)
	run(t, g)
	natstest.Eventually(t, "held back", func() error {
		for _, l := range g.Status().Blocked {
			if strings.Contains(l.Error, "without the ledger") && l.Attempts == 0 {
				return nil
			}
		}
		return fmt.Errorf("nothing is held back: %+v", g.Status())
	})
	if made.total() != 1 {
		t.Errorf("%d deliveries, want that of before", made.total())
	}
	if err := js.DeleteStream(t.Context(), "others"); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, g)
	if made.total() != 2 {
		t.Errorf("%d deliveries in all, want 2", made.total())
	}
}

// loses dials connections on which the next request of a kind goes astray: nobody
// answers it, as nobody does while a stream has no leader.
type loses struct {
	subject string
	lost    atomic.Int64
	armed   atomic.Bool
}

func (l *loses) Dial(network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).Dial(network, address)
	return &losing{c, l}, err
}

type losing struct {
	net.Conn

	l *loses
}

func (c *losing) Write(b []byte) (int, error) {
	asks := []byte("PUB " + c.l.subject + " ")
	if bytes.Contains(b, asks) && c.l.armed.CompareAndSwap(true, false) {
		c.l.lost.Add(1)
		astray := bytes.Replace(asks, []byte("$JS.API"), []byte("$XX.API"), 1)
		b = bytes.Replace(b, asks, astray, 1)
	}
	return c.Conn.Write(b)
}

// A new owner asks how far its predecessors came. When nobody answers it asks again:
// all deliveries wait for it. Found by the torture rig: split-leader.
func TestLedgerIsAskedAgain(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	must(t, repo, "o1", place{})
	var made calls
	l := &loses{subject: "$JS.API.STREAM.MSG.GET." + store.Name()}
	instance := func(opts ...nats.Option) *gateway.Gateway {
		nc := natstest.Conn(t, url, opts...)
		return newGateway(t, open(t, nc, store.Name()), "again", config(), gateway.On(events,
			func(_ context.Context, _ placed, d gateway.Delivery) error { made.begin(d.ID)(); return nil }))
	}
	first := instance()
	stop := run(t, first)
	caughtUp(t, first)
	stop()
	// The last entry is not the last owner's, so the store's end is asked for.
	js := natstest.JetStream(t, store.Conn())
	if _, err := js.Publish(t.Context(), "$KV."+store.Name()+"__deliveries.again.other",
		[]byte(`{"sequence":1,"highest":1,"epoch":0}`)); err != nil {
		t.Fatal(err)
	}
	silent, err := store.Conn().SubscribeSync("$XX.>")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Unsubscribe() }()
	second := instance(nats.SetCustomDialer(l))
	run(t, second)
	active(t, second)
	l.armed.Store(true)
	must(t, repo, "o2", place{})
	natstest.Eventually(t, "delivered", func() error {
		if n := made.total(); n < 2 {
			return fmt.Errorf("%d deliveries, %d requests went astray", n, l.lost.Load())
		}
		return nil
	})
	if l.lost.Load() != 1 {
		t.Errorf("%d requests went astray", l.lost.Load())
	}
}
