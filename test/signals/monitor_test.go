package signals_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/jetstream/monitor"
	"github.com/rossby-go/rossby/projection"
)

// prom is what Prometheus would scrape.
type prom struct{ *prometheus.Registry }

// watch makes a monitor whose metrics Prometheus would scrape.
func watch(t *testing.T, cfg monitor.Config) (*monitor.Monitor, prom) {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter := need(otelprom.New(otelprom.WithRegisterer(registry)))(t)
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	cfg.Logger, cfg.Timeout = quiet, natstest.Patience
	m := need(monitor.New(cfg))(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, prom{registry}
}

// value is the sum of a metric over its attributes.
func (p prom) value(t *testing.T, name string) float64 {
	t.Helper()
	families, err := p.Gather()
	if err != nil {
		t.Error(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// reaches waits until a metric satisfies an alert's condition.
func (p prom) reaches(t *testing.T, name string, holds func(float64) bool) {
	t.Helper()
	natstest.Eventually(t, name, func() error {
		if v := p.value(t, name); !holds(v) {
			return fmt.Errorf("it is %v", v)
		}
		return nil
	})
}

func above(least float64) func(float64) bool { return func(v float64) bool { return v > least } }
func is(want float64) func(float64) bool     { return func(v float64) bool { return v == want } }

// everything is a store with each kind of module, watched.
func everything(t *testing.T, provider metric.MeterProvider) *shop {
	t.Helper()
	s := startShop(t, natstest.Name(t), nil, provider)
	m := need(monitor.New(monitor.Config{
		Store: s.store, MeterProvider: provider, Logger: quiet, Timeout: natstest.Patience,
	}))(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	m.Repository(s.repo)
	m.Service(s.service)
	m.Reactor(s.reactor)
	m.Updater(s.updater)
	m.Gateway(s.gate)
	if _, err := s.orders.Create(t.Context(), "o1", place{Item: "book"}); err != nil {
		t.Fatal(err)
	}
	return s
}

var documented = regexp.MustCompile("(?m)^\\| `(rossby\\.[a-z._]+)` \\| (counter|gauge|histogram) \\| ([^ ]*) \\| ")

// docs/signals.md lists every metric that is really exported, with its kind and its
// unit, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text := need(os.ReadFile("../../docs/signals.md"))(t)
	want := map[string]string{}
	for _, row := range documented.FindAllStringSubmatch(string(text), -1) {
		want[row[1]] = row[2] + " " + row[3]
	}
	reader := sdkmetric.NewManualReader()
	everything(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	natstest.Eventually(t, "the metrics", func() error {
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			return err
		}
		got := map[string]string{}
		for _, s := range data.ScopeMetrics {
			for _, m := range s.Metrics {
				kind := "gauge"
				switch m.Data.(type) {
				case metricdata.Sum[float64]:
					kind = "counter"
				case metricdata.Histogram[float64]:
					kind = "histogram"
				default:
				}
				got[m.Name] = kind + " " + m.Unit
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("exported and documented differ:\n%s", strings.Join(differing(got, want), "\n"))
		}
		return nil
	})
}

func differing(got, want map[string]string) []string {
	var out []string
	for name, what := range got {
		if want[name] != what {
			out = append(out, fmt.Sprintf("%s is %q, documented is %q", name, what, want[name]))
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			out = append(out, name+" is documented only")
		}
	}
	slices.Sort(out)
	return out
}

var used = regexp.MustCompile(`rossby_[a-z_]+`)

// The dashboard and the alerts use metrics that exist, as Prometheus names them.
func TestDashboardAndAlertsUseRealMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	exporter := need(otelprom.New(otelprom.WithRegisterer(registry)))(t)
	everything(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	for _, file := range []string{"../../docs/signals/grafana.json", "../../docs/signals/alerts.yml"} {
		text := need(os.ReadFile(file))(t)
		names := slices.Compact(slices.Sorted(slices.Values(onlyMetrics(used.FindAllString(string(text), -1)))))
		if len(names) < 10 {
			t.Fatalf("%s uses %d metrics", file, len(names))
		}
		natstest.Eventually(t, file, func() error {
			families, err := registry.Gather()
			if err != nil {
				return err
			}
			exists := map[string]bool{}
			for _, f := range families {
				exists[f.GetName()] = true
				exists[f.GetName()+"_bucket"] = f.GetType().String() == "HISTOGRAM"
			}
			for _, name := range names {
				if !exists[name] {
					return fmt.Errorf("%s is not exported", name)
				}
			}
			return nil
		})
	}
	if !json.Valid(need(os.ReadFile("../../docs/signals/grafana.json"))(t)) {
		t.Error("the dashboard is not JSON")
	}
}

// onlyMetrics leaves out labels.
func onlyMetrics(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains([]string{
			"rossby_aggregate_type", "rossby_follower_kind", "rossby_follower_name", "rossby_view", "rossby_gateway",
			"rossby_destination", "rossby_outcome", "rossby_reactor", "rossby_command_name", "rossby_event_name", "rossby_module_kind", "rossby_module_name", "rossby_store", "rossby_durability",
		}, name)
	})
}

// ask asks a handler.
func ask(t *testing.T, h http.Handler) (int, monitor.Report) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	var r monitor.Report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Error(err)
	}
	return w.Code, r
}

// A store in which nothing happens is no dead follower, however impatient one is.
func TestQuietStoreIsReady(t *testing.T) {
	t.Parallel()
	s := everything(t, nil)
	m, _ := watch(t, monitor.Config{Store: s.store, StallAfter: time.Nanosecond})
	m.Service(s.service)
	m.Reactor(s.reactor)
	m.Updater(s.updater)
	m.Gateway(s.gate)
	const end = 4 // the genesis, and what placing an order leads to
	natstest.Eventually(t, "the modules to catch up", func() error {
		code, r := ask(t, m.Ready())
		done := code == http.StatusOK && r.Head == end && len(r.Modules) == 4
		for _, mod := range r.Modules[1:] {
			done = done && mod.Position == end && mod.Lag == 0
		}
		if !done {
			return fmt.Errorf("%d: %+v", code, r)
		}
		return nil
	})
	for range 100 {
		if code, r := ask(t, m.Ready()); code != http.StatusOK {
			t.Fatalf("%d: %+v", code, r)
		}
	}
	if code, _ := ask(t, m.Live()); code != http.StatusOK {
		t.Errorf("live: %d", code)
	}
	// Of a connection of its own: the modules need theirs.
	nc := natstest.Conn(t, s.store.Conn().ConnectedUrl())
	other := need(monitor.New(monitor.Config{Store: need(jetstream.Attach(t.Context(), nc, s.store.Name()))(t)}))(t)
	nc.Close()
	if code, _ := ask(t, other.Live()); code != http.StatusServiceUnavailable {
		t.Errorf("live without a connection: %d", code)
	}
}

// A view or a reactor that stands still while there is work is dead, and says so,
// until it gets on. One that was paused is not, and says that.
func TestDeadFollower(t *testing.T) {
	t.Parallel()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store, StallAfter: 50 * time.Millisecond})
	stuck := make(chan struct{})
	view := need(projection.NewUpdater(s.store, projection.NewKeyed("stuck",
		projection.On(orderEvents, func(_ *shown, _ placed, _ jetstream.Meta) { <-stuck })),
		projection.UpdaterConfig{Logger: quiet, FoldTimeout: -1}))(t)
	reactor := need(aggregate.NewReactor(s.store, "stuck",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		aggregate.On(orderEvents, func(context.Context, placed, jetstream.Meta, *aggregate.Do) error {
			<-stuck
			return nil
		})))(t)
	run(t, view.Run, reactor.Run)
	free := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(free) // before the modules are waited for
	m.Updater(view)
	m.Reactor(reactor)
	dead := func(want int) {
		natstest.Eventually(t, fmt.Sprintf("%d dead", want), func() error {
			code, r := ask(t, m.Ready())
			n := 0
			for _, mod := range r.Modules {
				if strings.Contains(mod.Reason, "dead follower") {
					n++
				}
			}
			if n != want || (code == http.StatusOK) != (want == 0) || p.value(t, "rossby_module_ready") != float64(2-want) {
				return fmt.Errorf("%d: %+v", code, r)
			}
			return nil
		})
	}
	dead(2)
	free()
	dead(0)
	if err := followers.New(s.store).Pause(t.Context(), "stuck", "ann", "to see"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.orders.Create(t.Context(), "o2", place{Item: "pen"}); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the pause", func() error {
		code, r := ask(t, m.Ready())
		if code != http.StatusOK || r.Modules[1].State != "paused" || !r.Modules[1].Ready {
			return fmt.Errorf("%d: %+v", code, r)
		}
		return nil
	})
}

// A module that does not run is not ready, unless nobody watches it any more.
func TestModuleThatDoesNotRun(t *testing.T) {
	t.Parallel()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	remove := m.Updater(need(projection.NewUpdater(s.store, projection.NewKeyed("idle",
		projection.On(orderEvents, func(_ *shown, _ placed, _ jetstream.Meta) {})), projection.UpdaterConfig{}))(t))
	if code, r := ask(t, m.Ready()); code != http.StatusServiceUnavailable || r.Modules[0].State != "starting" {
		t.Errorf("%d: %+v", code, r)
	}
	p.reaches(t, "rossby_view_active", is(0))
	remove()
	if code, r := ask(t, m.Ready()); code != http.StatusOK || len(r.Modules) != 0 {
		t.Errorf("%d: %+v", code, r)
	}
}

var errDown = errors.New("the service is down")

// Each alert of docs/signals/alerts.yml is provoked: its metric does what the alert
// waits for.
func TestAlerts(t *testing.T) {
	t.Parallel()
	text := need(os.ReadFile("../../docs/signals/alerts.yml"))(t)
	guide := need(os.ReadFile("../../docs/signals.md"))(t)
	provoke := map[string]func(*testing.T){
		"RossbyModuleNotReady": alertLag, "RossbyFollowerLags": alertLag, "RossbyViewLags": alertLag,
		"RossbyParked": alertParked, "RossbyBreakerOpen": alertBreaker, "RossbyConflicts": alertConflicts,
		"RossbyBusy": alertBusy, "RossbyNotDurable": alertDurability, "RossbyStoreDown": alertStoreDown,
		"RossbyDisconnected": alertStoreDown, "RossbyReplicaMissing": alertReplica, "RossbyViewStopped": alertStopped,
	}
	names := regexp.MustCompile(`(?m)^ *- alert: (\w+)$`).FindAllStringSubmatch(string(text), -1)
	if len(names) != len(provoke) {
		t.Errorf("%d alerts, %d are provoked", len(names), len(provoke))
	}
	for _, n := range names {
		if provoke[n[1]] == nil {
			t.Errorf("nothing provokes %s", n[1])
			continue
		}
		if !strings.Contains(string(guide), "| `"+n[1]+"` |") {
			t.Errorf("docs/signals.md does not explain %s", n[1])
		}
		t.Run(n[1], func(t *testing.T) {
			t.Parallel()
			provoke[n[1]](t)
		})
	}
}

func alertLag(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store, StallAfter: time.Millisecond})
	stuck := make(chan struct{})
	view := need(projection.NewUpdater(s.store, projection.NewKeyed("stuck",
		projection.On(orderEvents, func(_ *shown, _ placed, _ jetstream.Meta) { <-stuck })),
		projection.UpdaterConfig{Logger: quiet}))(t)
	reactor := need(aggregate.NewReactor(s.store, "stuck",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		aggregate.On(orderEvents, func(context.Context, placed, jetstream.Meta, *aggregate.Do) error {
			<-stuck
			return nil
		})))(t)
	run(t, view.Run, reactor.Run)
	t.Cleanup(func() { close(stuck) }) // before the modules are waited for
	m.Updater(view)
	m.Reactor(reactor)
	p.reaches(t, "rossby_view_lag", above(0))
	p.reaches(t, "rossby_follower_lag_time_seconds", above(0))
	p.reaches(t, "rossby_module_ready", is(0))
}

func alertParked(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	reactor := need(aggregate.NewReactor(s.store, "refusing",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		aggregate.On(orderEvents, func(context.Context, placed, jetstream.Meta, *aggregate.Do) error {
			return aggregate.Reject("no", "never")
		})))(t)
	run(t, reactor.Run)
	m.Reactor(reactor)
	p.reaches(t, "rossby_follower_parked", is(1))
	// What waits for a person is an alert; the others go on, so the module is ready.
	p.reaches(t, "rossby_module_ready", is(1))
}

func alertBreaker(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	for _, id := range []string{"o2", "o3"} { // a breaker wants several aggregates to fail
		if _, err := s.orders.Create(t.Context(), id, place{Item: "pen"}); err != nil {
			t.Fatal(err)
		}
	}
	gate := need(gateway.New(s.store, "failing", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: quiet, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		Limits: gateway.Limits{BreakerFailures: 2, BreakerCooldown: time.Hour},
	}, gateway.On(orderEvents, func(context.Context, placed, gateway.Delivery) error { return errDown })))(t)
	run(t, gate.Run)
	m.Gateway(gate)
	p.reaches(t, "rossby_gateway_breaker_open", is(1))
	p.reaches(t, "rossby_gateway_failed_total", above(1))
}

func alertConflicts(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	another := need(aggregate.NewRepository(s.store, stockType(), aggregate.RepositoryConfig{}))(t)
	one := need(aggregate.NewRepository(s.store, stockType(), aggregate.RepositoryConfig{}))(t)
	m.Repository(one)
	if _, err := one.Create(t.Context(), "s1", take{}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		for _, repo := range []*aggregate.Repository[stock]{another, one} {
			if _, err := repo.Execute(t.Context(), "s1", more{}); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	if v := p.value(t, "rossby_repository_conflicts_total"); v < 5 {
		t.Errorf("%v conflicts", v)
	}
	if v := p.value(t, "rossby_repository_commits_total"); v != 6 {
		t.Errorf("%v commits", v)
	}
}

func alertBusy(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	began, let := make(chan struct{}, 8), make(chan struct{})
	typ := aggregate.New[stock](jetstream.NewSchema("slow", jetstream.Event[taken]("taken")),
		aggregate.Apply(func(*stock, taken, jetstream.Meta) {}),
		aggregate.Create("take", func(c take, _ aggregate.Decision) ([]any, error) {
			began <- struct{}{}
			<-let
			return []any{taken(c)}, nil
		}))
	repo := need(aggregate.NewRepository(s.store, typ, aggregate.RepositoryConfig{}))(t)
	service := need(aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet, Queue: 1}))(t)
	run(t, service.Run)
	m.Service(service)
	<-service.Ready()
	client := need(aggregate.NewClient(s.store.Conn(), s.store.Name(), typ, aggregate.ClientConfig{}))(t)
	results := make(chan error, 2)
	create := func(id string) {
		_, err := client.Create(t.Context(), id, take{})
		results <- err
	}
	go create("a")
	<-began
	go create("b")
	p.reaches(t, "rossby_service_busy_total", above(0))
	close(let)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func alertDurability(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	server := s.store.Conn().ConnectedServerName()
	for level, fsync := range map[float64]jetstream.Fsync{2: jetstream.FsyncEvery(time.Minute), 4: jetstream.FsyncAlways} {
		_, p := watch(t, monitor.Config{
			Store: s.store, DurabilitySources: jetstream.DurabilitySources{Known: map[string]jetstream.Fsync{server: fsync}},
		})
		p.reaches(t, "rossby_store_durability", is(level))
	}
}

func alertStoreDown(t *testing.T) {
	t.Helper()
	srv := natstest.Run(t)
	store := need(jetstream.Open(t.Context(), natstest.Conn(t, srv.URL()), jetstream.Config{Name: natstest.Name(t)}))(t)
	m, p := watch(t, monitor.Config{Store: store})
	p.reaches(t, "rossby_store_up", is(1))
	p.reaches(t, "rossby_connection_up", is(1))
	m2 := need(monitor.New(monitor.Config{Store: store, Timeout: 100 * time.Millisecond}))(t)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the process not to be ready", func() error {
		if code, r := ask(t, m2.Ready()); code != http.StatusServiceUnavailable || r.Reason == "" {
			return fmt.Errorf("%d: %+v", code, r)
		}
		return nil
	})
	if code, _ := ask(t, m.Live()); code != http.StatusOK {
		t.Error("a process whose server is away is not worth less")
	}
}

func alertReplica(t *testing.T) {
	t.Helper()
	cluster := natstest.RunCluster(t)
	store := need(jetstream.Open(t.Context(), cluster.Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3}))(t)
	cluster.Stop((cluster.StreamLeader(store.Name()) + 1) % 3)
	natstest.Eventually(t, "the replica to be missing", func() error {
		// One look serves for a while, so each of these is another process.
		_, p := watch(t, monitor.Config{Store: store})
		if v := p.value(t, "rossby_store_replicas_missing"); v != 1 {
			return fmt.Errorf("%v are missing", v)
		}
		return nil
	})
}

func alertStopped(t *testing.T) {
	t.Helper()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.store})
	view := need(projection.NewUpdater(s.store, projection.NewKeyed("broken",
		projection.On(orderEvents, func(_ *shown, _ placed, _ jetstream.Meta) { panic("it cannot") })),
		projection.UpdaterConfig{Logger: quiet, FoldRetries: -1}))(t)
	run(t, view.Run)
	m.Updater(view)
	p.reaches(t, "rossby_view_stopped", is(1))
	if code, _ := ask(t, m.Ready()); code != http.StatusServiceUnavailable {
		t.Error("a view that has stopped is ready")
	}
}
