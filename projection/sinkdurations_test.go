package projection_test

import (
	"errors"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestSinkDurations: every transaction of the database is counted, with how late its
// newest commit is, under the store's and the view's name. Those that fail are not.
func TestSinkDurations(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	fails := 0
	m.fault = func(committed bool) error {
		if fails++; committed || fails > 2 {
			return nil
		}
		return fmt.Errorf("beside: %w", errMemory)
	}
	from := sdkmetric.NewManualReader()
	cfg := lastingSink()
	cfg.PageEvents = 1 // so the number of transactions is known
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(from))
	const events = 3
	for i := range events {
		f.append(id(i), credited{Cents: 1})
		want.apply(id(i), credited{Cents: 1})
	}
	startSink(t, f.store, sinkAccounts(), m, cfg)
	f.checkSink(m, want)
	natstest.Eventually(t, "the histograms", func() error {
		var data metricdata.ResourceMetrics
		if err := from.Collect(t.Context(), &data); err != nil {
			return err
		}
		counts := map[string]uint64{}
		for _, scope := range data.ScopeMetrics {
			for _, metric := range scope.Metrics {
				h, ok := metric.Data.(metricdata.Histogram[float64])
				if !ok || len(h.DataPoints) != 1 {
					return fmt.Errorf("%s: %+v", metric.Name, metric.Data)
				}
				p := h.DataPoints[0]
				if p.Sum <= 0 || p.Attributes != attribute.NewSet(
					attribute.String("rossby.store", f.store.Name()), attribute.String("rossby.view", "accounts")) {
					return fmt.Errorf("%s: %v s, %v", metric.Name, p.Sum, p.Attributes)
				}
				counts[metric.Name] = p.Count
			}
		}
		if counts["rossby.view.fold.duration"] != events || counts["rossby.view.delay"] != events || len(counts) != 2 {
			return errors.New(fmt.Sprint(counts))
		}
		return nil
	})
}
