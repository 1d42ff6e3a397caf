package gateway

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/tracing"
)

// traceAttempt starts the span of one attempt, in the trace that led to the event,
// however long ago that was. What its destination held back was not attempted and
// has none.
func (def *definition) traceAttempt(
	ctx context.Context, destination string, e dispatch.Event, d Delivery,
) (context.Context, trace.Span) {
	ctx, span := def.tracer.Start(ctx, e.TraceParent, "deliver "+def.name+" "+e.Name,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(tracing.System(), tracing.Store.String(d.Store), tracing.Gateway.String(def.name),
			tracing.Destination.String(destination), tracing.AggregateType.String(e.Type), tracing.AggregateID.String(e.ID),
			tracing.EventName.String(e.Name), tracing.EventID.String(e.EventID),
			tracing.Position.Int64(int64(e.Sequence)), tracing.Attempt.Int(e.Attempt))) //nolint:gosec // a sequence
	*d.trace = tracing.Text(span.SpanContext())
	return ctx, span
}
