// Package latency measures how long things take, as OpenTelemetry histograms.
package latency

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/internal/tracing"
)

// Buckets are the bounds of every histogram, in seconds: OpenTelemetry's own advice
// for requests begins at 5 ms, which is above most of what happens here.
func Buckets() []float64 {
	return []float64{
		.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60,
	}
}

// series is how many combinations of label and outcome a histogram keeps the
// attributes of; those of more are made each time.
const series = 1024

// Config says what a histogram is of.
type Config struct {
	Name, Description string
	// Base are attributes of every value.
	Base []attribute.KeyValue
	// Label is the attribute that a value may have besides its outcome, "" for none.
	Label attribute.Key
}

// Histogram is a histogram of durations. A nil one measures nothing.
type Histogram struct {
	cfg        Config
	instrument metric.Float64Histogram

	mu      sync.RWMutex
	options map[key][]metric.RecordOption
}

type key struct{ label, outcome string }

// New makes a histogram; without a provider it is nil. Returns the provider's error.
func New(provider metric.MeterProvider, cfg Config) (*Histogram, error) {
	if provider == nil {
		return nil, nil //nolint:nilnil // measuring is turned off
	}
	instrument, err := provider.Meter(tracing.Name).Float64Histogram(cfg.Name, metric.WithUnit("s"),
		metric.WithDescription(cfg.Description), metric.WithExplicitBucketBoundaries(Buckets()...))
	if err != nil {
		return nil, err
	}
	return &Histogram{cfg: cfg, instrument: instrument, options: map[key][]metric.RecordOption{}}, nil
}

// Now is when something begins: without a histogram it is not asked.
func (h *Histogram) Now() (began time.Time) {
	if h != nil {
		began = time.Now()
	}
	return began
}

// Since notes what has taken since it began. The span of ctx becomes the example of
// such a value. An outcome of "" is none.
func (h *Histogram) Since(ctx context.Context, began time.Time, label, outcome string) {
	if h != nil {
		h.Note(ctx, time.Since(began), label, outcome)
	}
}

// Note notes what took d. A clock that went back makes it none at all.
func (h *Histogram) Note(ctx context.Context, d time.Duration, label, outcome string) {
	if h != nil {
		h.instrument.Record(ctx, max(d, 0).Seconds(), h.attributes(key{label, outcome})...)
	}
}

func (h *Histogram) attributes(k key) []metric.RecordOption {
	h.mu.RLock()
	options, ok := h.options[k]
	h.mu.RUnlock()
	if ok {
		return options
	}
	attrs := append(make([]attribute.KeyValue, 0, len(h.cfg.Base)+2), h.cfg.Base...)
	if h.cfg.Label != "" {
		attrs = append(attrs, h.cfg.Label.String(k.label))
	}
	if k.outcome != "" {
		attrs = append(attrs, tracing.Outcome.String(k.outcome))
	}
	options = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.options) < series {
		h.options[k] = options
	}
	return options
}
