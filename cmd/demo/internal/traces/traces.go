// Package traces shows what one request led to in every process of the bank: each
// process sends the spans that it makes over NATS, and the one with the page keeps
// the newest. Where all is in one process, they need not go that way.
package traces

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// Subject is where spans are sent.
const Subject = "bank.spans"

// Span is a span as the page needs it.
type Span struct {
	TraceID    string            `json:"traceId"`
	SpanID     string            `json:"spanId"`
	ParentID   string            `json:"parentId,omitempty"`
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`
	Process    string            `json:"process"`
	Start      time.Time         `json:"start"`
	End        time.Time         `json:"end"`
	Error      string            `json:"error,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Exporter sends spans to whoever listens.
type Exporter struct {
	send    func(body []byte) error
	process string
}

// NewExporter makes an exporter for a process of this name.
func NewExporter(nc *nats.Conn, process string) *Exporter {
	return &Exporter{send: func(body []byte) error { return nc.Publish(Subject, body) }, process: process}
}

// NewRecorderExporter makes an exporter to a recorder in the same process, for a part
// of it of this name.
func NewRecorderExporter(r *Recorder, part string) *Exporter {
	return &Exporter{process: part, send: func(body []byte) error {
		r.Add(body)
		return nil
	}}
}

// ExportSpans sends spans. Those that cannot be sent are lost.
func (e *Exporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		body, err := json.Marshal(e.span(s))
		if err != nil {
			return fmt.Errorf("span %q: %w", s.Name(), err)
		}
		if e.send(body) != nil {
			return nil //nolint:nilerr // NATS is away, which others tell of
		}
	}
	return nil
}

func (e *Exporter) span(s sdktrace.ReadOnlySpan) Span {
	out := Span{
		TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), Name: s.Name(),
		Kind: s.SpanKind().String(), Process: e.process, Start: s.StartTime(), End: s.EndTime(),
		Attributes: map[string]string{},
	}
	if s.Parent().SpanID().IsValid() {
		out.ParentID = s.Parent().SpanID().String()
	}
	if s.Status().Code == codes.Error {
		out.Error = s.Status().Description
	}
	for _, a := range s.Attributes() {
		out.Attributes[string(a.Key)] = a.Value.String()
	}
	return out
}

// Shutdown does nothing: the connection is another's.
func (*Exporter) Shutdown(context.Context) error { return nil }

// How many traces begin by themselves, in a second: under load a few are enough.
const (
	sampledRate  = 2
	sampledBurst = 10
)

// NewSampler follows traces that were begun by a caller who wants them followed, and
// a few of the others.
//
//nolint:ireturn // the SDK's samplers are interfaces
func NewSampler() sdktrace.Sampler {
	return sdktrace.ParentBased(&sampler{rate.NewLimiter(sampledRate, sampledBurst)})
}

type sampler struct{ limit *rate.Limiter }

func (s *sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	r := sdktrace.SamplingResult{
		Decision: sdktrace.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
	}
	if s.limit.Allow() {
		r.Decision = sdktrace.RecordAndSample
	}
	return r
}

func (s *sampler) Description() string { return "a few" }
