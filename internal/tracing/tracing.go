// Package tracing puts OpenTelemetry spans around what Rossby does, and carries
// their context as W3C traceparent, the form in which it is stored and sent.
package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Name is the instrumentation scope of Rossby's spans.
const Name = "github.com/rossby-go/rossby"

// The attributes of spans. docs/signals.md lists them.
const (
	Store         = attribute.Key("rossby.store")
	AggregateType = attribute.Key("rossby.aggregate.type")
	AggregateID   = attribute.Key("rossby.aggregate.id")
	Version       = attribute.Key("rossby.aggregate.version")
	CommandName   = attribute.Key("rossby.command.name")
	CommandID     = attribute.Key("rossby.command.id")
	Outcome       = attribute.Key("rossby.outcome")
	Duplicate     = attribute.Key("rossby.duplicate")
	Position      = attribute.Key("rossby.position")
	Decisions     = attribute.Key("rossby.decisions")
	Events        = attribute.Key("rossby.events")
	EventName     = attribute.Key("rossby.event.name")
	EventID       = attribute.Key("rossby.event.id")
	Reactor       = attribute.Key("rossby.reactor")
	View          = attribute.Key("rossby.view")
	Gateway       = attribute.Key("rossby.gateway")
	Destination   = attribute.Key("rossby.destination")
	Attempt       = attribute.Key("rossby.attempt")
)

// System is the attribute of spans that talk to the store or a service.
func System() attribute.KeyValue { return attribute.String("messaging.system", "nats") }

// Tracer makes spans. A nil Tracer is tracing turned off: ask for that before the
// attributes of a span are made, so that it costs nothing.
type Tracer struct{ tracer trace.Tracer }

// New makes a tracer; without a provider it is nil.
func New(provider trace.TracerProvider) *Tracer {
	if provider == nil {
		return nil
	}
	return &Tracer{provider.Tracer(Name)}
}

// Start starts a span below the one that parent, a traceparent, names; without
// one, below that of ctx.
func (t *Tracer) Start(
	ctx context.Context, parent, name string, opts ...trace.SpanStartOption,
) (context.Context, trace.Span) {
	if sc := Parse(parent); sc.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, sc)
	}
	return t.tracer.Start(ctx, name, opts...) //nolint:spancheck // the caller ends it
}

// End ends a span with what came of it.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Link is a link to what a traceparent names; nothing for none.
func Link(parent string) []trace.Link {
	if sc := Parse(parent); sc.IsValid() {
		return []trace.Link{{SpanContext: sc}}
	}
	return nil
}

// Parent is the traceparent of the context's span, "" without one.
func Parent(ctx context.Context) string {
	return Text(trace.SpanContextFromContext(ctx)) //nolint:contextcheck // the propagator wants one, for the span only
}

// header is the name under which OpenTelemetry's propagator reads and writes.
const header = "traceparent"

// Text writes a span's context as a traceparent, "" for none. What else there is to
// a context, its tracestate, is not stored.
func Text(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier)
	return carrier[header]
}

// Parse reads a traceparent; what it cannot read is no context. A stored one may
// have been written by anybody.
func Parse(text string) trace.SpanContext {
	if text == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(
		propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{header: text}))
}
