package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

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
	// MaxBackoff bounds the wait between attempts at an event that fails.
	// Defaults to 30 s.
	MaxBackoff time.Duration
	// TTL is how long a dead instance keeps its place. Defaults to 3 s.
	TTL time.Duration
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
		notNegative("MaxBackoff", c.MaxBackoff))...)
}

// Reactor follows events and executes commands in answer: Eventuate's event
// handlers, process managers, sagas. Each event is handled in the order of its
// aggregate, by one instance at a time, again until it succeeds; the effects
// happen once for ever, because each is keyed by the reactor, the event and the
// step, and its outcome is recorded in the aggregate it touched.
type Reactor struct {
	name     string
	follower *follow.Follower
}

// ReactorOption is a handler of a [Reactor].
type ReactorOption func(*reactorDef) error

type reactorDef struct {
	name  string
	store *jetstream.Store
	table *dispatch.Table
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
		return d.table.Add(schema, reflect.TypeFor[E](), func(ctx context.Context, e dispatch.Event) error {
			do := &Do{reactor: d.name, store: d.store, meta: e.Meta, origin: e.Origin}
			return handle(ctx, e.Event.(E), e.Meta, do) //nolint:forcetypeassert // looked up by this type
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
	def := &reactorDef{name: name, store: store, table: dispatch.NewTable()}
	errs := []error{jetstream.ValidateName("reactor name", name), cfg.Validate()}
	for _, h := range handlers {
		errs = append(errs, h(def))
	}
	if err := errors.Join(append(errs, def.table.Build())...); err != nil {
		return nil, err
	}
	fc := follow.Config{
		Name: name, Concurrency: cfg.Concurrency, TTL: cfg.TTL, Logger: cmp.Or(cfg.Logger, slog.Default()),
		Start:  func(ctx context.Context) (uint64, error) { return cfg.Start.Resolve(ctx, store) },
		Decide: decideFailure(cmp.Or(cfg.MaxBackoff, follow.BackoffMaxDefault)),
	}
	def.table.Configure(&fc, store, max(cfg.Version, 1))
	f, err := follow.New(fc)
	if err != nil {
		return nil, err
	}
	return &Reactor{name: name, follower: f}, nil
}

// decideFailure: what no retry mends is parked, what this program cannot read
// stops it, all else is tried again.
func decideFailure(most time.Duration) func(follow.Failure) follow.Verdict {
	again := follow.Backoff(follow.BackoffMinDefault, most)
	return func(f follow.Failure) follow.Verdict {
		var (
			invalid *jetstream.InvalidError
			version *VersionError
		)
		switch {
		case dispatch.Unreadable(f.Err):
			return follow.Verdict{Action: follow.Stop}
		case errors.Is(f.Err, ErrRejected), errors.Is(f.Err, ErrNotFound), errors.Is(f.Err, ErrExists),
			errors.Is(f.Err, ErrStepTwice), errors.Is(f.Err, nats.ErrMaxPayload),
			errors.As(f.Err, &invalid), errors.As(f.Err, &version):
			return follow.Verdict{Action: follow.Park}
		default:
			return again(f)
		}
	}
}

// Name is the reactor's name.
func (r *Reactor) Name() string { return r.name }

// Run follows until ctx ends, then lets running handlers finish, hands over and
// returns nil. An instance that is not the owner stands by. It returns an error
// for what waiting does not mend: another definition under the name, a store that
// was restored, an event that this program cannot read.
func (r *Reactor) Run(ctx context.Context) error { return r.follower.Run(ctx) }

// Resume tries the parked events of one aggregate's subject again, or all with
// "".
func (r *Reactor) Resume(ctx context.Context, subject string) error {
	return r.follower.Resume(ctx, subject)
}

// Do gives a reactor's handler its effects. It belongs to one call of the handler
// and is not safe for concurrent use.
type Do struct {
	reactor string
	store   *jetstream.Store
	meta    jetstream.Meta
	origin  *jetstream.Origin
	steps   map[effect]bool
}

type effect struct{ typ, id, step string }

// Update executes a command on an aggregate, once for ever. Its outcome, a
// refusal or "not found" too, is recorded and returned again whenever the event
// is handled again. Errors are those of [Repository.Execute]; [ErrStepTwice] for
// a second effect of one name on one aggregate.
func (d *Do) Update(ctx context.Context, target Target, id string, command any, opts ...CallOption) (Result, error) {
	opts, _, err := d.options(target, id, command, "", opts)
	if err != nil {
		return Result{}, err
	}
	return target.Execute(ctx, id, command, opts...)
}

// Create executes a [Create] command, once for ever. Without an id the
// aggregate's is derived from the event and the step. Errors are those of
// [Do.Update].
func (d *Do) Create(ctx context.Context, target Target, id string, command any, opts ...CallOption) (Result, error) {
	opts, _, err := d.options(target, id, command, "", opts)
	if err != nil {
		return Result{}, err
	}
	return target.Create(ctx, id, command, opts...)
}

// options makes the effect's key, and the trace of what led to it.
func (d *Do) options(
	target Target, id string, command any, prefix string, opts []CallOption,
) ([]CallOption, Trigger, error) {
	h, _, err := target.definition().lookup(command)
	if err != nil {
		return nil, Trigger{}, err
	}
	c := newCall(opts)
	step := prefix + cmp.Or(c.step, h.key)
	e := effect{target.TypeName(), id, step}
	if d.steps[e] {
		return nil, Trigger{}, &stepTwiceError{effect: e}
	}
	if d.steps == nil {
		d.steps = map[effect]bool{}
	}
	d.steps[e] = true
	t := Trigger{
		Subscriber: d.reactor, EventID: d.meta.EventID, Step: step, Position: d.meta.Position, Time: d.meta.StoredAt,
	}
	if d.origin != nil {
		// The effect may have been copied along, to before the event's new place.
		t.Position, t.Time = jetstream.Position{}, d.origin.Time
	}
	base := []CallOption{Correlation(d.meta.Correlation), Causation(d.meta.EventID), TraceParent(d.meta.TraceParent)}
	return slices.Concat(base, opts, []CallOption{TriggeredBy(t)}), t, nil
}

type stepTwiceError struct{ effect effect }

func (e *stepTwiceError) Error() string {
	return "effect " + strconv.Quote(e.effect.step) + " on " + e.effect.typ + " " + strconv.Quote(e.effect.id) +
		" stands twice in one handler: name one of them with aggregate.Step"
}

func (e *stepTwiceError) Is(target error) bool { return target == ErrStepTwice }
