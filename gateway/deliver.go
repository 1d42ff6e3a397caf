package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/latency"
	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/jetstream"
)

// definition is what the gateway's handlers share.
type definition struct {
	name     string
	store    *jetstream.Store
	cfg      Config
	policies []Policy
	table    *dispatch.Table
	ledger   *ledger         // nil without one
	tracer   *tracing.Tracer // nil without tracing
	took     *latency.Histogram

	mu           sync.Mutex
	destinations map[string]*destination
	// made are the deliveries that were made and not reported yet, by [slot].
	made    map[slot]made
	running map[string]Overdue
}

// made is a delivery that must not be made again.
type made struct{ eventID, note string }

// slot holds one event at a time: of an aggregate one is delivered, and one replayed.
type slot struct {
	subject string
	replay  bool
}

func slotOf(e dispatch.Event) slot { return slot{e.Subject, e.Replay} }

func newDefinition(store *jetstream.Store, name string, cfg Config) *definition {
	def := &definition{
		name: name, store: store, cfg: cfg, table: dispatch.NewTable(), tracer: tracing.New(cfg.TracerProvider),
		destinations: map[string]*destination{}, made: map[slot]made{}, running: map[string]Overdue{},
	}
	def.policies = append(slices.Clone(cfg.Policies),
		Policy{Is: func(err error) bool { return errors.Is(err, ErrPermanent) }, Attempts: 1})
	def.table.Decide, def.table.Unknown = def.decide, cfg.Unknown
	if cfg.LedgerTTL > 0 {
		def.ledger = newLedger(store, name, cfg.LedgerTTL)
	}
	return def
}

// decide says what becomes of a delivery that failed.
func (def *definition) decide(f follow.Failure) follow.Verdict {
	if held, ok := errors.AsType[*heldBackError](f.Err); ok {
		return follow.Verdict{Action: follow.Postpone, After: held.after}
	}
	if final, ok := errors.AsType[*finalError](f.Err); ok {
		return final.verdict
	}
	return follow.Decide(f, def.policies, def.cfg.MinBackoff, def.cfg.MaxBackoff)
}

// deliver makes one attempt at one event: the delivery, unless it was made
// already, and then the report of it.
func (def *definition) deliver(ctx context.Context, h *handler, e dispatch.Event) error {
	d := Delivery{
		Meta: e.Meta, Store: def.store.Name(), IdempotencyKey: def.name + "-" + e.EventID, Attempt: e.Attempt,
		Epoch: e.Epoch, Replay: e.Replay, origin: e.Origin, gateway: def, note: new(string), trace: new(string),
	}
	if mutate.On(mutate.KeyPerAttempt) {
		d.IdempotencyKey += "-" + strconv.Itoa(e.Attempt)
	}
	before, done, err := def.before(ctx, e)
	if err != nil {
		return err
	}
	if done {
		*d.note = before.note
		return def.delivered(ctx, h, e, d)
	}
	if err := def.attempt(ctx, h, e, d); err != nil {
		return def.failed(ctx, h, e, d, err)
	}
	def.keep(ctx, e, d)
	return def.delivered(ctx, h, e, d)
}

// before looks for the delivery among those that were made.
func (def *definition) before(ctx context.Context, e dispatch.Event) (made, bool, error) {
	def.mu.Lock()
	if e.Replay && e.Attempt == 1 {
		delete(def.made, slotOf(e)) // of another replay, whose report was given up
	}
	m, ok := def.made[slotOf(e)]
	def.mu.Unlock()
	if ok && m.eventID == e.EventID {
		return m, true, nil
	}
	if def.ledger == nil || e.Replay {
		return made{}, false, nil
	}
	entry, found, err := def.ledger.find(ctx, e)
	if err != nil {
		reason := "nothing is delivered without the ledger: " + err.Error()
		return made{}, false, &heldBackError{reason, spread(def.cfg.MinBackoff)}
	}
	return made{e.EventID, entry.Note}, found, nil
}

// attempt calls the handler, if the destination's limits let it.
func (def *definition) attempt(ctx context.Context, h *handler, e dispatch.Event, d Delivery) error {
	dest, err := def.destination(e.Meta)
	if err != nil {
		return err
	}
	judge, err := dest.admit(e.Subject)
	if err != nil {
		return err
	}
	leave := def.enter(e)
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, def.cfg.Timeout)
	defer cancel()
	// Judged also when the handler ends its goroutine.
	err = errEnded
	defer func() { judge(err) }()
	if def.took != nil {
		began := time.Now()
		defer func() { def.took.Since(ctx, began, dest.name, measuredOutcome(err)) }()
	}
	if def.tracer != nil {
		var span trace.Span
		ctx, span = def.traceAttempt(ctx, dest.name, e, d)
		defer func() { tracing.End(span, err) }()
	}
	err = guard(func() error { return h.handle(ctx, e.Event, d) })
	return err
}

var errEnded = errors.New("the handler ended its goroutine")

// guard turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &follow.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}

// keep remembers that the delivery was made. What the ledger does not learn, it
// cannot keep from being repeated; the delivery is made all the same.
func (def *definition) keep(ctx context.Context, e dispatch.Event, d Delivery) {
	def.mu.Lock()
	def.made[slotOf(e)] = made{e.EventID, *d.note}
	def.mu.Unlock()
	if def.ledger == nil {
		return
	}
	if err := def.ledger.put(context.WithoutCancel(ctx), e, d); err != nil {
		def.cfg.Logger.WarnContext(ctx, "delivery not entered in the ledger: a crash now would repeat it",
			"gateway", def.name, "event", e.EventID, "error", err)
	}
}

// delivered reports a delivery that was made.
func (def *definition) delivered(ctx context.Context, h *handler, e dispatch.Event, d Delivery) error {
	if err := def.report(ctx, h, e, d, Outcome{Delivered: true, Note: *d.note, Attempt: e.Attempt}); err != nil {
		return err
	}
	def.mu.Lock()
	defer def.mu.Unlock()
	delete(def.made, slotOf(e))
	return nil
}

// failed reports a delivery that will not be tried again by itself, and returns
// the error.
func (def *definition) failed(ctx context.Context, h *handler, e dispatch.Event, d Delivery, err error) error {
	f := follow.Failure{Attempt: e.Attempt, Since: e.Since, Err: err}
	v := def.decide(f)
	if h.report == nil || (v.Action != follow.Park && v.Action != follow.SkipEvent) {
		return &finalError{err, v}
	}
	unsaid := def.report(ctx, h, e, d, Outcome{Err: err, Note: *d.note, Attempt: e.Attempt})
	switch {
	case unsaid == nil:
		return &finalError{err, v}
	case errors.Is(unsaid, ErrPermanent):
		return &finalError{errors.Join(err, unsaid), v}
	default:
		// It must not be given up in silence: delivery and report are tried once more.
		return &finalError{errors.Join(err, unsaid), follow.Decide(f, nil, def.cfg.MinBackoff, def.cfg.MaxBackoff)}
	}
}

// finalError is a failure whose verdict was taken where its report was made.
type finalError struct {
	err     error
	verdict follow.Verdict
}

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// destination finds or makes the event's destination.
func (def *definition) destination(m jetstream.Meta) (*destination, error) {
	name := def.name
	if def.cfg.Destination != nil {
		if err := guard(func() error { name = def.cfg.Destination(m); return nil }); err != nil {
			return nil, fmt.Errorf("the gateway's Destination: %w", err)
		}
	}
	def.mu.Lock()
	defer def.mu.Unlock()
	dest := def.destinations[name]
	if dest == nil {
		dest = newDestination(name, def.cfg.Limits, def.cfg.Logger.With("gateway", def.name))
		def.destinations[name] = dest
	}
	return dest, nil
}

// enter notes that a handler runs.
func (def *definition) enter(e dispatch.Event) (leave func()) {
	def.mu.Lock()
	defer def.mu.Unlock()
	def.running[e.Subject] = Overdue{Type: e.Type, ID: e.ID, EventID: e.EventID, Began: time.Now()}
	return func() {
		def.mu.Lock()
		defer def.mu.Unlock()
		delete(def.running, e.Subject)
	}
}
