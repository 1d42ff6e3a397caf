package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/control"
	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/latency"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/jetstream"
)

// HandlerTimeoutDefault is how long a reactor's handler may run for one event.
const HandlerTimeoutDefault = 30 * time.Second

// ReactorConfig describes how a reactor follows. Start is required.
type ReactorConfig struct {
	// Start is where the reactor begins when it runs for the first time ever.
	Start jetstream.Start
	// Version is the version of the reactor's definition: raise it with every
	// change of the events it handles. Instances of a higher version take over
	// from those of a lower one. Defaults to 1.
	Version int
	// Concurrency is the number of aggregates whose events are handled at once.
	// Defaults to 16.
	Concurrency int
	// MinBackoff and MaxBackoff bound the wait between attempts at an event that
	// fails: its upper end doubles with each, and it is random below. Default to
	// 50 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// MeterProvider makes the histogram of how long handlers take; see docs/signals.md.
	// Defaults to none, which costs nothing.
	MeterProvider metric.MeterProvider
	// Policies say what becomes of an event whose handler failed, by the class of
	// the error: the first that is for the error holds. Behind them stand the
	// defaults:
	//
	//   - what this program cannot read, [IsUnreadable], stops the reactor;
	//   - what no retry would change, [IsRefusal] and [IsInvalid], parks the
	//     aggregate's events until [Reactor.Resume];
	//   - everything else, panics too, is tried again without an end.
	Policies []Policy
	// Timeout is how long a handler may run for one event. Then its context ends;
	// what it returns is judged by the policies. One that ignores its context
	// keeps its place, and its aggregate's events wait; the log says so. Defaults
	// to [HandlerTimeoutDefault].
	Timeout time.Duration
	// TTL is how long a dead instance keeps its place. Defaults to 3 s.
	TTL time.Duration
	// TracerProvider makes the spans of handled events; see docs/signals.md. Defaults
	// to none, which costs nothing.
	TracerProvider trace.TracerProvider
	// Unknown is what happens to events that the schema lacks, before Policies are
	// asked. Defaults to jetstream.StopOnUnknown.
	Unknown jetstream.UnknownPolicy
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Validate reports every field that [NewReactor] would refuse, joined.
func (c ReactorConfig) Validate() error {
	var errs []error
	if !c.Start.IsSet() {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Start", Reason: "is not stated: say jetstream.FromBeginning(), FromNow() or From(position)",
		})
	}
	return errors.Join(append(errs, notNegative("Version", c.Version), notNegative("Concurrency", c.Concurrency),
		notNegative("MinBackoff", c.MinBackoff), notNegative("MaxBackoff", c.MaxBackoff),
		notNegative("Timeout", c.Timeout), follow.ValidatePolicies(c.Policies), knownPolicy(c.Unknown))...)
}

func knownPolicy(p jetstream.UnknownPolicy) error {
	if p.Valid() {
		return nil
	}
	return &jetstream.InvalidError{Field: "Unknown", Value: p.String(), Reason: "is not known"}
}

// Reactor follows events and executes commands in answer: Eventuate's event
// handlers, process managers, sagas. Each event is handled in the order of its
// aggregate, by one instance at a time, again until it succeeds; the effects
// happen once for ever, because each is keyed by the reactor, the event and the
// step, and its outcome is recorded in the aggregate it touched.
type Reactor struct {
	name     string
	store    *jetstream.Store
	logger   *slog.Logger
	follower *follow.Follower
	watchdog *watchdog
}

// ReactorOption is a handler of a [Reactor].
type ReactorOption func(*reactorDef) error

type reactorDef struct {
	name   string
	timers timerStore
	// rehearse is for tests: see [Rehearsal].
	rehearse *memstore.Store
	table    *dispatch.Table
	tracer   *tracing.Tracer // nil without tracing
	// duration is nil without a meter.
	duration *latency.Histogram
}

// On declares what a reactor does about an event of the schema. The handler may
// run again for the same event, in whole, after a failure or a crash: its effects
// through [Do] then return what came of them the first time, so it takes the same
// branches. It must not have other effects.
//
// An error makes the event wait and be tried again. A refusal of a command is not
// a fault: handle it. One that the handler returns parks the aggregate's events,
// since no retry would change it.
func On[E any](
	schema *jetstream.Schema, handle func(ctx context.Context, event E, m jetstream.Meta, do *Do) error,
) ReactorOption {
	return func(d *reactorDef) error {
		if handle == nil {
			return fmt.Errorf("handler of %s is a nil function", reflect.TypeFor[E]())
		}
		return d.table.Add(schema, reflect.TypeFor[E](), func(ctx context.Context, e dispatch.Event) (err error) {
			if d.duration != nil {
				began := time.Now()
				err = errHandlerPanicked // unless it returns
				defer func() { d.handledIn(ctx, began, e.Name, err) }()
			}
			do := &Do{reactor: d.name, timers: d.timers, rehearse: d.rehearse, meta: e.Meta, origin: e.Origin}
			if d.tracer == nil {
				err = handle(ctx, e.Event.(E), e.Meta, do) //nolint:forcetypeassert // looked up by this type
				return err
			}
			err = d.traced(ctx, e, func(ctx context.Context) error {
				return handle(ctx, e.Event.(E), e.Meta, do) //nolint:forcetypeassert // looked up by this type
			})
			return err
		})
	}
}

// NewReactor makes a reactor. Its name is the key of its effects, of its durable
// consumer and of its record: it must never change. Returns every mistake in the
// configuration and the handlers, joined.
func NewReactor(store *jetstream.Store, name string, cfg ReactorConfig, handlers ...ReactorOption) (*Reactor, error) {
	if store == nil {
		return nil, errors.New("reactor: the store is nil")
	}
	def := &reactorDef{name: name, timers: natsTimers{store}, table: dispatch.NewTable()}
	def.table.Unknown, def.tracer = cfg.Unknown, tracing.New(cfg.TracerProvider)
	var meter error
	def.duration, meter = newHandlerDuration(cfg.MeterProvider, store.Name(), name)
	err := errors.Join(meter, jetstream.ValidateName("reactor name", name), cfg.Validate(), def.build(handlers))
	if err != nil {
		return nil, err
	}
	fc := follow.Config{
		Name: name, Concurrency: cfg.Concurrency, TTL: cfg.TTL, Logger: cmp.Or(cfg.Logger, slog.Default()),
		Start: func(ctx context.Context) (uint64, error) { return cfg.Start.Resolve(ctx, store) },
	}
	def.table.Decide = decideFailure(cfg.Policies, cfg.MinBackoff, cfg.MaxBackoff)
	def.table.Configure(&fc, store, max(cfg.Version, 1))
	watchdog := newWatchdog(cmp.Or(cfg.Timeout, HandlerTimeoutDefault), fc.Logger)
	fc.Handle = watchdog.bound(fc.Handle)
	f, err := follow.New(fc)
	if err != nil {
		return nil, err
	}
	return &Reactor{name: name, store: store, logger: fc.Logger, follower: f, watchdog: watchdog}, nil
}

// build applies the handlers.
func (d *reactorDef) build(handlers []ReactorOption) error {
	var errs []error
	for _, h := range handlers {
		errs = append(errs, h(d))
	}
	return errors.Join(append(errs, d.table.Build())...)
}

// Name is the reactor's name.
func (r *Reactor) Name() string { return r.name }

// Run follows until ctx ends, then lets running handlers finish, hands over and
// returns nil. An instance that is not the owner stands by. It returns an error
// for what waiting does not mend: another definition under the name, a store that
// was restored, an event that this program cannot read.
//
// While it runs, jetstream/followers administers it over NATS.
func (r *Reactor) Run(ctx context.Context) error {
	return r.watchdog.watch(func() error {
		return control.Run(ctx, control.Config{
			Store: r.store, Follower: r.follower, Name: r.name, Kind: "reactor", Logger: r.logger,
		})
	})
}

// Resume tries the parked events of one aggregate's subject again, or all with
// "".
func (r *Reactor) Resume(ctx context.Context, subject string) error {
	return r.follower.Resume(ctx, subject)
}
