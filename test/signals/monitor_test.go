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
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/jetstream/monitor"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/signals/shop"
)

// prom is what Prometheus would scrape.
type prom struct{ *prometheus.Registry }

// watch makes a monitor whose metrics Prometheus would scrape.
func watch(t *testing.T, cfg monitor.Config) (*monitor.Monitor, prom) {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter := shop.Need(otelprom.New(otelprom.WithRegisterer(registry)))(t)
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	cfg.Logger, cfg.Timeout = shop.Quiet, natstest.Patience
	m := shop.Need(monitor.New(cfg))(t)
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

func is(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

// everything is a store with each kind of module, watched.
func everything(t *testing.T, provider metric.MeterProvider) *shop.Shop {
	t.Helper()
	s := shop.Start(t, natstest.Name(t), nil, provider)
	m := shop.Need(monitor.New(monitor.Config{
		Store: s.Store, MeterProvider: provider, Logger: shop.Quiet, Timeout: natstest.Patience,
	}))(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	m.Repository(s.Repo)
	m.Service(s.Service)
	m.Reactor(s.Reactor)
	m.Updater(s.Updater)
	m.Gateway(s.Gate)
	if _, err := s.Orders.Create(t.Context(), "o1", shop.Place{Item: "book"}); err != nil {
		t.Fatal(err)
	}
	return s
}

var documented = regexp.MustCompile("(?m)^\\| `(rossby\\.[a-z._]+)` \\| (counter|gauge|histogram) \\| ([^ ]*) \\| ")

// docs/signals.md lists every metric that is really exported, with its kind and its
// unit, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text := shop.Need(os.ReadFile("../../docs/signals.md"))(t)
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
	exporter := shop.Need(otelprom.New(otelprom.WithRegisterer(registry)))(t)
	everything(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	for _, file := range []string{"../../docs/signals/grafana.json", "../../docs/signals/alerts.yml"} {
		text := shop.Need(os.ReadFile(file))(t)
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
	if !json.Valid(shop.Need(os.ReadFile("../../docs/signals/grafana.json"))(t)) {
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
	m, _ := watch(t, monitor.Config{Store: s.Store, StallAfter: time.Nanosecond})
	m.Service(s.Service)
	m.Reactor(s.Reactor)
	m.Updater(s.Updater)
	m.Gateway(s.Gate)
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
	nc := natstest.Conn(t, s.Store.Conn().ConnectedUrl())
	other := shop.Need(monitor.New(monitor.Config{Store: shop.Need(jetstream.Attach(t.Context(), nc, s.Store.Name()))(t)}))(t)
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
	m, p := watch(t, monitor.Config{Store: s.Store, StallAfter: 50 * time.Millisecond})
	stuck := make(chan struct{})
	view := shop.Need(projection.NewUpdater(s.Store, projection.NewKeyed("stuck",
		projection.On(shop.OrderEvents, func(_ *shop.Shown, _ shop.Placed, _ jetstream.Meta) { <-stuck })),
		projection.UpdaterConfig{Logger: shop.Quiet, FoldTimeout: -1}))(t)
	reactor := shop.Need(aggregate.NewReactor(s.Store, "stuck",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: shop.Quiet},
		aggregate.On(shop.OrderEvents, func(context.Context, shop.Placed, jetstream.Meta, *aggregate.Do) error {
			<-stuck
			return nil
		})))(t)
	shop.Run(t, view.Run, reactor.Run)
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
	natstest.Eventually(t, "the reactor is told", func() error {
		return followers.New(s.Store).Pause(t.Context(), "stuck", "ann", "to see")
	})
	if _, err := s.Orders.Create(t.Context(), "o2", shop.Place{Item: "pen"}); err != nil {
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

// still is a view's updater that has stopped reading.
type still struct{ status projection.Status }

func (s still) Status() projection.Status { return s.status }

// The lag of a view that stands still grows with what comes, of which the view itself
// learns nothing. One that may get on yet knows its lag, however far the store is.
func TestLagOfAViewThatStandsStill(t *testing.T) {
	t.Parallel()
	s := everything(t, nil)
	const at = 2
	lag := func(stallAfter time.Duration) prom {
		m, p := watch(t, monitor.Config{Store: s.Store, StallAfter: stallAfter})
		m.Updater(still{projection.Status{
			View: "still", State: projection.StateRunning, Position: s.Store.Position(at), Lag: 1,
		}})
		return p
	}
	dead, alive := lag(time.Nanosecond), lag(time.Hour)
	// grows waits until the store has more than before, and the view lacks all of it.
	grows := func(before uint64) (end uint64) {
		natstest.Eventually(t, "the lag", func() (err error) {
			end, err = s.Store.LastSequence(t.Context())
			if got := dead.value(t, "rossby_view_lag"); err == nil && (end <= before || got != float64(end-at)) {
				err = fmt.Errorf("%v at %d", got, end)
			}
			return err
		})
		return end
	}
	end := grows(at + 1)
	if _, err := s.Orders.Create(t.Context(), "o2", shop.Place{Item: "pen"}); err != nil {
		t.Fatal(err)
	}
	grows(end)
	alive.reaches(t, "rossby_view_lag", is(1))
}

// A module that does not run is not ready, unless nobody watches it any more.
func TestModuleThatDoesNotRun(t *testing.T) {
	t.Parallel()
	s := everything(t, nil)
	m, p := watch(t, monitor.Config{Store: s.Store})
	remove := m.Updater(shop.Need(projection.NewUpdater(s.Store, projection.NewKeyed("idle",
		projection.On(shop.OrderEvents, func(_ *shop.Shown, _ shop.Placed, _ jetstream.Meta) {})), projection.UpdaterConfig{}))(t))
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
