package promql_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/monitor"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/signals/shop"
)

var errDown = errors.New("the service is down")

// watched is the shop, watched by a Prometheus.
type watched struct {
	*shop.Shop
	*server

	monitor *monitor.Monitor
}

// watch starts the shop. What it does is as durable as one server can make it.
func watch(t *testing.T, stallAfter time.Duration) *watched {
	t.Helper()
	p := newServer(t)
	s := shop.Start(t, natstest.Name(t), nil, p.provider)
	m := monitorOf(t, p, monitor.Config{
		Store: s.Store, StallAfter: stallAfter,
		DurabilitySources: jetstream.DurabilitySources{Known: known(s.Store, jetstream.FsyncAlways)},
	})
	m.Repository(s.Repo)
	m.Service(s.Service)
	m.Reactor(s.Reactor)
	m.Updater(s.Updater)
	m.Gateway(s.Gate)
	w := &watched{Shop: s, server: p, monitor: m}
	w.place(t, "o1")
	return w
}

func monitorOf(t *testing.T, p *server, cfg monitor.Config) *monitor.Monitor {
	t.Helper()
	cfg.MeterProvider, cfg.Logger = p.provider, shop.Quiet
	if cfg.Timeout == 0 {
		cfg.Timeout = natstest.Patience
	}
	m := shop.Need(monitor.New(cfg))(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func known(store *jetstream.Store, fsync jetstream.Fsync) map[string]jetstream.Fsync {
	return map[string]jetstream.Fsync{store.Conn().ConnectedServerName(): fsync}
}

func (w *watched) place(t *testing.T, id string) {
	t.Helper()
	if _, err := w.Orders.Create(t.Context(), id, shop.Place{Item: "book"}); err != nil {
		t.Fatal(err)
	}
}

// reaches waits until the metrics say so: what happens in the shop takes its time.
func (s *server) reaches(t *testing.T, expr string) {
	t.Helper()
	natstest.Eventually(t, expr, func() error {
		s.now = s.now.Add(time.Second)
		s.scrape(t)
		if len(s.query(t, expr)) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// A store in which nothing happens raises no alarm, nor one in which work is done.
func TestQuietAndBusyStores(t *testing.T) {
	t.Parallel()
	w := watch(t, 0)
	w.ages = .01 // neither are those, here
	w.reaches(t, "sum(rossby_view_lag) + sum(rossby_follower_lag) == 0 and min(rossby_module_ready) == 1")
	w.pass(t, 20*time.Minute, nil)
	n := 0
	w.pass(t, 20*time.Minute, func() {
		n++
		w.place(t, fmt.Sprintf("busy%d", n))
	})
	if fired := w.fired(); len(fired) > 0 {
		t.Errorf("fired: %v", fired)
	}
}

// staged is a cause of alerts: what happens from then on, nil for nothing more.
type staged struct {
	*server

	happens func()
}

// Each alert of docs/signals/alerts.yml fires when its cause is there, and has been
// for as long as the rule says; docs/signals.md explains it.
func TestAlerts(t *testing.T) {
	t.Parallel()
	guide := string(shop.Need(os.ReadFile("../../docs/signals.md"))(t))
	causes := map[string]struct {
		stage  func(*testing.T) staged
		alerts []string
	}{
		"stuck":     {stuck, []string{"RossbyModuleNotReady", "RossbyFollowerLags", "RossbyViewLags"}},
		"parked":    {parked, []string{"RossbyParked"}},
		"broken":    {broken, []string{"RossbyBreakerOpen"}},
		"contended": {contended, []string{"RossbyConflicts"}},
		"busy":      {busy, []string{"RossbyBusy"}},
		"lazy":      {lazy, []string{"RossbyNotDurable"}},
		"down":      {down, []string{"RossbyDisconnected", "RossbyStoreDown"}},
		"missing":   {missing, []string{"RossbyReplicaMissing"}},
		"stopped":   {stopped, []string{"RossbyModuleNotReady", "RossbyViewStopped"}},
		"slow":      {slow, []string{"RossbyAppendsSlow", "RossbyViewLate"}},
	}
	provoked := map[string]bool{}
	for _, c := range causes {
		for _, name := range c.alerts {
			provoked[name] = true
		}
	}
	for _, r := range alerts(t) {
		if !strings.Contains(guide, "| `"+r.name+"` |") {
			t.Errorf("docs/signals.md does not explain %s", r.name)
		}
		if !provoked[r.name] {
			t.Errorf("nothing provokes %s", r.name)
		}
		delete(provoked, r.name)
	}
	for name := range provoked {
		t.Errorf("%s is no alert", name)
	}
	for name, c := range causes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.stage(t)
			began := s.now
			s.pass(t, 20*time.Minute, s.happens)
			if fired := s.fired(); !slices.Equal(fired, c.alerts) {
				t.Errorf("fired: %v, want %v", fired, c.alerts)
			}
			for _, r := range s.rules {
				if !r.first.IsZero() && r.first.Sub(began) < r.hold {
					t.Errorf("%s fired after %v, before the %v it says", r.name, r.first.Sub(began), r.hold)
				}
			}
		})
	}
}

// stuck is a reactor and a view that stand still while there is work for them.
func stuck(t *testing.T) staged {
	t.Helper()
	w := watch(t, time.Millisecond)
	const many = 10_001 // one more than the alert about views lets pass
	stocks := shop.Need(aggregate.NewRepository(w.Store, shop.StockType(), aggregate.RepositoryConfig{}))(t)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 64 {
		wg.Go(func() {
			for i := range next {
				if _, err := stocks.Create(t.Context(), fmt.Sprintf("many%d", i), shop.Take{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range many {
		next <- i
	}
	close(next)
	wg.Wait()
	stuck := make(chan struct{})
	view := shop.Need(projection.NewUpdater(w.Store, projection.NewKeyed("stuck",
		projection.On(shop.StockEvents, func(_ *shop.Shown, _ shop.Taken, _ jetstream.Meta) { <-stuck })),
		projection.UpdaterConfig{Logger: shop.Quiet, FoldTimeout: -1}))(t)
	reactor := shop.Need(aggregate.NewReactor(w.Store, "stuck",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: shop.Quiet},
		aggregate.On(shop.StockEvents, func(context.Context, shop.Taken, jetstream.Meta, *aggregate.Do) error {
			<-stuck
			return nil
		})))(t)
	shop.Run(t, view.Run, reactor.Run)
	t.Cleanup(func() { close(stuck) }) // before the modules are waited for
	w.monitor.Updater(view)
	w.monitor.Reactor(reactor)
	w.reaches(t, `rossby_view_lag{rossby_view="stuck"} > 10000`)
	w.reaches(t, `rossby_follower_lag_time_seconds{rossby_follower_name="stuck"} > 0`)
	w.reaches(t, "count(rossby_module_ready == 0) == 2")
	w.ages = 100_000
	return staged{w.server, nil}
}

// parked is an event that waits for a person.
func parked(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	reactor := shop.Need(aggregate.NewReactor(w.Store, "refusing",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: shop.Quiet},
		aggregate.On(shop.OrderEvents, func(context.Context, shop.Placed, jetstream.Meta, *aggregate.Do) error {
			return aggregate.Reject("no", "never")
		})))(t)
	shop.Run(t, reactor.Run)
	w.monitor.Reactor(reactor)
	w.reaches(t, "rossby_follower_parked == 1")
	// What waits for a person is an alert; the others go on, so the module is ready.
	w.reaches(t, `rossby_module_ready{rossby_module_name="refusing"} == 1`)
	return staged{w.server, nil}
}

// broken is a destination that fails.
func broken(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	w.place(t, "o2")
	w.place(t, "o3") // a breaker wants several aggregates to fail
	gate := shop.Need(gateway.New(w.Store, "failing", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: shop.Quiet, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		Limits: gateway.Limits{BreakerFailures: 2, BreakerCooldown: time.Hour},
	}, gateway.On(shop.OrderEvents, func(context.Context, shop.Placed, gateway.Delivery) error { return errDown })))(t)
	shop.Run(t, gate.Run)
	w.monitor.Gateway(gate)
	w.reaches(t, "rossby_gateway_breaker_open == 1 and rossby_gateway_failed_total > 1")
	return staged{w.server, nil}
}

// contended are two processes that write the same aggregate.
func contended(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	another := shop.Need(aggregate.NewRepository(w.Store, shop.StockType(), aggregate.RepositoryConfig{}))(t)
	one := shop.Need(aggregate.NewRepository(w.Store, shop.StockType(), aggregate.RepositoryConfig{}))(t)
	w.monitor.Repository(one)
	if _, err := one.Create(t.Context(), "s1", shop.Take{}); err != nil {
		t.Fatal(err)
	}
	return staged{w.server, func() {
		for _, repo := range []*aggregate.Repository[shop.Stock]{another, one} {
			if _, err := repo.Execute(t.Context(), "s1", shop.More{}); err != nil {
				t.Fatal(err)
			}
		}
	}}
}

// busy is a service with more to do than it takes.
func busy(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	began, let := make(chan struct{}, 8), make(chan struct{})
	typ := aggregate.New[shop.Stock](jetstream.NewSchema("slow", jetstream.Event[shop.Taken]("taken")),
		aggregate.Apply(func(*shop.Stock, shop.Taken, jetstream.Meta) {}),
		aggregate.Create("take", func(c shop.Take, _ aggregate.Decision) ([]any, error) {
			began <- struct{}{}
			<-let
			return []any{shop.Taken(c)}, nil
		}))
	repo := shop.Need(aggregate.NewRepository(w.Store, typ, aggregate.RepositoryConfig{}))(t)
	service := shop.Need(aggregate.NewService(repo, aggregate.ServiceConfig{
		Logger: shop.Quiet, Queue: 1, Timeout: time.Hour,
	}))(t)
	shop.Run(t, service.Run)
	w.monitor.Service(service)
	<-service.Ready()
	client := shop.Need(aggregate.NewClient(w.Store.Conn(), w.Store.Name(), typ, aggregate.ClientConfig{Timeout: time.Hour}))(t)
	result := make(chan error, 1)
	go func() {
		_, err := client.Create(t.Context(), "a", shop.Take{})
		result <- err
	}()
	<-began
	t.Cleanup(func() { // before the service is waited for
		close(let)
		if err := <-result; err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return staged{w.server, func() {
		for range 20 { // in 15 s
			m := &nats.Msg{Subject: w.Store.Name() + ".command.slow.take.b", Data: []byte("{}")}
			reply, err := w.Store.Conn().RequestMsgWithContext(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if code := reply.Header.Get("Nats-Service-Error-Code"); code != "429" {
				t.Fatalf("answered with %q %s", code, reply.Data)
			}
		}
	}}
}

// lazy is a server that says it has stored what it has not synced.
func lazy(t *testing.T) staged {
	t.Helper()
	p := newServer(t)
	s := shop.Start(t, natstest.Name(t), nil, nil)
	monitorOf(t, p, monitor.Config{Store: s.Store, DurabilitySources: jetstream.DurabilitySources{
		Known: known(s.Store, jetstream.FsyncEvery(time.Minute)),
	}})
	return staged{p, nil}
}

// down is a server that is gone.
func down(t *testing.T) staged {
	t.Helper()
	srv := natstest.Run(t)
	store := shop.Need(jetstream.Open(t.Context(), natstest.Conn(t, srv.URL()), jetstream.Config{Name: natstest.Name(t)}))(t)
	p := newServer(t)
	m := monitorOf(t, p, monitor.Config{Store: store, Timeout: 50 * time.Millisecond})
	m.Check("test", "test", func(context.Context) error { return nil })
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	p.reaches(t, "rossby_store_up == 0 and rossby_connection_up == 0")
	return staged{p, nil}
}

// missing is a cluster of which a server is gone.
func missing(t *testing.T) staged {
	t.Helper()
	cluster := natstest.RunCluster(t)
	store := shop.Need(jetstream.Open(t.Context(), cluster.Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3}))(t)
	cluster.Stop((cluster.StreamLeader(store.Name()) + 1) % 3)
	var p *server
	natstest.Eventually(t, "the replica to be missing", func() error {
		// One look serves for a while, so each of these is another process.
		p = newServer(t)
		monitorOf(t, p, monitor.Config{Store: store})
		p.scrape(t)
		if len(p.query(t, "rossby_store_replicas_missing == 1")) != 1 {
			return errors.New("none is missing")
		}
		return nil
	})
	return staged{p, nil}
}

// stopped is a view whose fold fails.
func stopped(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	view := shop.Need(projection.NewUpdater(w.Store, projection.NewKeyed("broken",
		projection.On(shop.OrderEvents, func(_ *shop.Shown, _ shop.Placed, _ jetstream.Meta) { panic("it cannot") })),
		projection.UpdaterConfig{Logger: shop.Quiet, FoldRetries: -1}))(t)
	shop.Run(t, view.Run)
	w.monitor.Updater(view)
	w.reaches(t, "rossby_view_stopped == 1")
	w.reaches(t, `rossby_module_ready{rossby_module_name="broken"} == 0`)
	return staged{w.server, nil}
}

// slow is a store, and a view, whose every microsecond takes a tenth of a second.
func slow(t *testing.T) staged {
	t.Helper()
	w := watch(t, 0)
	w.lapse = 100_000
	n := 0
	return staged{w.server, func() {
		n++
		w.place(t, fmt.Sprintf("slow%d", n))
	}}
}
