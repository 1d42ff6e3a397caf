package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// AC-S1: two subscribers both get an event, whose id is the one that the command's
// caller knows; a third gets what the first one's effect led to, with the
// transfer's id on it. AC-A18: two subscribers and two steps on one aggregate for
// one event all take effect.
func TestReactorSubscribers(t *testing.T) {
	t.Parallel()
	onR1AndR3(t, func(t *testing.T, conn func(testing.TB) *nats.Conn, replicas int) {
		store := newStore(t, conn(t), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		must(t, repo, "target", open{100})
		got := map[string]chan string{"first": make(chan string, 9), "second": make(chan string, 9), "third": make(chan string, 9)}
		for _, name := range []string{"first", "second"} {
			run(t, newReactor(t, store, name, aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
				if m.ID != "transfer" {
					return nil
				}
				md := aggregate.Metadata(map[string]string{"transfer": m.ID})
				for _, step := range []string{"one", "two"} {
					if _, err := do.Update(ctx, repo, "target", debit{1}, aggregate.Step(step), md); err != nil {
						return err
					}
				}
				tell(got[name], m.EventID)
				return nil
			})))
		}
		run(t, newReactor(t, store, "third", aggregate.On(events, func(_ context.Context, _ debited, m jetstream.Meta, _ *aggregate.Do) error {
			tell(got["third"], m.Metadata["transfer"]+" "+m.Causation)
			return nil
		})))
		res := must(t, repo, "transfer", open{1})
		cause := res.Events[0].EventID
		for _, name := range []string{"first", "second"} {
			if id := received(t, got[name]); id != cause {
				t.Errorf("%s got event %s, the command made %s", name, id, cause)
			}
		}
		for range 4 {
			if text := received(t, got["third"]); text != "transfer "+cause {
				t.Errorf("%q", text)
			}
		}
		balance(t, repo, "target", 96, 5)
	})
}

// C20: effects are known by their names. A deploy puts one before those that an
// event has had already, leaves one out, and moves another: what happened does not
// happen again, what is new happens.
func TestReactorDeploysOtherEffects(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "target", open{0})
	reactor := func(done chan<- struct{}, outcome error, steps ...string) *aggregate.Reactor {
		return newReactor(t, store, "deploys", aggregate.On(events, func(ctx context.Context, _ debited, _ jetstream.Meta, do *aggregate.Do) error {
			for i, step := range steps {
				if _, err := do.Update(ctx, repo, "target", credit{int64(100 + i)}, aggregate.Step(step)); err != nil {
					return err
				}
			}
			select {
			case done <- struct{}{}:
			default:
			}
			return outcome
		}))
	}
	done := make(chan struct{}, 1)
	stop := run(t, reactor(done, errors.New("crashed after the effects"), "a", "b", "c"))
	must(t, repo, "source", open{1})
	must(t, repo, "source", debit{1})
	received(t, done)
	stop()
	done = make(chan struct{}, 1)
	run(t, reactor(done, nil, "new", "c", "b"))
	received(t, done)
	var steps []string
	for c, err := range store.History(t.Context(), "account", "target", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range c.Decisions {
			steps = append(steps, d.Trigger.Step)
		}
	}
	if want := []string{"", "a", "b", "c", "new"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

// A process that executes deadlines dies at every message that it sends to
// execute one: the deadline happens once.
func TestTimersDieAtEveryStep(t *testing.T) {
	t.Parallel()
	// scene sets a deadline, and gives a victim that has not run yet.
	scene := func(t *testing.T, url string, replicas int, ttl time.Duration, p point) (*jetstream.Store, *aggregate.Timers, *trap, *nats.Conn) {
		t.Helper()
		nc := natstest.Conn(t, url)
		store := newStore(t, nc, jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		newTimers(t, store, repo)
		set := make(chan struct{}, 1)
		stop := run(t, newReactor(t, store, "sets", aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
			err := do.After(ctx, 0, repo, m.ID, credit{1})
			if err == nil {
				tell(set, struct{}{})
			}
			return err
		})))
		must(t, repo, "a1", open{10})
		received(t, set)
		stop()
		due(t, nc, store)
		wire := newTrap(store.Name(), p)
		victim := natstest.Conn(t, url, nats.SetCustomDialer(wire))
		again := reopen(t, victim, store)
		timers := leasedTimers(t, again, ttl, &watched{Target: newRepo(t, again), done: wire.release})
		wire.arm()
		return store, timers, wire, victim
	}
	test := func(t *testing.T, url string, replicas int) {
		t.Helper()
		_, timers, wire, _ := scene(t, url, replicas, steady, point{})
		stop := run(t, timers)
		natstest.Eventually(t, "the deadline is recorded as executed", func() error {
			if p := wire.points(); len(p) == 0 || p[len(p)-1].Kind != sendsRecord {
				return fmt.Errorf("%v", p)
			}
			return nil
		})
		stop()
		points := wire.points()
		t.Log(points)
		if len(points) < 6 {
			t.Fatalf("%v", points)
		}
		for i, p := range points {
			if testing.Short() && replicas > 1 && i%3 != 0 {
				continue // on one server it dies at all of them
			}
			t.Run(p.String(), func(t *testing.T) {
				t.Parallel()
				store, timers, wire, victim := scene(t, url, replicas, brief, p)
				ended := make(chan error, 1)
				go func() { ended <- timers.Run(context.WithoutCancel(t.Context())) }()
				t.Cleanup(func() {
					victim.Close()
					t.Log("the dead instance:", <-ended)
				})
				wire.dies(t)
				nc := natstest.Conn(t, url)
				next := reopen(t, nc, store)
				repo := newRepo(t, next)
				heir := leasedTimers(t, next, brief, repo)
				run(t, heir)
				natstest.Eventually(t, "another instance has caught up", func() error {
					if s := heir.Status()["account"]; !s.CaughtUp {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
				balance(t, repo, "a1", 11, 2)
			})
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.Run(t).URL(), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, strings.Join(natstest.RunCluster(t).URLs(), ","), 3)
	})
}

// watched is a target that tells when a command has been executed.
type watched struct {
	aggregate.Target

	done func()
}

func (w *watched) Execute(ctx context.Context, id string, command any, opts ...aggregate.CallOption) (aggregate.Result, error) {
	res, err := w.Target.Execute(ctx, id, command, opts...)
	w.done()
	return res, err
}
