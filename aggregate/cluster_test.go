package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// surely repeats a command with its id, or one that it gives it, until its outcome is
// known.
func surely(ctx context.Context, to aggregate.Target, id string, command any, opts ...aggregate.CallOption) (aggregate.Result, error) {
	if len(opts) == 0 {
		opts = []aggregate.CallOption{aggregate.CommandID(jetstream.NewCommandID())}
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		res, err := to.Execute(attempt, id, command, opts...)
		cancel()
		again := errors.Is(err, jetstream.ErrUnknownOutcome) || errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, aggregate.ErrContended)
		if !again || ctx.Err() != nil {
			return res, err
		}
	}
}

// On three replicas reads go backwards and leaders resign. Every command, sent
// by several processes under one id, and every trigger happens once.
func TestClusterExactlyOnce(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	store := newStore(t, c.Conn(t), jetstream.Config{Replicas: 3})
	const processes, aggregates = 3, 2
	each := times(15, 6)
	targets := make([]aggregate.Target, 0, processes)
	for i := range processes {
		// Every process talks to another server.
		nc := natstest.Conn(t, c.URLs()[i])
		targets = append(targets, newRepo(t, reopen(t, nc, store)))
	}
	served := reopen(t, c.Conn(t), store)
	run(t, newService(t, newRepo(t, served), aggregate.ServiceConfig{}))
	targets = append(targets, newClient(t, c.Conn(t), store))
	cause, err := surely(t.Context(), targets[0], "cause", open{1})
	if err != nil {
		t.Fatal(err)
	}
	for a := range aggregates {
		if _, err := surely(t.Context(), targets[a], fmt.Sprint("a", a), open{0}); err != nil {
			t.Fatal(err)
		}
	}

	done, progress := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for a := range aggregates {
		id := fmt.Sprint("a", a)
		for n := range each {
			wg.Go(func() {
				key := aggregate.CommandID(jetstream.NewCommandID())
				if n%3 == 0 {
					key = aggregate.CommandID(fmt.Sprint("foreign ", n))
				}
				trigger := aggregate.TriggeredBy(aggregate.Trigger{
					Subscriber: "s", EventID: cause.Events[0].EventID, Step: fmt.Sprint("step-", n), Position: cause.Position,
				})
				var versions [2]uint64
				for i := range 2 * len(targets) {
					to := targets[(n+i/2)%len(targets)]
					opt, cents := key, int64(1)
					if i%2 == 1 {
						opt, cents = trigger, 1000
					}
					res, err := surely(t.Context(), to, id, credit{cents}, opt)
					if err != nil {
						t.Error(err)
						return
					}
					select {
					case progress <- struct{}{}:
					default:
					}
					if versions[i%2] == 0 {
						versions[i%2] = res.Version
					} else if !res.Duplicate || res.Version != versions[i%2] {
						t.Errorf("%+v, was version %d", res, versions[i%2])
					}
				}
			})
		}
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	for decided := 0; ; decided++ {
		select {
		case <-done:
			for a := range aggregates {
				balance(t, newRepo(t, store), fmt.Sprint("a", a), int64(1001*each), uint64(2*each+1))
			}
			return
		case <-progress:
			if decided%15 == 14 {
				c.StepDown(t, store.Name())
			}
		}
	}
}

// A loaded aggregate is never older than asked for, whichever replica answers.
func TestClusterReadsOwnWrites(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	store := newStore(t, c.Conn(t), jetstream.Config{Replicas: 3})
	writer := newRepo(t, store)
	other := newRepo(t, reopen(t, c.Conn(t), store))
	must(t, writer, "a1", open{0})
	for i := range 100 {
		res := must(t, writer, "a1", credit{1})
		for what, opts := range map[string][]aggregate.LoadOption{
			"leader": nil, "follower": {aggregate.Follower(), aggregate.AtLeast(res.Position)},
		} {
			snap, err := other.Load(t.Context(), "a1", opts...)
			if err != nil || snap.Version != res.Version || snap.State.Cents != int64(i+1) {
				t.Fatalf("%s: %+v %v, want version %d", what, snap, err, res.Version)
			}
		}
		// A cold one decides on what any replica has, and finds out.
		if i%10 == 0 {
			if _, err := newRepo(t, store).Execute(t.Context(), "a1", debit{int64(i + 2)}); !errors.Is(err, aggregate.ErrRejected) {
				t.Fatal(err)
			}
			res, err := newRepo(t, store).Execute(t.Context(), "a1", credit{})
			if err != nil || res.Version != uint64(i+2) {
				t.Fatalf("%+v %v", res, err)
			}
		}
	}
}

// A reactor over the cluster while leaders resign: each effect once, in order.
func TestClusterReactor(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	store := newStore(t, c.Conn(t), jetstream.Config{Replicas: 3})
	repo := newRepo(t, store)
	for _, nc := range []*nats.Conn{c.Conn(t), c.Conn(t)} {
		own := newRepo(t, reopen(t, nc, store))
		run(t, leased(t, reopen(t, nc, store), "mirror", brief, aggregate.On(events,
			func(ctx context.Context, e credited, m jetstream.Meta, do *aggregate.Do) error {
				if m.ID == "mirror" {
					return nil
				}
				_, err := do.Update(ctx, own, "mirror", credit(e))
				return err
			})))
	}
	const n = 20
	if _, err := surely(t.Context(), repo, "mirror", open{0}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		id := fmt.Sprint("a", i%4)
		if i < 4 {
			if _, err := surely(t.Context(), repo, id, open{0}, aggregate.CommandID(jetstream.NewCommandID())); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := surely(t.Context(), repo, id, credit{1}, aggregate.CommandID(jetstream.NewCommandID())); err != nil {
			t.Fatal(err)
		}
		if i%7 == 3 {
			c.StepDown(t, store.Name())
		}
	}
	settles(t, repo, "mirror", n)
	balance(t, repo, "mirror", n, n+1)
}
