package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/cmd/demo/internal/traces"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/monitor"
)

// tracePath is the page with the waterfall.
const tracePath = "/traces/"

// signals are what the process tells of itself.
type signals struct {
	conn     *nats.Conn
	spans    *sdktrace.TracerProvider
	meters   *sdkmetric.MeterProvider
	monitor  *monitor.Monitor
	registry *prometheus.Registry
	recorder *traces.Recorder
	// local tells that the recorder has all spans without NATS.
	local bool
}

func newSignals(store *jetstream.Store, cfg Config) (*signals, error) {
	s := &signals{conn: cfg.Conn, registry: prometheus.NewRegistry(), recorder: cfg.Recorder, local: cfg.Recorder != nil}
	if !s.local {
		s.recorder = traces.NewRecorder()
	}
	exporter, err := otelprom.New(otelprom.WithRegisterer(s.registry))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	if store == nil {
		return s, nil // it reads views only
	}
	if s.monitor, err = monitor.New(monitor.Config{
		Store: store, MeterProvider: s.meters, DurabilitySources: cfg.DurabilitySources, Logger: cfg.Logger,
	}); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(cfg.Modules))
	for _, m := range cfg.Modules {
		names = append(names, string(m))
	}
	process := strings.Join(names, ",")
	if len(cfg.Modules) == len(Modules()) {
		process = "monolith"
	}
	spans := traces.NewExporter(cfg.Conn, process)
	if s.local {
		spans = traces.NewRecorderExporter(s.recorder, process)
	}
	s.spans = sdktrace.NewTracerProvider(sdktrace.WithSampler(traces.NewSampler()),
		sdktrace.WithBatcher(spans, sdktrace.WithBatchTimeout(spansEvery)))
	return s, nil
}

const (
	// spansEvery is how long the page waits for spans at most.
	spansEvery = 200 * time.Millisecond
	// signalsWait is how long a process that ends waits for its last spans to be sent.
	signalsWait = 2 * time.Second
)

// tracer is what the modules make spans with, nil for none.
//
//nolint:ireturn // the modules take any
func (s *signals) tracer() trace.TracerProvider {
	if s.spans == nil {
		return nil
	}
	return s.spans
}

// close sends what is left and ends everything.
func (s *signals) close(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), signalsWait)
	defer cancel()
	errs := []error{s.meters.Shutdown(ctx)}
	if s.spans != nil {
		errs = append(errs, s.spans.Shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		log.Debug("the last signals were not sent", "error", err)
	}
}

// record keeps the spans of all processes until stop is called.
func (s *signals) record(ctx context.Context, log *slog.Logger) (stop func()) {
	if s.spans == nil || s.local {
		return func() {}
	}
	sub, err := s.conn.Subscribe(traces.Subject, func(m *nats.Msg) { s.recorder.Add(m.Data) })
	if err != nil {
		log.WarnContext(ctx, "traces are not shown", "error", err)
		return func() {}
	}
	return func() { _ = sub.Unsubscribe() }
}

// probes adds what machines ask of the process.
func (s *signals) probes(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", s.monitor.Live())
	mux.Handle("GET /readyz", s.monitor.Ready())
}

// routes adds all that the process tells over HTTP.
func (s *signals) routes(mux *http.ServeMux) {
	s.probes(mux)
	mux.Handle("GET "+tracePath, http.StripPrefix("/traces", traces.Page()))
	mux.Handle("GET /api/traces", s.recorder)
	mux.Handle("GET /api/traces/{id}", s.recorder)
}

// watched watches what runs while it does.
func watched(run runner, watch func() (remove func())) runner {
	return func(ctx context.Context) error {
		defer watch()()
		return run(ctx)
	}
}
