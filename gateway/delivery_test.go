package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// post is a delivery as a service would see it.
type post struct {
	gateway.Delivery

	cents int64
}

// payments hands every delivery of a paid to a function.
func payments(handle func(ctx context.Context, p post) error) gateway.Option {
	return gateway.On(events, func(ctx context.Context, e paid, d gateway.Delivery) error {
		return handle(ctx, post{d, e.Cents})
	})
}

func TestTypedDelivery(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	got := make(chan post, 10)
	g := newGateway(t, store, "mail", config(),
		payments(func(_ context.Context, p post) error {
			got <- p
			return nil
		}),
		gateway.On(events, func(_ context.Context, e placed, d gateway.Delivery) error {
			got <- post{d, e.Cents}
			return nil
		}),
	)
	run(t, g)
	first := must(t, repo, "o1", place{7})
	must(t, repo, "o1", refund{0}) // of no interest
	second := must(t, repo, "o1", pay{[]int64{1, 2}},
		aggregate.Correlation("conv"), aggregate.Metadata(map[string]string{"k": "v"}))
	wanted := []struct {
		name    string
		eventID string
		cents   int64
		version uint64
	}{
		{"placed", first.Events[0].EventID, 7, 1},
		{"paid", second.Events[0].EventID, 1, 3},
		{"paid", second.Events[1].EventID, 2, 4},
	}
	for _, want := range wanted {
		p := received(t, got)
		if p.Name != want.name || p.EventID != want.eventID || p.cents != want.cents || p.Version != want.version {
			t.Fatalf("%+v, want %+v", p, want)
		}
		if p.Type != "order" || p.ID != "o1" || p.Attempt != 1 || p.Epoch != 1 || p.StoredAt.IsZero() ||
			p.IdempotencyKey != "mail-"+want.eventID {
			t.Fatalf("%+v", p)
		}
		if want.name == "paid" && (p.Correlation != "conv" || p.Metadata["k"] != "v" || p.Position != second.Position) {
			t.Fatalf("%+v", p)
		}
	}
	if g.Name() != "mail" {
		t.Error(g.Name())
	}
}

// The key is that of the event and the gateway, whoever delivers and however
// often.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	got := make(chan post, 100)
	var down atomic.Bool
	down.Store(true)
	handler := payments(func(_ context.Context, p post) error {
		select {
		case got <- p:
		default: // who stands still does not hold it up
		}
		if down.Load() {
			return errTest
		}
		return nil
	})
	stop := run(t, newGateway(t, store, "bank", config(), handler))
	first := received(t, got)
	for n := 2; n <= 4; n++ {
		if p := received(t, got); p.IdempotencyKey != first.IdempotencyKey || p.Attempt != n {
			t.Fatalf("attempt %d: %+v", n, p)
		}
	}
	stop()
	for len(got) > 0 {
		<-got
	}
	elsewhere := open(t, natstest.Conn(t, url), store.Name())
	stop = run(t, newGateway(t, elsewhere, "bank", config(), handler))
	p := received(t, got)
	if p.IdempotencyKey != first.IdempotencyKey || p.Attempt < 5 || p.Epoch != 2 {
		t.Fatalf("another instance: %+v, first %+v", p, first)
	}
	down.Store(false)
	stop()

	other := make(chan post, 10)
	run(t, newGateway(t, store, "other", config(), payments(func(_ context.Context, p post) error {
		other <- p
		return nil
	})))
	must(t, repo, "o2", place{1})
	must(t, repo, "o2", pay{[]int64{1, 1, 1}})
	keys := map[string]bool{first.IdempotencyKey: true}
	for range 4 {
		keys[received(t, other).IdempotencyKey] = true
	}
	if len(keys) != 5 {
		t.Errorf("keys %v", keys)
	}
}

// A commit of several events is delivered event by event: what was delivered
// before a failure is not delivered again.
func TestEventsOfOneCommit(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	got := make(chan post, 100)
	var failures atomic.Int32
	g := newGateway(t, store, "steps", config(), payments(func(_ context.Context, p post) error {
		got <- p
		if n := failures.Load(); p.cents == 2 && n < 3 {
			failures.Add(1)
			if n == 1 {
				panic("in the middle")
			}
			return errTest
		}
		return nil
	}))
	run(t, g)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1, 2, 3}})
	must(t, repo, "o1", pay{[]int64{4, 5}})
	const calls = 8
	cents := make([]int64, 0, calls)
	for range calls {
		cents = append(cents, received(t, got).cents)
	}
	caughtUp(t, g)
	if !slices.Equal(cents, []int64{1, 2, 2, 2, 2, 3, 4, 5}) || len(got) > 0 {
		t.Errorf("%v and %d more", cents, len(got))
	}
}

// Failures keep neither an aggregate's order from holding nor others from going on.
func TestOrderUnderFailures(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	const ids, rounds = 6, 15
	var (
		mu    sync.Mutex
		done  = map[string][]int64{}
		tries = map[string]int{}
	)
	block := make(chan struct{})
	cfg := config()
	// All aggregates fail at once, which would open it, and then the one that is stuck
	// may be the one that tries.
	cfg.Limits.BreakerFailures = -1
	cfg.Timeout = 2 * natstest.Patience // of the one that is stuck
	g := newGateway(t, store, "order", cfg, payments(func(ctx context.Context, p post) error {
		if p.ID == "stuck" {
			select {
			case <-block:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		mu.Lock()
		defer mu.Unlock()
		tries[p.EventID]++
		if tries[p.EventID] != p.Attempt {
			t.Errorf("attempt %d counts as %d", tries[p.EventID], p.Attempt)
		}
		if p.cents%3 == 0 && p.Attempt < 3 {
			return errTest
		}
		done[p.ID] = append(done[p.ID], p.cents)
		return nil
	}))
	run(t, g)
	names := make([]string, 0, 1+ids)
	names = append(names, "stuck")
	for n := range ids {
		names = append(names, "o"+strconv.Itoa(n))
	}
	for _, id := range names {
		must(t, repo, id, place{1})
	}
	for n := range int64(rounds) {
		for _, id := range names {
			must(t, repo, id, pay{[]int64{n}})
		}
	}
	all := func(names []string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range names {
				if len(done[id]) < rounds {
					return fmt.Errorf("%s: %v", id, done[id])
				}
			}
			return nil
		}
	}
	natstest.Eventually(t, "the others are done", all(names[1:]))
	mu.Lock()
	if len(done["stuck"]) > 0 {
		t.Errorf("stuck: %v", done["stuck"])
	}
	mu.Unlock()
	close(block)
	natstest.Eventually(t, "all is done", all(names))
	mu.Lock()
	defer mu.Unlock()
	for id, cents := range done {
		if !slices.IsSorted(cents) || len(cents) != rounds {
			t.Errorf("%s: %v", id, cents)
		}
	}
}

func TestRetryWithBackOff(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	cfg := config()
	cfg.MinBackoff, cfg.MaxBackoff = 20*time.Millisecond, 80*time.Millisecond
	type try struct {
		attempt int
		at      time.Time
	}
	tries := make(chan try, 10)
	g := newGateway(t, store, "retry", cfg, payments(func(_ context.Context, p post) error {
		tries <- try{p.Attempt, time.Now()}
		switch {
		case p.Attempt == 2:
			panic("on purpose")
		case p.Attempt < 6:
			// What a handler reads is its own business: this does not stop the gateway.
			return fmt.Errorf("%w: %w", errTest, jetstream.ErrUnknownEvent)
		default:
			return nil
		}
	}))
	run(t, g)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	var last time.Time
	for n := 1; n <= 6; n++ {
		got := received(t, tries)
		if got.attempt != n {
			t.Fatalf("attempt %d, want %d", got.attempt, n)
		}
		if wait := got.at.Sub(last); wait < cfg.MinBackoff {
			t.Errorf("attempt %d after %v", n, wait)
		}
		last = got.at
	}
	caughtUp(t, g)
}

func TestPermanent(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	var mended atomic.Bool
	got := make(chan post, 10)
	g := newGateway(t, store, "park", config(), payments(func(_ context.Context, p post) error {
		if p.ID == "bad" && !mended.Load() {
			// Even what would stop the gateway had it come from before the handler.
			return fmt.Errorf("bill: %w", gateway.Permanent(fmt.Errorf("%w: %w", errTest, jetstream.ErrFormat)))
		}
		got <- p
		return nil
	}))
	stop := run(t, g)
	for _, id := range []string{"bad", "good"} {
		must(t, repo, id, place{1})
		must(t, repo, id, pay{[]int64{1}})
		must(t, repo, id, pay{[]int64{2}})
	}
	for _, cents := range []int64{1, 2} {
		if p := received(t, got); p.ID != "good" || p.cents != cents {
			t.Fatalf("%+v", p)
		}
	}
	subject, err := store.Subject("order", "bad")
	if err != nil {
		t.Fatal(err)
	}
	s := parked(t, g, 1)
	if lane := s.Blocked[0]; lane.Subject != subject || lane.Attempts != 1 || !strings.Contains(lane.Error, errTest.Error()) {
		t.Fatalf("%+v", lane)
	}
	stop()
	if err := g.Resume(t.Context(), subject); err == nil {
		t.Error("resumed where nothing runs")
	}
	run(t, g)
	parked(t, g, 1)
	if err := g.Resume(t.Context(), subject+"x"); err == nil {
		t.Error("resumed what is not parked")
	}
	if len(got) > 0 {
		t.Fatalf("a later event came: %+v", <-got)
	}
	mended.Store(true)
	if err := g.Resume(t.Context(), subject); err != nil {
		t.Fatal(err)
	}
	for _, cents := range []int64{1, 2} {
		if p := received(t, got); p.ID != "bad" || p.cents != cents || p.Attempt != 1 {
			t.Fatalf("%+v", p)
		}
	}
	caughtUp(t, g)
	if err := gateway.Permanent(errTest); !errors.Is(err, gateway.ErrPermanent) || !errors.Is(err, errTest) {
		t.Error(err)
	}
	if err := gateway.Permanent(nil); err != nil {
		t.Error(err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	cfg := config()
	cfg.Timeout = 20 * time.Millisecond
	type ended struct {
		err      error
		deadline time.Time
	}
	got := make(chan ended, 10)
	g := newGateway(t, store, "slow", cfg, payments(func(ctx context.Context, p post) error {
		deadline, _ := ctx.Deadline()
		if p.Attempt == 3 {
			got <- ended{nil, deadline} // a slow machine may be late again
			return nil
		}
		<-ctx.Done()
		got <- ended{ctx.Err(), deadline}
		return ctx.Err()
	}))
	run(t, g)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	var last time.Time
	for n := range 3 {
		e := received(t, got)
		if errors.Is(e.err, context.DeadlineExceeded) != (n < 2) {
			t.Error(e.err)
		}
		if e.deadline.Sub(last) < cfg.Timeout {
			t.Errorf("attempt %d has until %v, the one before it had until %v", n+1, e.deadline, last)
		}
		last = e.deadline
	}
	caughtUp(t, g)
}
