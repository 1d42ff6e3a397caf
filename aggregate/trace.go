package aggregate

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/jetstream"
)

// The outcomes of spans that are no refusal's code.
const (
	tracedEvents   = "events"
	tracedNone     = "none"
	tracedConflict = "conflict"
	tracedUnknown  = "unknown"
	tracedFailed   = "failed"
)

// traceCommand starts the span of a command. What the command leads to belongs to
// it: that is what is stored with the events.
func (r *core) traceCommand(ctx context.Context, id string, req request) (context.Context, trace.Span) {
	ctx, span := r.tracer.Start(ctx, req.call.traceParent, "execute "+r.typeName+" "+req.name,
		trace.WithAttributes(req.call.attributes(r.store.Name(), r.typeName, id, req.name)...))
	req.call.belongsTo(span)
	return ctx, span
}

// belongsTo makes the span what the command's events belong to.
func (c *call) belongsTo(span trace.Span) {
	c.traceParent = cmp.Or(tracing.Text(span.SpanContext()), c.traceParent)
}

func (c *call) attributes(store, typ, id, name string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		tracing.Store.String(store), tracing.AggregateType.String(typ), tracing.AggregateID.String(id),
		tracing.CommandName.String(name),
	}
	if c.commandID != "" {
		attrs = append(attrs, tracing.CommandID.String(c.commandID))
	}
	return attrs
}

// endCommand ends a command's span. A refusal is an outcome, not an error.
func endCommand(span trace.Span, store eventStore, res Result, err error) {
	outcome, fault := tracedOutcome(res, err)
	span.SetAttributes(tracing.Outcome.String(outcome))
	if fault == nil {
		version := int64(res.Version) //nolint:gosec // a count
		span.SetAttributes(tracing.Version.Int64(version), tracing.Events.Int(len(res.Events)))
		if seq, e := store.Sequence(res.Position); e == nil && seq > 0 {
			span.SetAttributes(tracing.Position.Int64(int64(seq))) //nolint:gosec // a sequence
		}
	}
	if res.Duplicate {
		span.SetAttributes(tracing.Duplicate.Bool(true))
	}
	tracing.End(span, fault)
}

// tracedOutcome says what came of a command, and whether that is a fault.
func tracedOutcome(res Result, err error) (outcome string, fault error) {
	switch {
	case err == nil && len(res.Events) > 0:
		return tracedEvents, nil
	case err == nil:
		return tracedNone, nil
	case isRefusal(err):
		code, _ := refusalCode(err)
		return code, nil
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return tracedUnknown, err
	default:
		return tracedFailed, err
	}
}

// traceCommit starts the span of an append: a child of the first command's, with
// links to those of the others that are stored with it.
func (r *core) traceCommit(ctx context.Context, w *jetstream.Write, events int) (context.Context, trace.Span) {
	var links []trace.Link
	for i := range w.Decisions {
		links = slices.Concat(links, tracing.Link(w.Decisions[i].TraceParent))
	}
	return r.tracer.Start(ctx, w.TraceParent, "commit "+w.Type,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...),
		trace.WithAttributes(tracing.System(), attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", r.store.Name()),
			tracing.Store.String(r.store.Name()), tracing.AggregateType.String(w.Type), tracing.AggregateID.String(w.ID),
			tracing.Decisions.Int(len(w.Decisions)), tracing.Events.Int(events)))
}

func endCommit(span trace.Span, head jetstream.Head, err error) {
	if _, conflict := errors.AsType[*jetstream.ConflictError](err); conflict {
		span.SetAttributes(tracing.Outcome.String(tracedConflict)) // and it is decided again
		err = nil
	} else if err == nil {
		span.SetAttributes(tracing.Position.Int64(int64(head.Sequence))) //nolint:gosec // a sequence
	}
	tracing.End(span, err)
}

// traceSend starts the span of a command that is sent to a service.
func (c *Client) traceSend(ctx context.Context, id, name string, call *call) (context.Context, trace.Span) {
	ctx, span := c.tracer.Start(ctx, call.traceParent, "send "+c.name+" "+name, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(append(call.attributes(c.store, c.name, id, name), tracing.System())...))
	call.belongsTo(span)
	return ctx, span
}

func endSend(span trace.Span, res Result, err error) {
	outcome, fault := tracedOutcome(res, err)
	span.SetAttributes(tracing.Outcome.String(outcome))
	tracing.End(span, fault)
}

// traceHandle starts the span of a request that a service took, from when it came.
func (r *core) traceHandle(
	ctx context.Context, id, name string, since time.Time, c *call,
) (context.Context, trace.Span) {
	ctx, span := r.tracer.Start(ctx, c.traceParent, "handle "+r.typeName+" "+name,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(since),
		trace.WithAttributes(append(c.attributes(r.store.Name(), r.typeName, id, name), tracing.System())...))
	c.belongsTo(span)
	return ctx, span
}

// endHandle ends the span of a request that was answered with an error.
func endHandle(span trace.Span, b protocol.ErrorBody, err error) {
	span.SetAttributes(tracing.Outcome.String(cmp.Or(b.Code, string(b.Kind))))
	switch b.Kind {
	case protocol.KindRejected, protocol.KindNotFound, protocol.KindExists, protocol.KindConflict:
		err = nil
	default:
	}
	tracing.End(span, err)
}

// traced handles an event in a span of its own, in the trace that led to the event,
// however long ago that was.
func (d *reactorDef) traced(ctx context.Context, e dispatch.Event, handle func(context.Context) error) (err error) {
	ctx, span := d.tracer.Start(ctx, e.TraceParent, "react "+d.name+" "+e.Name,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(tracing.System(), tracing.Reactor.String(d.name), tracing.AggregateType.String(e.Type),
			tracing.AggregateID.String(e.ID), tracing.EventName.String(e.Name), tracing.EventID.String(e.EventID),
			tracing.Position.Int64(int64(e.Sequence)), tracing.Attempt.Int(e.Attempt))) //nolint:gosec // a sequence
	err = errHandlerPanicked // unless it returns
	defer func() { tracing.End(span, err) }()
	err = handle(ctx)
	return err
}

var errHandlerPanicked = errors.New("the handler panicked")
