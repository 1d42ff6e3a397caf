package projection

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/tracing"
)

// Bounds of what a view traces: one that catches up is no part of what happens now.
const (
	// traceAge is how old a decision may be.
	traceAge = time.Hour
	// traceMost is how many decisions of one page have spans.
	traceMost = 256
)

// viewTracer makes the spans of decisions that come into a view: from when their
// events are folded until whoever reads the view finds them there. Nil makes none.
type viewTracer struct {
	tracer      *tracing.Tracer
	store, view string
}

func newViewTracer(provider trace.TracerProvider, store, view string) *viewTracer {
	t := tracing.New(provider)
	if t == nil {
		return nil
	}
	return &viewTracer{t, store, view}
}

// traced is a decision on its way into a view.
type traced struct {
	parent, typ, id string
	sequence        uint64
	began           time.Time
	events          int
}

// now is when a fold begins.
func (t *viewTracer) now() (began time.Time) {
	if t != nil {
		began = time.Now()
	}
	return began
}

// note adds the decisions of what was folded that belong to a trace.
func (t *viewTracer) note(to []traced, items []item, began time.Time) []traced {
	if t == nil {
		return to
	}
	for i := range items {
		c := items[i].commit
		if items[i].err != nil || began.Sub(c.Time) > traceAge {
			continue
		}
		for j := range c.Decisions {
			d := &c.Decisions[j]
			parent := d.TraceParent
			if j == 0 && parent == "" {
				parent = c.TraceParent
			}
			if parent == "" || len(d.Events) == 0 || len(to) >= traceMost {
				continue
			}
			to = append(to, traced{
				parent: parent, typ: c.Type, id: c.ID, sequence: c.Sequence, began: began, events: len(d.Events),
			})
		}
	}
	return to
}

// landed makes the spans once a reader finds the events in the view.
func (t *viewTracer) landed(decisions []traced) {
	for i := range decisions {
		d := &decisions[i]
		_, span := t.tracer.Start(context.Background(), d.parent, "project "+t.view,
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(d.began),
			trace.WithAttributes(tracing.System(), tracing.Store.String(t.store), tracing.View.String(t.view),
				tracing.AggregateType.String(d.typ), tracing.AggregateID.String(d.id),
				tracing.Position.Int64(int64(d.sequence)), tracing.Events.Int(d.events))) //nolint:gosec // a sequence
		span.End()
	}
}
