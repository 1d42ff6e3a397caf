package aggregate

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/jetstream"
)

// Do gives a reactor's handler its effects. It belongs to one call of the handler
// and is not safe for concurrent use.
type Do struct {
	reactor  string
	timers   timerStore
	rehearse *memstore.Store
	meta     jetstream.Meta
	origin   *jetstream.Origin
	steps    map[effect]bool
}

type effect struct{ typ, id, step string }

// Update executes a command on an aggregate, once for ever. Its outcome, a
// refusal or "not found" too, is recorded and returned again whenever the event
// is handled again. Errors are those of [Repository.Execute]; [ErrStepTwice] for
// a second effect of one name on one aggregate.
func (d *Do) Update(ctx context.Context, target Target, id string, command any, opts ...CallOption) (Result, error) {
	return d.execute(ctx, target, id, command, false, opts)
}

// Create executes a [Create] command, once for ever. Without an id the
// aggregate's is derived from the event and the step. Errors are those of
// [Do.Update].
func (d *Do) Create(ctx context.Context, target Target, id string, command any, opts ...CallOption) (Result, error) {
	return d.execute(ctx, target, id, command, true, opts)
}

// CreateOrUpdate executes the one command on an aggregate that exists and the
// other, a [Create] command, on one that does not: one of them, once for ever,
// also when several events come first at the same time. It is how a process
// manager finds the instance that an event belongs to, and makes it at the first.
//
// Errors are those of [Do.Update].
func (d *Do) CreateOrUpdate(
	ctx context.Context, target Target, id string, create, update any, opts ...CallOption,
) (Result, error) {
	res, err := d.Update(ctx, target, id, update, opts...)
	if !errors.Is(err, ErrNotFound) {
		return res, err
	}
	step := newCall(opts).step
	if step != "" {
		opts = append(slices.Clone(opts), Step(step+"-create"))
	}
	if res, err = d.Create(ctx, target, id, create, opts...); !errors.Is(err, ErrExists) {
		return res, err
	}
	// Another event made it meanwhile. This is another effect than the first,
	// whose outcome is recorded.
	h, _, err := target.definition().lookup(update)
	if err != nil {
		return Result{}, err
	}
	return d.Update(ctx, target, id, update, append(slices.Clone(opts), Step(cmp.Or(step, h.key)+"-existing"))...)
}

// UpdateFunc is [Do.Update] with a command that is computed from the aggregate's
// state, again on each attempt; see [Repository.ExecuteFunc]. A nil command
// changes nothing, and that is recorded. The default step is "func".
func UpdateFunc[S any](
	ctx context.Context, do *Do, repo *Repository[S], id string,
	command func(state S, d Decision) (any, error), opts ...CallOption,
) (Result, error) {
	opts, e, err := do.options(ctx, repo, id, "func", "", opts)
	if err != nil {
		return Result{}, err
	}
	if do.rehearse != nil {
		var err error
		if e.Command, err = rehearsed(ctx, repo, id, command); err != nil {
			return Result{}, err
		}
		if answered, err := do.rehearse.Answer(e); answered {
			return Result{ID: id}, err
		}
	}
	return repo.ExecuteFunc(ctx, id, command, opts...)
}

// rehearsed is the command that is computed from the state there is.
func rehearsed[S any](
	ctx context.Context, repo *Repository[S], id string, command func(state S, d Decision) (any, error),
) (any, error) {
	snap, err := repo.Load(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return command(snap.State, Decision{ID: id, Version: snap.Version, now: repo.core.now()})
}

func (d *Do) execute(
	ctx context.Context, target Target, id string, command any, create bool, opts []CallOption,
) (Result, error) {
	h, value, err := target.definition().lookup(command)
	if err != nil {
		return Result{}, err
	}
	opts, e, err := d.options(ctx, target, id, h.key, "", opts)
	if err != nil {
		return Result{}, err
	}
	if d.rehearse != nil {
		e.Command, e.Create = value, create
		if answered, err := d.rehearse.Answer(e); answered {
			return Result{ID: id}, err
		}
	}
	if create {
		return target.Create(ctx, id, command, opts...)
	}
	return target.Execute(ctx, id, command, opts...)
}

// options makes the effect's key, and the trace of what led to it.
func (d *Do) options(
	ctx context.Context, target Target, id, name, prefix string, opts []CallOption,
) ([]CallOption, memstore.Effect, error) {
	c := newCall(opts)
	step := prefix + cmp.Or(c.step, name)
	e := effect{target.TypeName(), id, step}
	if d.steps[e] {
		return nil, memstore.Effect{}, &stepTwiceError{effect: e}
	}
	if d.steps == nil {
		d.steps = map[effect]bool{}
	}
	d.steps[e] = true
	base := []CallOption{
		Correlation(d.meta.Correlation), Causation(d.meta.EventID),
		TraceParent(cmp.Or(tracing.Parent(ctx), d.meta.TraceParent)),
	}
	return slices.Concat(base, opts, []CallOption{TriggeredBy(d.trigger(step))}),
		memstore.Effect{Target: target.TypeName(), ID: id, Step: c.step}, nil
}

// trigger is the key of an effect.
func (d *Do) trigger(step string) Trigger {
	t := Trigger{
		Subscriber: d.reactor, EventID: d.meta.EventID, Step: step, Position: d.meta.Position, Time: d.meta.StoredAt,
	}
	if d.origin != nil {
		// The effect may have been copied along, to before the event's new place.
		t.Position, t.Time = jetstream.Position{}, d.origin.Time
	}
	return t
}

type stepTwiceError struct{ effect effect }

func (e *stepTwiceError) Error() string {
	return "effect " + strconv.Quote(e.effect.step) + " on " + e.effect.typ + " " + strconv.Quote(e.effect.id) +
		" stands twice in one handler: name one of them with aggregate.Step"
}

func (e *stepTwiceError) Is(target error) bool { return target == ErrStepTwice }
