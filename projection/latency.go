package projection

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/internal/latency"
	"github.com/rossby-go/rossby/internal/tracing"
)

// viewDurations are a view's histograms; without a provider they measure nothing.
type viewDurations struct{ fold, delay *latency.Histogram }

func newViewDurations(provider metric.MeterProvider, store, view string) (viewDurations, error) {
	var d viewDurations
	var errs [2]error
	base := []attribute.KeyValue{tracing.Store.String(store), tracing.View.String(view)}
	d.fold, errs[0] = latency.New(provider, latency.Config{
		Name: "rossby.view.fold.duration", Base: base,
		Description: "How long the events of a page took to fold; with a database its transaction, too.",
	})
	d.delay, errs[1] = latency.New(provider, latency.Config{
		Name: "rossby.view.delay", Base: base,
		Description: "From a commit until a reader of the view finds it; of each page's newest.",
	})
	return d, errors.Join(errs[:]...)
}

// landed notes what a page took whose newest commit is of that time.
func (d *viewDurations) landed(ctx context.Context, fold time.Duration, newest time.Time) {
	d.fold.Note(ctx, fold, "", "")
	if !newest.IsZero() {
		d.delay.Since(ctx, newest, "", "")
	}
}
