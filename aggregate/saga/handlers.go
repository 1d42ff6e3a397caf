package saga

import (
	"context"
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// Link joins a saga to other events: see [StartOn] and [ReportOn].
type Link func(instances aggregate.Target) aggregate.ReactorOption

// StartOn starts an instance for an event. The function says its id and its data;
// without an id the event starts none. One that exists already is left alone.
func StartOn[D, E any](schema *jetstream.Schema, start func(event E, m jetstream.Meta) (id string, data D)) Link {
	return func(instances aggregate.Target) aggregate.ReactorOption {
		return aggregate.On(schema, func(ctx context.Context, e E, m jetstream.Meta, do *aggregate.Do) error {
			id, data := start(e, m)
			if id == "" {
				return nil
			}
			_, err := do.Create(ctx, instances, id, Start[D]{Data: data})
			if errors.Is(err, aggregate.ErrExists) {
				return nil
			}
			return err
		})
	}
}

// Report is the outcome of a step that waits.
type Report struct {
	// Instance is the instance that the event belongs to, "" for none. Step is the
	// step.
	Instance, Step string
	// Code says why the step failed; "" that it was done. Reason is for people.
	Code, Reason string
}

// ReportOn reports the outcome of a step with Await for an event. The function
// finds the instance. One that is elsewhere by now ignores it, and so does one
// that does not exist.
func ReportOn[E any](schema *jetstream.Schema, report func(event E, m jetstream.Meta) Report) Link {
	return func(instances aggregate.Target) aggregate.ReactorOption {
		return aggregate.On(schema, func(ctx context.Context, e E, m jetstream.Meta, do *aggregate.Do) error {
			r := report(e, m)
			if r.Instance == "" {
				return nil
			}
			var command any = reportDone{Step: r.Step}
			if r.Code != "" {
				command = reportFailed{Failure{Step: r.Step, Code: r.Code, Reason: r.Reason}}
			}
			_, err := do.Update(ctx, instances, r.Instance, command)
			if errors.Is(err, aggregate.ErrNotFound) {
				return nil
			}
			return err
		})
	}
}

// Handlers are the handlers that drive the instances of a repository: for tests
// with aggregatetest. Programs use [NewProcess].
func (s *Saga[D]) Handlers(
	instances *aggregate.Repository[State[D]], links ...Link,
) []aggregate.ReactorOption {
	return s.handlers(instances, nil, links)
}

func (s *Saga[D]) handlers(
	instances *aggregate.Repository[State[D]], list *index, links []Link,
) []aggregate.ReactorOption {
	if s.err != nil {
		return nil // what is given the handlers refuses to have none
	}
	d := driver[D]{saga: s, instances: instances}
	events := s.typ.Schema()
	out := []aggregate.ReactorOption{
		aggregate.On(events, func(ctx context.Context, _ StartedEvent[D], m jetstream.Meta, _ *aggregate.Do) error {
			return list.put(ctx, m.ID)
		}),
		aggregate.On(events, func(ctx context.Context, e Begun, m jetstream.Meta, do *aggregate.Do) error {
			return d.do(ctx, e.Step, m, do)
		}),
		aggregate.On(events, func(ctx context.Context, e Done, m jetstream.Meta, do *aggregate.Do) error {
			return d.settled(ctx, e.Step, m, do)
		}),
		aggregate.On(events, func(ctx context.Context, e Failed, m jetstream.Meta, do *aggregate.Do) error {
			return d.settled(ctx, e.Failure.Step, m, do)
		}),
		aggregate.On(events, func(ctx context.Context, _ Expired, m jetstream.Meta, do *aggregate.Do) error {
			// The handler of what was begun has ended: it is known by now what came of it.
			_, err := do.Update(ctx, instances, m.ID, compensate{})
			return err
		}),
		aggregate.On(events, func(ctx context.Context, e Undoing, m jetstream.Meta, do *aggregate.Do) error {
			return d.undo(ctx, e.Step, m, do)
		}),
		aggregate.On(events, func(ctx context.Context, _ CompletedEvent, m jetstream.Meta, _ *aggregate.Do) error {
			return list.remove(ctx, m.ID)
		}),
		aggregate.On(events, func(ctx context.Context, _ CompensatedEvent, m jetstream.Meta, _ *aggregate.Do) error {
			return list.remove(ctx, m.ID)
		}),
	}
	for _, l := range links {
		out = append(out, l(instances))
	}
	return out
}

// driver does what the instances' events say.
type driver[D any] struct {
	saga      *Saga[D]
	instances *aggregate.Repository[State[D]]
}

// instance is what a step may depend on: nothing of it changes any more, though
// the instance may be further on than the event.
func (d driver[D]) instance(ctx context.Context, m jetstream.Meta) (Instance[D], error) {
	snap, err := d.instances.Load(ctx, m.ID, aggregate.AtLeast(m.Position), aggregate.Follower())
	return Instance[D]{
		ID: m.ID, Data: snap.State.Data, StartedAt: snap.State.StartedAt, Failure: snap.State.Failure,
	}, err
}

// deadline names a step's.
func deadline(step string) string { return "expire-" + step }

// settled takes back the deadline of a step that has an outcome.
func (d driver[D]) settled(ctx context.Context, name string, m jetstream.Meta, do *aggregate.Do) error {
	if step, err := d.saga.step(name); err != nil || step.Timeout == 0 {
		return nil //nolint:nilerr // a step that is gone has nothing to take back that matters
	}
	return do.Cancel(ctx, d.instances, m.ID, deadline(name))
}

// do sends a step's command and reports what came of it.
func (d driver[D]) do(ctx context.Context, name string, m jetstream.Meta, do *aggregate.Do) error {
	step, err := d.saga.step(name)
	if err != nil {
		return err
	}
	if step.Timeout > 0 {
		err := do.After(ctx, step.Timeout, d.instances, m.ID, expire{name}, aggregate.Step(deadline(name)))
		if err != nil {
			return err
		}
	}
	i, err := d.instance(ctx, m)
	if err != nil {
		return err
	}
	i.Failure = Failure{} // there was none when the step was begun
	err = send(ctx, do, step.Do(i), "do-"+name)
	var report any = reportDone{name}
	switch {
	case aggregate.IsRefusal(err):
		report = reportFailed{failure(name, err)}
	case err != nil:
		return err
	case step.Await:
		report = reportAccepted{name}
	}
	_, err = do.Update(ctx, d.instances, m.ID, report, aggregate.Step("report-"+name))
	return err
}

// undo sends the command that undoes a step, and reports.
func (d driver[D]) undo(ctx context.Context, name string, m jetstream.Meta, do *aggregate.Do) error {
	step, err := d.saga.step(name)
	if err == nil && step.Undo == nil {
		err = &jetstream.InvalidError{Field: "step", Value: name, Reason: "cannot be undone any more: its Undo is gone"}
	}
	if err != nil {
		return err
	}
	i, err := d.instance(ctx, m)
	if err != nil {
		return err
	}
	err = send(ctx, do, step.Undo(i), "undo-"+name)
	var report any = reportUndone{name}
	switch {
	case aggregate.IsRefusal(err):
		report = reportUndoRefused{failure(name, err)}
	case err != nil:
		return err
	}
	_, err = do.Update(ctx, d.instances, m.ID, report, aggregate.Step("report-"+name))
	return err
}

func send(ctx context.Context, do *aggregate.Do, c Command, step string) error {
	if c.to == nil {
		return &jetstream.InvalidError{
			Field: "command of step", Value: step, Reason: "has no target: use saga.Send or saga.Create",
		}
	}
	opts := append([]aggregate.CallOption{aggregate.Step(step)}, c.opts...)
	var err error
	if c.create {
		_, err = do.Create(ctx, c.to, c.id, c.command, opts...)
	} else {
		_, err = do.Update(ctx, c.to, c.id, c.command, opts...)
	}
	if err != nil && !aggregate.IsRefusal(err) {
		return fmt.Errorf("step %q: %w", step, err)
	}
	return err
}

// failure is a refusal as an event holds it.
func failure(step string, err error) Failure {
	f := Failure{Step: step, Code: CodeVersion, Reason: err.Error()}
	rejected, ok := errors.AsType[*aggregate.RejectedError](err)
	switch {
	case ok:
		f.Code, f.Reason = rejected.Code, rejected.Reason
	case errors.Is(err, aggregate.ErrNotFound):
		f.Code = CodeNotFound
	case errors.Is(err, aggregate.ErrExists):
		f.Code = CodeExists
	}
	return f
}
