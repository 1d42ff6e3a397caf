package aggregate

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/internal/latency"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/jetstream"
)

// The outcomes of measured durations that those of spans have no name for: the codes
// of refusals are the program's, and a metric wants few.
const (
	measuredRefused = "refused"
	measuredStored  = "stored"
	measuredDone    = "done"
	measuredBusy    = "busy"
)

// durations are a repository's histograms, each nil without a provider.
type durations struct{ command, request, append *latency.Histogram }

func newDurations(provider metric.MeterProvider, store, typ string) (durations, error) {
	var d durations
	var errs [3]error
	base := []attribute.KeyValue{tracing.Store.String(store), tracing.AggregateType.String(typ)}
	d.command, errs[0] = latency.New(provider, latency.Config{
		Name: "rossby.command.duration", Description: "How long the repository took for a command.",
		Base: base, Label: tracing.CommandName,
	})
	d.request, errs[1] = latency.New(provider, latency.Config{
		Name: "rossby.service.request.duration", Description: "How long a request was with the service.",
		Base: base, Label: tracing.CommandName,
	})
	d.append, errs[2] = latency.New(provider, latency.Config{
		Name: "rossby.append.duration", Description: "How long the store took for a commit.", Base: base,
	})
	return d, errors.Join(errs[:]...)
}

// measuredOutcome says what came of a command.
func measuredOutcome(res Result, err error) string {
	if err != nil && isRefusal(err) {
		return measuredRefused
	}
	outcome, _ := tracedOutcome(res, err)
	return outcome
}

// requestOutcome says what came of a request that was answered with an error.
func requestOutcome(k protocol.Kind) string {
	switch k {
	case protocol.KindRejected, protocol.KindNotFound, protocol.KindExists, protocol.KindConflict:
		return measuredRefused
	case protocol.KindBusy:
		return measuredBusy
	case protocol.KindUnknown:
		return tracedUnknown
	default:
		return tracedFailed
	}
}

// took notes how long a request was here.
func (m *incoming) took(outcome string) {
	m.service.core.took.request.Since(m.ctx, m.since, m.handler.name, outcome)
}

// appendedIn notes how long an append took.
func (d *durations) appendedIn(ctx context.Context, began time.Time, err error) {
	if d.append == nil {
		return
	}
	outcome := measuredStored
	_, conflict := errors.AsType[*jetstream.ConflictError](err)
	switch {
	case err == nil:
	case conflict:
		outcome = tracedConflict
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		outcome = tracedUnknown
	default:
		outcome = tracedFailed
	}
	d.append.Since(ctx, began, "", outcome)
}

// handledIn notes how long a handler took; a panic fails, too.
func (d *reactorDef) handledIn(ctx context.Context, began time.Time, event string, err error) {
	outcome := measuredDone
	switch {
	case err == nil:
	case isRefusal(err):
		outcome = measuredRefused
	default:
		outcome = tracedFailed
	}
	d.duration.Since(ctx, began, event, outcome)
}

func newHandlerDuration(provider metric.MeterProvider, store, reactor string) (*latency.Histogram, error) {
	return latency.New(provider, latency.Config{
		Name: "rossby.reactor.handler.duration", Description: "How long a reactor's handler took for an event.",
		Base: []attribute.KeyValue{tracing.Store.String(store), tracing.Reactor.String(reactor)}, Label: tracing.EventName,
	})
}
