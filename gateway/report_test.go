package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// reports collects what a gateway reports.
type reports struct {
	mu  sync.Mutex
	all []string
}

func (r *reports) add(id string, o gateway.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf("%s %v %v %q", id, o.Delivered, o.Err, o.Note))
}

func (r *reports) get() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.all...)
}

// Each outcome is reported with a command that is executed once: of a delivery
// that was made, of one that was given up, and again when a person resumed it.
func TestReport(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	serve(t, store, repo)
	var down atomic.Bool
	var said reports
	cfg := config()
	cfg.Policies = []gateway.Policy{{Is: func(err error) bool { return errors.Is(err, errTest) }, Attempts: 2}}
	g := newGateway(t, store, "reports", cfg, gateway.On(events,
		func(_ context.Context, _ placed, d gateway.Delivery) error {
			if down.Load() {
				return errTest
			}
			d.Note("receipt-" + d.ID)
			return nil
		},
		gateway.Report(func(_ placed, d gateway.Delivery, o gateway.Outcome) *gateway.Command {
			said.add(d.ID, o)
			cents := int64(1)
			if !o.Delivered {
				cents = 100
			}
			return &gateway.Command{Type: "order", ID: d.ID, Name: "pay", Body: pay{[]int64{cents}}}
		})))
	run(t, g)
	paidIs := func(id string, want int64) {
		t.Helper()
		natstest.Eventually(t, "the report's command", func() error {
			s, err := repo.Load(t.Context(), id)
			if err == nil && s.State.Paid != want {
				err = fmt.Errorf("%d is paid, want %d", s.State.Paid, want)
			}
			return err
		})
	}
	must(t, repo, "good", place{})
	paidIs("good", 1)
	down.Store(true)
	must(t, repo, "bad", place{})
	parked(t, g, 1)
	paidIs("bad", 100)
	down.Store(false)
	if err := g.Resume(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	caughtUp(t, g)
	// The same step of the same event: both reports used one command's name, so the
	// second is the first one's repetition. Other names tell them apart.
	paidIs("bad", 100)
	want := []string{
		`good true <nil> "receipt-good"`, `bad false the service is down ""`, `bad true <nil> "receipt-bad"`,
	}
	// A command that was not answered in time is asked for again.
	if got := slices.Compact(said.get()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reported %q, want %q", got, want)
	}
}

// A report that does not get through is sent again; the delivery is not.
func TestReportIsRetriedAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, testReportIsRetriedAlone)
}

func testReportIsRetriedAlone(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	must(t, repo, "o1", place{})
	var c calls
	g := newGateway(t, store, "alone", config(), gateway.On(events,
		func(_ context.Context, _ placed, d gateway.Delivery) error { c.begin(d.ID)(); return nil },
		gateway.Report(func(_ placed, d gateway.Delivery, _ gateway.Outcome) *gateway.Command {
			return &gateway.Command{Type: "order", ID: d.ID, Name: "pay", Body: pay{[]int64{7}}}
		})))
	run(t, g)
	natstest.Eventually(t, "the report fails", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || s.Blocked[0].Attempts < 3 {
			return fmt.Errorf("%+v", s.Blocked)
		}
		return nil
	})
	serve(t, store, repo) // only now somebody takes commands
	caughtUp(t, g)
	if c.total() != 1 {
		t.Errorf("delivered %d times", c.total())
	}
	if s, err := repo.Load(t.Context(), "o1"); err != nil || s.State.Paid != 7 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A report that is refused is a matter for a person; so is one that panics not.
func TestReportRefused(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	serve(t, store, repo)
	must(t, repo, "o1", place{})
	var c calls
	g := newGateway(t, store, "refused", config(), gateway.On(events,
		func(_ context.Context, _ placed, d gateway.Delivery) error { c.begin(d.ID)(); return nil },
		gateway.Report(func(_ placed, d gateway.Delivery, _ gateway.Outcome) *gateway.Command {
			return &gateway.Command{Type: "order", ID: d.ID, Name: "refund", Body: refund{5}}
		})))
	run(t, g)
	s := parked(t, g, 1)
	if !strings.Contains(s.Blocked[0].Error, "too-much") {
		t.Errorf("parked because of %q", s.Blocked[0].Error)
	}
	if c.total() != 1 {
		t.Errorf("delivered %d times", c.total())
	}
}

// A process that dies after a delivery was entered in the ledger leaves one that
// is not made again, though the position was not recorded. Without the ledger it
// is made again, with the same key.
func TestLedger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ttl   time.Duration
		again bool
	}{"with": {0, false}, "without": {-1, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, repo, url := setup(t)
			must(t, repo, "o1", place{})
			var made calls
			var said reports
			var mu sync.Mutex
			keys := map[string]bool{}
			instance := func(nc *nats.Conn, die bool) *gateway.Gateway {
				cfg := config()
				cfg.LedgerTTL, cfg.TTL = c.ttl, leaseShort
				return newGateway(t, open(t, nc, store.Name()), "ledger", cfg, gateway.On(events,
					func(_ context.Context, _ placed, d gateway.Delivery) error {
						made.begin(d.ID)()
						d.Note("n1")
						mu.Lock()
						defer mu.Unlock()
						keys[d.IdempotencyKey] = true
						return nil
					},
					gateway.Report(func(_ placed, d gateway.Delivery, o gateway.Outcome) *gateway.Command {
						said.add(d.ID, o)
						if die {
							nc.Close() // what follows reaches no server: the record is not written
						}
						return nil
					})))
			}
			first := instance(natstest.Conn(t, url), true)
			if err := <-ends(t, first); err == nil {
				t.Error("the first instance ended as if it had not died")
			}
			second := instance(natstest.Conn(t, url), false)
			run(t, second)
			caughtUp(t, second)
			// On a slow machine more owners may follow one another than those two.
			if n := made.total(); c.again != (n > 1) || n < 1 {
				t.Errorf("delivered %d times, again is %v", n, c.again)
			}
			got := said.get()
			if all := slices.Compact(slices.Clone(got)); len(got) < 2 || len(all) != 1 || all[0] != `o1 true <nil> "n1"` {
				t.Errorf("reported %q", got)
			}
			if mu.Lock(); len(keys) != 1 {
				t.Errorf("keys %v", keys)
			}
			mu.Unlock()
		})
	}
}

// Of events that were stored together each is judged alone: one is skipped, those
// before it are not delivered again, by another instance neither, those behind it
// are delivered.
func TestEventsOfOneCommitAreJudgedAlone(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{})
	must(t, repo, "o1", pay{[]int64{1, 2, 3, 4}})
	var mu sync.Mutex
	var got []int64
	var mended atomic.Bool
	instance := func() *gateway.Gateway {
		cfg := config()
		cfg.LedgerTTL = -1 // it would hide what the record knows
		cfg.Policies = []gateway.Policy{{
			Is: func(err error) bool { return strings.Contains(err.Error(), "never 2") }, Attempts: 1, Then: gateway.Skip,
		}}
		return newGateway(t, store, "each", cfg,
			gateway.On(events, func(context.Context, placed, gateway.Delivery) error { return nil }),
			gateway.On(events, func(_ context.Context, e paid, _ gateway.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				if e.Cents == 4 && !mended.Load() {
					return errTest
				}
				got = append(got, e.Cents)
				if e.Cents == 2 {
					return errors.New("never 2")
				}
				return nil
			}))
	}
	g := instance()
	stop := run(t, g)
	natstest.Eventually(t, "the last one fails", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || s.Blocked[0].Attempts < 2 {
			return fmt.Errorf("%+v", s.Blocked)
		}
		return nil
	})
	stop()
	g = instance()
	run(t, g)
	mended.Store(true)
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(got) != "[1 2 3 4]" {
		t.Errorf("handled %v", got)
	}
}

func TestOnAll(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{Cents: 9})
	must(t, repo, "o1", pay{[]int64{5}})
	must(t, repo, "o1", refund{5})
	got := make(chan string, 8)
	g := newGateway(t, store, "all", config(),
		gateway.On(events, func(_ context.Context, e paid, _ gateway.Delivery) error {
			got <- fmt.Sprintf("typed %T", e)
			return nil
		}),
		gateway.OnAll(events, func(_ context.Context, e any, d gateway.Delivery) error {
			got <- fmt.Sprintf("%s of %s: %T", d.Name, d.Store, e)
			return nil
		}))
	run(t, g)
	for _, want := range []string{
		"placed of " + store.Name() + ": gateway_test.placed", "typed gateway_test.paid",
		"refunded of " + store.Name() + ": gateway_test.refunded",
	} {
		if g := received(t, got); g != want {
			t.Errorf("%q, want %q", g, want)
		}
	}
}

func TestHandlersAreValidated(t *testing.T) {
	t.Parallel()
	store, _, _ := setup(t)
	ok := func(context.Context, placed, gateway.Delivery) error { return nil }
	report := gateway.Report(func(placed, gateway.Delivery, gateway.Outcome) *gateway.Command { return nil })
	for want, o := range map[string]gateway.Option{
		"handler of all events is a nil function": gateway.OnAll(events, nil),
		"the schema is nil":                       gateway.OnAll(nil, func(context.Context, any, gateway.Delivery) error { return nil }),
		"report of gateway_test.placed is a nil":  gateway.On(events, ok, gateway.Report[placed](nil)),
		"has two reports":                         gateway.On(events, ok, report, report),
		"is for gateway_test.paid": gateway.On(events, ok,
			gateway.Report(func(paid, gateway.Delivery, gateway.Outcome) *gateway.Command { return nil })),
	} {
		if _, err := gateway.New(store, "wrong", config(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// A handler that does not return when its time is over is told of; the others go
// on, and nobody else gets the event meanwhile.
func TestOverdue(t *testing.T) {
	t.Parallel()
	onBoth(t, testOverdue)
}

func testOverdue(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	must(t, repo, "stuck", place{})
	release := make(chan struct{})
	var c calls
	cfg := config()
	cfg.Timeout = time.Millisecond
	handle := gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error {
		defer c.begin(d.ID)()
		if d.ID == "stuck" {
			<-release
		}
		return nil
	})
	g := newGateway(t, store, "overdue", cfg, handle)
	run(t, g)
	standby := newGateway(t, store, "overdue", cfg, handle)
	run(t, standby)
	for i := range 20 {
		must(t, repo, fmt.Sprintf("o%d", i), place{})
	}
	natstest.Eventually(t, "one is overdue, the others are delivered", func() error {
		s := g.Status()
		s.Overdue = append(s.Overdue, standby.Status().Overdue...)
		if len(s.Overdue) != 1 || s.Overdue[0].ID != "stuck" || c.total() != 21 {
			return fmt.Errorf("%+v, %d calls", s.Overdue, c.total())
		}
		return nil
	})
	close(release)
	natstest.Eventually(t, "it ends", func() error {
		if s := g.Status(); len(s.Overdue) != 0 {
			return fmt.Errorf("%+v", s.Overdue)
		}
		return nil
	})
	if c.total() != 21 {
		t.Errorf("%d calls", c.total())
	}
}

// What a copied event was delivered as in the store it comes from is its key in
// the copy.
func TestKeyIsTheEventsForEver(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	res := must(t, repo, "o1", place{})
	keys := make(chan string, 1)
	g := newGateway(t, store, "keys", config(), gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error {
		keys <- d.IdempotencyKey
		return nil
	}))
	run(t, g)
	if key := received(t, keys); key != "keys-"+res.Events[0].EventID {
		t.Errorf("%q", key)
	}
}
