package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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

// A new owner asks how far its predecessors came. When nobody answers it asks again:
// all deliveries wait for it. Found by the torture rig: split-leader.
func TestLedgerIsAskedAgain(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	must(t, repo, "o1", place{})
	var made calls
	l := &natstest.Astray{Subject: "$JS.API.STREAM.MSG.GET." + store.Name() + " "}
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
	l.Lose(1)
	must(t, repo, "o2", place{})
	natstest.Eventually(t, "delivered", func() error {
		if n := made.total(); n < 2 {
			return fmt.Errorf("%d deliveries, %d requests went astray", n, l.Lost())
		}
		return nil
	})
	if l.Lost() != 1 {
		t.Errorf("%d requests went astray", l.Lost())
	}
}

// What is sent to the ledger while it has no leader is lost: an entry is sent again, and
// not given up with the second one.
func TestLedgerEntryIsSentAgain(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	l := &natstest.Astray{Subject: "$KV." + store.Name() + "__deliveries.resent."}
	silent, err := store.Conn().SubscribeSync("$XV.>")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Unsubscribe() }()
	var made calls
	g := newGateway(t, open(t, natstest.Conn(t, url, nats.SetCustomDialer(l)), store.Name()), "resent", config(),
		gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error { made.begin(d.ID)(); return nil }))
	run(t, g)
	js := natstest.JetStream(t, store.Conn())
	entries := func() uint64 {
		var n uint64
		natstest.Retry(t, "entries", func(ctx context.Context) error {
			s, err := js.Stream(ctx, "KV_"+store.Name()+"__deliveries")
			if err == nil {
				n = s.CachedInfo().State.Msgs
			}
			return err
		})
		return n
	}
	orders := 0
	deliver := func() {
		orders++
		must(t, repo, fmt.Sprint("o", orders), place{})
		natstest.Eventually(t, "delivered", func() error {
			if n := made.total(); n < orders {
				return fmt.Errorf("%d of %d", n, orders)
			}
			return nil
		})
		caughtUp(t, g)
	}
	deliver()
	// Two go astray, as many as are tried without being sent again. A machine that stands
	// still may let an entry's time pass all the same.
	natstest.Eventually(t, "an entry is there although two were lost", func() error {
		before := entries()
		l.Lose(2)
		deliver()
		if now := entries(); now != before+1 || l.Lost() != 2 {
			return fmt.Errorf("order %d: %d entries, then %d; %d were lost", orders, before, now, l.Lost())
		}
		return nil
	})
}

// On three servers a new owner learns what its predecessor entered, though replicas lag
// and the ledger has another leader since.
func TestLedgerReplicated(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t)
	store, err := jetstream.Open(t.Context(), cluster.Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	repo := repository(t, store)
	bucket := "KV_" + store.Name() + "__deliveries"
	js := natstest.JetStream(t, store.Conn())
	var made calls
	entered := false
	instance := func(die bool) *gateway.Gateway {
		nc := cluster.Conn(t)
		cfg := config()
		cfg.TTL = leaseShort
		var g *gateway.Gateway
		natstest.Eventually(t, "a gateway", func() error {
			s, err := jetstream.Attach(t.Context(), nc, store.Name())
			if err == nil {
				g, err = gateway.New(s, "replicated", cfg, gateway.On(events,
					func(_ context.Context, _ placed, d gateway.Delivery) error { made.begin(d.ID)(); return nil },
					gateway.Report(func(placed, gateway.Delivery, gateway.Outcome) *gateway.Command {
						if !die {
							return nil
						}
						// Servers that are slow may not have acknowledged it in time: then it may be repeated.
						natstest.Retry(t, "the ledger", func(ctx context.Context) error {
							s, err := js.Stream(ctx, bucket)
							entered = err == nil && s.CachedInfo().State.Msgs == 1
							return err
						})
						nc.Close() // the record is not written
						return nil
					})))
			}
			return err
		})
		if g == nil {
			t.FailNow()
		}
		return g
	}
	must(t, repo, "o1", place{})
	if err := <-ends(t, instance(true)); err == nil {
		t.Error("the first instance ended as if it had not died")
	}
	cluster.StepDown(t, bucket)
	second := instance(false)
	run(t, second)
	caughtUp(t, second)
	if n := made.total(); n < 1 || entered && n > 1 {
		t.Errorf("delivered %d times, entered is %v", n, entered)
	}
}
