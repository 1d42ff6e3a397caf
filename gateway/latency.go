package gateway

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/internal/latency"
	"github.com/rossby-go/rossby/internal/tracing"
)

// newDeliveryDuration makes the histogram of attempts. What a destination's limits
// hold back was not attempted.
func newDeliveryDuration(provider metric.MeterProvider, store, name string) (*latency.Histogram, error) {
	return latency.New(provider, latency.Config{
		Name: "rossby.gateway.delivery.duration", Description: "How long an attempt at a delivery took.",
		Base: []attribute.KeyValue{tracing.Store.String(store), tracing.Gateway.String(name)}, Label: tracing.Destination,
	})
}

func measuredOutcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "done"
}
