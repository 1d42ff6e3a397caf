package promql_test

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/rossby-go/rossby/test/signals/shop"
)

// step is how often the metrics are scraped and the rules evaluated.
const step = 15 * time.Second

// server is a Prometheus whose clock is the test's: it scrapes what /metrics says,
// and evaluates rules.
type server struct {
	metrics  http.Handler
	provider *sdkmetric.MeterProvider
	engine   *promql.Engine
	now      time.Time
	series   map[string]*series
	rules    []*rule
	// lapse and ages are how much faster the test's clock goes than the program's:
	// durations in the histograms, and ages in the gauges, are as many times longer.
	// Nobody waits a minute. How fast this machine is, is not what is looked at: without
	// more, durations are a hundredth.
	lapse, ages float64
}

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// rule is an alert of docs/signals/alerts.yml.
type rule struct {
	name, expr string
	hold       time.Duration
	// since is when the expression began to have each result, first when it fired
	// first, by the server's clock.
	since map[string]time.Time
	first time.Time
}

func newServer(t *testing.T) *server {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter := shop.Need(otelprom.New(otelprom.WithRegisterer(registry)))(t)
	s := &server{
		metrics:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples: 1 << 20, Timeout: time.Hour, Parser: parser.NewParser(parser.Options{}),
		}),
		now: time.Unix(1_800_000_000, 0), series: map[string]*series{}, rules: alerts(t), lapse: .01, ages: 1,
	}
	t.Cleanup(func() {
		if err := s.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// alerts reads the rules as Prometheus does, which checks their templates, too.
func alerts(t *testing.T) []*rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../../docs/signals/alerts.yml", false, model.UTF8Validation,
		parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Fatal(err)
	}
	var out []*rule
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			out = append(out, &rule{name: r.Alert, expr: r.Expr, hold: time.Duration(r.For), since: map[string]time.Time{}})
		}
	}
	return out
}

// scrape reads /metrics. A series that is gone is marked as stale.
func (s *server) scrape(t *testing.T) {
	t.Helper()
	w := httptest.NewRecorder()
	s.metrics.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	p := expfmt.NewTextParser(model.UTF8Validation)
	families := shop.Need(p.TextToMetricFamilies(w.Body))(t)
	at := s.now.UnixMilli()
	for _, f := range families {
		for _, v := range shop.Need(expfmt.ExtractSamples(&expfmt.DecodeOptions{}, f))(t) {
			s.append(t, at, v)
		}
	}
	for _, have := range s.series {
		if last := have.samples[len(have.samples)-1]; last.T() < at && !value.IsStaleNaN(last.F()) {
			have.samples = append(have.samples, sample{at, math.Float64frombits(value.StaleNaN)})
		}
	}
}

func (s *server) append(t *testing.T, at int64, v *model.Sample) {
	t.Helper()
	b := labels.NewBuilder(labels.EmptyLabels())
	name := string(v.Metric[model.MetricNameLabel])
	for k, l := range v.Metric {
		b.Set(string(k), string(l))
	}
	f := float64(v.Value)
	switch le := string(v.Metric["le"]); {
	case strings.HasSuffix(name, "_seconds_bucket") && le != "+Inf":
		b.Set("le", strconv.FormatFloat(shop.Need(strconv.ParseFloat(le, 64))(t)*s.lapse, 'g', -1, 64))
	case strings.HasSuffix(name, "_seconds_sum"):
		f *= s.lapse
	case strings.HasSuffix(name, "_seconds"):
		f *= s.ages
	}
	l := b.Labels()
	have := s.series[l.String()]
	if have == nil {
		have = &series{labels: l}
		s.series[l.String()] = have
	}
	have.samples = append(have.samples, sample{at, f})
}

// pass lets time pass: again and again something happens, the metrics are scraped
// and the rules evaluated.
func (s *server) pass(t *testing.T, d time.Duration, happens func()) {
	t.Helper()
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(step) {
		if happens != nil {
			happens()
		}
		s.scrape(t)
		for _, r := range s.rules {
			s.evaluate(t, r)
		}
	}
}

// evaluate is what Prometheus does with a rule: what its expression has resulted in
// all the time that the rule says is an alert.
func (s *server) evaluate(t *testing.T, r *rule) {
	t.Helper()
	results := map[string]bool{}
	for _, v := range s.query(t, r.expr) {
		of := v.Metric.DropReserved(func(name string) bool { return name == model.MetricNameLabel }).String()
		results[of] = true
		if _, ok := r.since[of]; !ok {
			r.since[of] = s.now
		}
		if s.now.Sub(r.since[of]) >= r.hold && r.first.IsZero() {
			r.first = s.now
		}
	}
	for of := range r.since {
		if !results[of] {
			delete(r.since, of)
		}
	}
}

// query evaluates an expression at this moment.
func (s *server) query(t *testing.T, expr string) promql.Vector {
	t.Helper()
	q := shop.Need(s.engine.NewInstantQuery(t.Context(), queryable{s}, nil, expr, s.now))(t)
	defer q.Close()
	res := q.Exec(t.Context())
	if res.Err != nil || len(res.Warnings) > 0 {
		t.Fatalf("%s: %v %v", expr, res.Err, res.Warnings)
	}
	return slices.Clone(shop.Need(res.Vector())(t))
}

// fired are the names of the alerts that have fired.
func (s *server) fired() []string {
	var names []string
	for _, r := range s.rules {
		if !r.first.IsZero() {
			names = append(names, r.name)
		}
	}
	return names
}

// queryable is what the server has scraped, as the engine reads it.
type queryable struct{ server *server }

//nolint:ireturn // the engine wants it
func (q queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return querier{q.server, mint, maxt}, nil
}

type querier struct {
	server     *server
	mint, maxt int64
}

//nolint:ireturn // the engine wants it
func (q querier) Select(
	_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	var found []storage.Series
	for _, s := range q.server.series {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			in := slices.DeleteFunc(slices.Clone(s.samples), func(v chunks.Sample) bool { return v.T() < q.mint || v.T() > q.maxt })
			found = append(found, storage.NewListSeries(s.labels, in))
		}
	}
	slices.SortFunc(found, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &set{series: found}
}

func (querier) LabelValues(
	context.Context, string, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) LabelNames(
	context.Context, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) Close() error { return nil }

type set struct {
	series []storage.Series
	next   int
}

func (s *set) Next() bool { s.next++; return s.next <= len(s.series) }

//nolint:ireturn // the engine wants it
func (s *set) At() storage.Series { return s.series[s.next-1] }

func (*set) Err() error                        { return nil }
func (*set) Warnings() annotations.Annotations { return nil }

// sample is a value at a time.
type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                    { return s.t }
func (sample) ST() int64                     { return 0 }
func (s sample) F() float64                  { return s.f }
func (sample) H() *histogram.Histogram       { return nil }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }

//nolint:ireturn // the engine wants it
func (s sample) Copy() chunks.Sample { return s }
