package signals_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/signals/shop"
)

// recorder keeps spans for tests.
func recorder() (*tracetest.SpanRecorder, *sdktrace.TracerProvider) {
	r := tracetest.NewSpanRecorder()
	return r, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r))
}

// lines are the trace's spans, each below what it belongs to.
func lines(spans []sdktrace.ReadOnlySpan, of trace.TraceID) []string {
	var out []string
	var walk func(parent trace.SpanID, depth int)
	walk = func(parent trace.SpanID, depth int) {
		var at []string
		below := map[string][]trace.SpanID{}
		for _, s := range spans {
			if s.SpanContext().TraceID() == of && s.Parent().SpanID() == parent {
				line := strings.Repeat("  ", depth) + s.SpanKind().String() + " " + s.Name()
				at = append(at, line)
				below[line] = append(below[line], s.SpanContext().SpanID())
			}
		}
		slices.Sort(at)
		for _, line := range slices.Compact(at) {
			for _, id := range below[line] {
				out = append(out, line)
				walk(id, depth+1)
			}
		}
	}
	walk(trace.SpanID{}, 0)
	return out
}

// One trace leads from the request to everything that came of it, in every kind of
// module. The names of the spans are those that docs/signals.md gives.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	spans, provider := recorder()
	s := shop.Start(t, natstest.Name(t), provider, nil)
	ctx, root := provider.Tracer("test").Start(t.Context(), "request")
	res, err := s.Orders.Create(ctx, "o1", shop.Place{Item: "book"})
	root.End()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reader.Get(t.Context(), "o1", projection.AtLeast(res.Position)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"internal request",
		"  client send order place",
		"    server handle order place",
		"      internal execute order place",
		"        consumer deliver shipping placed",
		"          server handle order send",
		"            internal execute order send",
		"              producer commit order",
		"        consumer project orders",
		"        consumer react take-stock placed",
		"          internal execute stock take",
		"            producer commit stock",
		"        producer commit order",
	}
	natstest.Eventually(t, "the whole trace", func() error {
		if got := lines(spans.Ended(), root.SpanContext().TraceID()); !slices.Equal(got, want) {
			return fmt.Errorf("the trace is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
	if got := <-s.Delivered; got != root.SpanContext().TraceID().String() {
		t.Errorf("the handler's context is of trace %s", got)
	}
	for _, span := range spans.Ended() {
		if span.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("%s is of another trace", span.Name())
		}
		if span.Status().Code == codes.Error {
			t.Errorf("%s: %s", span.Name(), span.Status().Description)
		}
	}
}

// A refusal is an outcome that spans name, not an error.
func TestTraceOfARefusal(t *testing.T) {
	t.Parallel()
	spans, provider := recorder()
	s := shop.Start(t, natstest.Name(t), provider, nil)
	if _, err := s.Orders.Create(t.Context(), "o1", shop.Place{}); !errors.Is(err, aggregate.ErrRejected) {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the spans", func() error {
		ended := spans.Ended()
		if len(ended) < 3 {
			return fmt.Errorf("%d spans", len(ended))
		}
		return nil
	})
	for _, span := range spans.Ended() {
		if got := attributeOf(span, "rossby.outcome"); got != "no-item" || span.Status().Code == codes.Error {
			t.Errorf("%s has outcome %q, status %v", span.Name(), got, span.Status())
		}
	}
}

func attributeOf(span sdktrace.ReadOnlySpan, key string) string {
	for _, a := range span.Attributes() {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// stuckExporter comes back when it is let, and then fails.
type stuckExporter struct{ called, let chan struct{} }

func (e stuckExporter) ExportSpans(_ context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case e.called <- struct{}{}:
	default:
	}
	<-e.let // whether the context ends or not
	return errors.New("the backend is gone")
}

func (stuckExporter) Shutdown(context.Context) error { return nil }

// A backend that takes nothing disturbs no command: spans are dropped.
func TestExporterIsStuck(t *testing.T) {
	t.Parallel()
	exporter := stuckExporter{make(chan struct{}, 1), make(chan struct{})}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter,
		sdktrace.WithMaxQueueSize(4), sdktrace.WithMaxExportBatchSize(2)))
	t.Cleanup(func() {
		close(exporter.let)
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Log(err)
		}
	})
	s := shop.Start(t, natstest.Name(t), provider, nil)
	for i := range 20 {
		id := fmt.Sprintf("o%d", i)
		res, err := s.Orders.Create(t.Context(), id, shop.Place{Item: "book"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Reader.Get(t.Context(), id, projection.AtLeast(res.Position)); err != nil {
			t.Fatal(err)
		}
		<-s.Delivered
	}
	<-exporter.called
}
