package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	placed   struct{ Cents int64 }
	paid     struct{ Cents int64 }
	refunded struct{ Cents int64 }

	order struct{ Paid int64 }

	place struct{ Cents int64 }
	// pay is stored as one event for each amount, in one commit.
	pay struct{ Cents []int64 }
	// refund wants no more than was paid.
	refund struct{ Cents int64 }
)

var (
	events = jetstream.NewSchema("order",
		jetstream.Event[placed]("placed"), jetstream.Event[paid]("paid"), jetstream.Event[refunded]("refunded"))
	orders = aggregate.New[order](events,
		aggregate.Apply(func(*order, placed, jetstream.Meta) {}),
		aggregate.Apply(func(o *order, e paid, _ jetstream.Meta) { o.Paid += e.Cents }),
		aggregate.Apply(func(o *order, e refunded, _ jetstream.Meta) { o.Paid -= e.Cents }),
		aggregate.Create("place", func(c place, _ aggregate.Decision) ([]any, error) { return []any{placed(c)}, nil }),
		aggregate.Handle("pay", func(_ order, c pay, _ aggregate.Decision) ([]any, error) {
			made := make([]any, 0, len(c.Cents))
			for _, cents := range c.Cents {
				made = append(made, paid{cents})
			}
			return made, nil
		}),
		aggregate.Handle("refund", func(o order, c refund, _ aggregate.Decision) ([]any, error) {
			if o.Paid < c.Cents {
				return nil, aggregate.Reject("too-much", "%d of %d", c.Cents, o.Paid)
			}
			return []any{refunded(c)}, nil
		}),
	)
	quiet   = slog.New(slog.DiscardHandler)
	errTest = errors.New("the service is down")
)

const (
	// leaseKept outlasts a machine that stands still: where owners change only when a
	// test makes them, nothing is delivered twice.
	leaseKept = 15 * time.Second
	// leaseShort is one that a test waits for, or that a slow machine may lose.
	leaseShort = 2 * time.Second
)

// config is quick to retry.
func config() gateway.Config {
	return gateway.Config{
		Start: jetstream.FromBeginning(), MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
		TTL: leaseKept, Logger: quiet,
	}
}

// setup gives a store of its own on a server of its own.
func setup(t testing.TB) (*jetstream.Store, *aggregate.Repository[order], string) {
	t.Helper()
	url := natstest.Run(t).URL()
	store := open(t, natstest.Conn(t, url), natstest.Name(t))
	return store, repository(t, store), url
}

// onBoth runs a test on one server and on a cluster of three.
func onBoth(
	t *testing.T, test func(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]),
) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		store, repo, _ := setup(t)
		test(t, store, repo)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		store, err := jetstream.Open(t.Context(), natstest.RunCluster(t).Conn(t),
			jetstream.Config{Name: natstest.Name(t), Replicas: 3})
		if err != nil {
			t.Fatal(err)
		}
		test(t, store, repository(t, store))
	})
}

func open(t testing.TB, nc *nats.Conn, name string) *jetstream.Store {
	t.Helper()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func repository(t testing.TB, store *jetstream.Store) *aggregate.Repository[order] {
	t.Helper()
	repo, err := aggregate.NewRepository(store, orders, aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// must executes a command that succeeds.
func must(t testing.TB, repo *aggregate.Repository[order], id string, command any, opts ...aggregate.CallOption) aggregate.Result {
	t.Helper()
	do := repo.Execute
	if _, ok := command.(place); ok {
		do = repo.Create
	}
	res, err := do(t.Context(), id, command, opts...)
	if err != nil {
		t.Fatalf("%T on %s: %v", command, id, err)
	}
	return res
}

func newGateway(t testing.TB, store *jetstream.Store, name string, cfg gateway.Config, handlers ...gateway.Option) *gateway.Gateway {
	t.Helper()
	g, err := gateway.New(store, name, cfg, handlers...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// runner is a gateway or a command service.
type runner interface {
	Run(ctx context.Context) error
}

// run runs until the test ends, or until stop is called.
func run(t testing.TB, r runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// ends runs until it ends by itself.
func ends(t testing.TB, r runner) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return done
}

// received waits for a value.
func received[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(natstest.Patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// active waits until the gateway delivers.
func active(t testing.TB, g *gateway.Gateway) {
	t.Helper()
	natstest.Eventually(t, "active", func() error {
		if s := g.Status(); s.State != "active" {
			return errors.New("not yet: " + string(s.State))
		}
		return nil
	})
}

// caughtUp waits until nothing is left to deliver.
func caughtUp(t testing.TB, g *gateway.Gateway) {
	t.Helper()
	natstest.Eventually(t, "caught up", func() error {
		if s := g.Status(); !s.CaughtUp {
			return errors.New("not yet: " + string(s.State))
		}
		return nil
	})
}

// parked waits until the gateway has parked so many aggregates.
func parked(t testing.TB, g *gateway.Gateway, want int) gateway.Status {
	t.Helper()
	var s gateway.Status
	ok := natstest.Eventually(t, "parked", func() error {
		s = g.Status()
		n := 0
		for _, lane := range s.Blocked {
			if lane.Parked {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d parked, wanted %d: %+v", n, want, s)
		}
		return nil
	})
	if !ok {
		t.FailNow()
	}
	return s
}
