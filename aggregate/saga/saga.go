package saga

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// Command is a command on its way to an aggregate.
type Command struct {
	to      aggregate.Target
	id      string
	command any
	create  bool
	opts    []aggregate.CallOption
}

// Send is a command to an aggregate that exists.
func Send(to aggregate.Target, id string, command any, opts ...aggregate.CallOption) Command {
	return Command{to: to, id: id, command: command, opts: opts}
}

// Create is a command that makes an aggregate. Without an id, it is derived from
// the instance and the step.
func Create(to aggregate.Target, id string, command any, opts ...aggregate.CallOption) Command {
	return Command{to: to, id: id, command: command, create: true, opts: opts}
}

// Instance is what a step may depend on. It is the same however often the step
// runs.
type Instance[D any] struct {
	// ID is the instance's, Data what it was started with.
	ID   string
	Data D
	// StartedAt is when.
	StartedAt time.Time
	// Failure says why steps are undone; it is zero before.
	Failure Failure
}

// Step is a part of a saga.
type Step[D any] struct {
	// Name is a word of small letters, digits and '-'. It is stored: never use one
	// again for something else. Required.
	Name string
	// Do is the step's command. It must be pure. Required.
	Do func(i Instance[D]) Command
	// Undo is the command that undoes it; it must be pure and must not be refused.
	// Leave it out where there is nothing to undo.
	Undo func(i Instance[D]) Command
	// Timeout is how long the step may take. Defaults to no bound.
	Timeout time.Duration
	// Await tells that the command only begins the step: its outcome comes with
	// an event, see [ReportOn].
	Await bool
}

// Saga is a list of steps. It is immutable and may be shared.
type Saga[D any] struct {
	name  string
	steps []Step[D]
	typ   *aggregate.Type[State[D]]
	err   error
}

// New defines a saga. Its name is that of the aggregate type of its instances and
// of the reactor that drives them. Mistakes are kept and returned by [Saga.Err]
// and by everything that is given the saga.
//
// A definition may change while instances are in flight, as long as the names of
// the steps that they are in stay, and those of the steps that may have to be
// undone.
func New[D any](name string, steps ...Step[D]) *Saga[D] {
	s := &Saga[D]{name: name, steps: steps}
	errs := []error{jetstream.ValidateName("saga name", name)}
	if len(steps) == 0 {
		errs = append(errs, errors.New("there are no steps"))
	}
	seen := map[string]bool{}
	for _, step := range steps {
		errs = append(errs, jetstream.ValidateName("step name", step.Name))
		if seen[step.Name] {
			errs = append(errs, fmt.Errorf("two steps are named %q", step.Name))
		}
		seen[step.Name] = true
		if step.Do == nil {
			errs = append(errs, fmt.Errorf("step %q has no Do", step.Name))
		}
		if step.Timeout < 0 {
			errs = append(errs, &jetstream.InvalidError{
				Field: "Timeout of step " + step.Name, Value: step.Timeout.String(), Reason: "is negative",
			})
		}
	}
	if errs[0] == nil {
		s.typ = newType(s)
		errs = append(errs, s.typ.Err())
	}
	if err := errors.Join(errs...); err != nil {
		s.err = fmt.Errorf("saga %q: %w", name, err)
	}
	return s
}

// Name is the saga's name.
func (s *Saga[D]) Name() string { return s.name }

// Steps are the saga's steps, in order.
func (s *Saga[D]) Steps() []Step[D] { return slices.Clone(s.steps) }

// Err returns every mistake in the definition, joined.
func (s *Saga[D]) Err() error { return s.err }

// Type is the aggregate type of the instances. Commands other than [Start] are for
// the saga itself.
func (s *Saga[D]) Type() *aggregate.Type[State[D]] { return s.typ }

// step finds a step by its name.
func (s *Saga[D]) step(name string) (Step[D], error) {
	for _, step := range s.steps {
		if step.Name == name {
			return step, nil
		}
	}
	return Step[D]{}, &jetstream.InvalidError{
		Field: "step", Value: name, Reason: fmt.Sprintf("is not one of saga %q any more", s.name),
	}
}

// awaits tells whether a step's outcome comes with an event.
func (s *Saga[D]) awaits(name string) bool {
	step, err := s.step(name)
	return err == nil && step.Await
}

// next is the name of the step after one, "" after the last.
func (s *Saga[D]) next(name string) string {
	for i, step := range s.steps[:len(s.steps)-1] {
		if step.Name == name {
			return s.steps[i+1].Name
		}
	}
	return ""
}
