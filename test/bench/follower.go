package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
)

// followed works through all commits of the store, in turns with a consumer that
// acknowledges each.
func followed(ctx context.Context, e *env) (*result, error) {
	events, keys := e.scaled(100_000), e.scaled(2000)
	if _, err := e.fill(ctx, events, keys); err != nil {
		return nil, err
	}
	run := 0
	ours := func(ctx context.Context, _ int) (time.Duration, error) {
		run++
		return e.reactOnce(ctx, "reactor-"+strconv.Itoa(run), events)
	}
	raw := func(ctx context.Context, _ int) (time.Duration, error) { return e.consumeOnce(ctx, events) }
	p := e.plan(9, events)
	p.ops, p.cold = events, true
	r, err := measure(ctx, e, p, contender{"ours", ours}, contender{"raw", raw})
	if err != nil {
		return nil, err
	}
	r.rate = true
	r.notef("ordered for each of %d aggregates; at most 256 events are done and not recorded", keys)
	return r, errors.Join(e.lanes(ctx, r), e.blocked(ctx, r))
}

// reactOnce is the time that a new reactor needs for all events, recorded.
func (e *env) reactOnce(ctx context.Context, name string, events int) (time.Duration, error) {
	var done atomic.Int64
	all := make(chan struct{})
	handled := func() {
		if done.Add(1) == int64(events) {
			close(all)
		}
	}
	reactor, err := aggregate.NewReactor(e.store, name, aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
		aggregate.On(accountEvents, func(context.Context, opened, jetstream.Meta, *aggregate.Do) error {
			handled()
			return nil
		}),
		aggregate.On(accountEvents, func(context.Context, credited, jetstream.Meta, *aggregate.Do) error {
			handled()
			return nil
		}))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	return timeUntil(ctx, reactor.Run, all, begin)
}

// timeUntil runs until all is closed, then stops.
func timeUntil(
	ctx context.Context, run func(context.Context) error, all <-chan struct{}, begin time.Time,
) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	select {
	case <-all:
	case err := <-ended:
		return 0, fmt.Errorf("ended early: %w", errors.Join(err, ctx.Err()))
	}
	took := time.Since(begin)
	cancel()
	return took, <-ended
}

// consumeOnce is the time that a durable consumer with explicit acknowledgements
// needs.
func (e *env) consumeOnce(ctx context.Context, events int) (time.Duration, error) {
	begin := time.Now()
	cons, err := e.js.CreateConsumer(ctx, storeName, natsjs.ConsumerConfig{
		Durable: "raw", FilterSubject: e.store.SubjectFilter(accountEvents.Type()),
		AckPolicy: natsjs.AckExplicitPolicy, MaxAckPending: 4096,
	})
	if err != nil {
		return 0, err
	}
	all, n := make(chan struct{}), 0
	failed := make(chan error, 1)
	cc, err := cons.Consume(func(m natsjs.Msg) {
		if err := m.Ack(); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
		if n++; n == events {
			close(all)
		}
	}, natsjs.PullMaxMessages(512))
	if err != nil {
		return 0, err
	}
	select {
	case <-all:
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	took := time.Since(begin)
	cc.Stop()
	<-cc.Closed()
	return took, errors.Join(err, e.js.DeleteConsumer(ctx, storeName, "raw"))
}

// gatewayOf makes a gateway whose handler is given.
func (e *env) gatewayOf(
	store *jetstream.Store, name string, cfg gateway.Config, handle func(ctx context.Context, d gateway.Delivery) error,
) (*gateway.Gateway, error) {
	if !cfg.Start.IsSet() {
		cfg.Start = jetstream.FromBeginning()
	}
	cfg.Logger = slog.New(slog.DiscardHandler) // failures are what is measured here
	return gateway.New(store, name, cfg, gateway.OnAll(accountEvents,
		func(ctx context.Context, _ any, d gateway.Delivery) error { return handle(ctx, d) }))
}

// lanes notes how many deliveries a second a gateway makes whose service takes a
// millisecond, by its concurrency.
func (e *env) lanes(ctx context.Context, r *result) error {
	const takes = time.Millisecond
	for _, n := range []int{1, 4, 16, 64} {
		want := int64(min(e.scaled(20_000), 200*n))
		var done atomic.Int64
		all := make(chan struct{})
		g, err := e.gatewayOf(e.store, "lanes-"+strconv.Itoa(n), gateway.Config{Concurrency: n, MaxUnrecorded: 4 * n},
			func(context.Context, gateway.Delivery) error {
				t := time.NewTimer(takes)
				defer t.Stop()
				<-t.C
				if done.Add(1) == want {
					close(all)
				}
				return nil
			})
		if err != nil {
			return err
		}
		took, err := timeUntil(ctx, g.Run, all, time.Now())
		if err != nil {
			return err
		}
		r.notef("a gateway to a service of %v, %d at once, with ledger: %.0f/s", takes, n, float64(want)/took.Seconds())
	}
	return nil
}

// blocked notes the memory of a gateway none of whose aggregates gets on.
func (e *env) blocked(ctx context.Context, r *result) error {
	const backlog = 100_000
	if e.short {
		return nil
	}
	if _, err := e.refill(ctx, backlog); err != nil {
		return err
	}
	before := heap()
	g, err := e.gatewayOf(e.store, "blocked", gateway.Config{
		Concurrency: 64, MaxUnrecorded: 1024, MinBackoff: time.Hour, MaxBackoff: time.Hour,
		Limits: gateway.Limits{BreakerFailures: -1},
	}, func(context.Context, gateway.Delivery) error { return errors.New("no") })
	if err != nil {
		return err
	}
	full := make(chan struct{})
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for watch.Err() == nil {
			if s := g.Status(); s.State == "full" && len(s.Blocked) >= s.Unfinished {
				close(full)
				return
			}
			t := time.NewTimer(10 * time.Millisecond)
			<-t.C
		}
	}()
	after, waiting := uint64(0), 0
	_, err = timeUntil(ctx, func(ctx context.Context) error { return g.Run(ctx) }, func() <-chan struct{} {
		measured := make(chan struct{})
		go func() {
			<-full
			after, waiting = heap(), g.Status().Unfinished
			close(measured)
		}()
		return measured
	}(), time.Now())
	if err != nil {
		return err
	}
	r.notef("%d aggregates that all fail: the reader stops at %d blocked lanes, %.1f MB", backlog, waiting,
		float64(after-min(before, after))/(1<<20))
	return nil
}

// refill adds one commit to each of so many further aggregates.
func (e *env) refill(ctx context.Context, aggregates int) (int, error) {
	const writers = 64
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			data, err := accountEvents.Encode(credited{Cents: 1}, e.store.Codec())
			for i := w; i < aggregates && err == nil; i += writers {
				_, err = e.store.Append(ctx, jetstream.Write{
					Type: accountEvents.Type(), ID: "blocked-" + strconv.Itoa(i),
					Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
				})
			}
			errs[w] = err
		})
	}
	wg.Wait()
	return aggregates, errors.Join(errs...)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// handover is the time from the end of one instance to the first delivery of
// another, while one aggregate is held. Raw is the bound.
func handover(ctx context.Context, e *env) (*result, error) {
	const limit = time.Second
	w, err := e.newWriter(ctx, writers, 1)
	if err != nil {
		return nil, err
	}
	rounds := 15
	if e.short {
		rounds = 2
	}
	graceful, err := e.handovers(ctx, w, rounds, false)
	if err != nil {
		return nil, err
	}
	killed, err := e.handovers(ctx, w, max(rounds/5, 1), true)
	if err != nil {
		return nil, err
	}
	r := &result{ours: float64(halfway(graceful).Milliseconds()) + 1, raw: float64(limit.Milliseconds()), unit: "ms"}
	r.notef("graceful: median %v, slowest %v of %d", halfway(graceful).Round(time.Millisecond),
		slices.Max(graceful).Round(time.Millisecond), len(graceful))
	r.notef("cut off, with a time to live of 3 s: median %v, slowest %v of %d", halfway(killed).Round(time.Millisecond),
		slices.Max(killed).Round(time.Millisecond), len(killed))
	return r, nil
}

func halfway(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// instance is a gateway on a connection of its own.
type instance struct {
	nc     *nats.Conn
	cancel context.CancelFunc
	ended  chan error
}

// handovers ends the owner again and again, while somebody writes.
func (e *env) handovers(ctx context.Context, w *writer, rounds int, cut bool) ([]time.Duration, error) {
	name := "handover-" + strconv.FormatBool(cut)
	delivered := make(chan uint64, 1024)
	start := func() (*instance, error) {
		nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: e.url})
		if err != nil {
			return nil, err
		}
		store, err := jetstream.Attach(ctx, nc, storeName)
		if err != nil {
			return nil, err
		}
		held := aggregateID(0)
		g, err := e.gatewayOf(store, name, gateway.Config{Start: jetstream.FromNow(), MinBackoff: time.Minute},
			func(_ context.Context, d gateway.Delivery) error {
				if d.ID == held {
					return errors.New("held")
				}
				select {
				case delivered <- d.Epoch:
				default:
				}
				return nil
			})
		if err != nil {
			return nil, err
		}
		run, cancel := context.WithCancel(ctx)
		i := &instance{nc: nc, cancel: cancel, ended: make(chan error, 1)}
		go func() { i.ended <- g.Run(run) }()
		return i, nil
	}
	stop := func(i *instance) error {
		i.cancel()
		err := <-i.ended
		i.nc.Close()
		return err
	}
	owner, err := start()
	if err != nil {
		return nil, err
	}
	writing, stopWriting := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; writing.Err() == nil; i++ {
			_ = w.append(writing, i%writers)
			t := time.NewTimer(2 * time.Millisecond)
			<-t.C
		}
	})
	defer wg.Wait()
	defer stopWriting()
	var took []time.Duration
	epoch := <-delivered
	for range rounds {
		standby, err := start()
		if err != nil {
			return nil, err
		}
		for range 20 { // the owner is at work, and the standby has looked
			epoch = max(epoch, <-delivered)
		}
		begin := time.Now()
		if cut {
			owner.nc.Close()
		}
		go func() { _ = stop(owner) }()
		for at := range delivered {
			if at > epoch {
				epoch = at
				break
			}
		}
		took = append(took, time.Since(begin))
		owner = standby
	}
	return took, stop(owner)
}
