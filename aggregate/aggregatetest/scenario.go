package aggregatetest

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// IDDefault is the id of the aggregate that a [Scenario] is about.
const IDDefault = "a1"

// Scenario is an aggregate with a history, about to be given commands.
type Scenario[S any] struct {
	t     testing.TB
	store *Store
	typ   *aggregate.Type[S]
	repo  *aggregate.Repository[S]
	id    string
	given []any
}

// Given begins a test of an aggregate type: these events have happened to the
// aggregate, in order. None is an aggregate that does not exist. An event may be
// a [jetstream.Recorded], whose Meta then gives its time, correlation, causation
// and metadata.
//
// The test runs what runs in production – lookup, decision, encoding, decoding,
// applying, storing the state, finding duplicates – over a store in memory.
func Given[S any](t testing.TB, typ *aggregate.Type[S], events ...any) *Scenario[S] {
	t.Helper()
	store := NewStore(t)
	return &Scenario[S]{t: t, store: store, typ: typ, repo: NewRepository(store, typ), id: IDDefault, given: events}
}

// ID names the aggregate; the default is [IDDefault].
func (s *Scenario[S]) ID(id string) *Scenario[S] {
	s.id = id
	return s
}

// When executes a command on the aggregate.
func (s *Scenario[S]) When(command any, opts ...aggregate.CallOption) *Outcome[S] {
	s.t.Helper()
	if len(s.given) > 0 {
		s.store.Append(s.typ.Schema(), s.id, s.given...)
		s.given = nil
	}
	o := &Outcome[S]{scenario: s, command: command}
	o.result, o.err = s.repo.Execute(s.t.Context(), s.id, command, opts...)
	s.replayed()
	return o
}

// replayed compares the state that was stored with what the events alone make.
func (s *Scenario[S]) replayed() {
	s.t.Helper()
	if err := replayEquals(s.t.Context(), s.store, s.typ, s.repo, s.id); err != nil {
		s.t.Error(err)
	}
}

// Outcome is what came of a command. Its methods say what should have, and report
// it to the test when it did not; they return the outcome, so that one may follow
// the other.
type Outcome[S any] struct {
	scenario *Scenario[S]
	command  any
	result   aggregate.Result
	err      error
}

// Then wants the command to have led to these events and no others. They are
// compared as readers will decode them.
func (o *Outcome[S]) Then(events ...any) *Outcome[S] {
	t := o.scenario.t
	t.Helper()
	if o.err != nil {
		t.Errorf("%T failed: %v; want events %s", o.command, o.err, show(events))
		return o
	}
	want, err := o.scenario.decoded(events)
	if err != nil {
		t.Errorf("the expected events: %v", err)
		return o
	}
	if d := diff(want, o.events()); d != "" {
		t.Errorf("%T led to other events (- wanted, + got):\n%s", o.command, d)
	}
	return o
}

// Nothing wants the command to have changed nothing, without an error.
func (o *Outcome[S]) Nothing() *Outcome[S] {
	o.scenario.t.Helper()
	return o.Then()
}

// Rejected wants the command to have been refused with [aggregate.Reject] and the
// code.
func (o *Outcome[S]) Rejected(code string) *Outcome[S] {
	t := o.scenario.t
	t.Helper()
	rejected, ok := errors.AsType[*aggregate.RejectedError](o.err)
	switch {
	case o.err == nil:
		t.Errorf("%T was not refused: it led to %s; want a rejection with code %q", o.command, show(o.events()), code)
	case !ok:
		t.Errorf("%T failed: %v; want a rejection with code %q", o.command, o.err, code)
	case rejected.Code != code:
		t.Errorf("%T was refused with code %q (%s), want %q", o.command, rejected.Code, rejected.Reason, code)
	}
	return o
}

// Fails wants the command to have failed with an error that is target, such as
// [aggregate.ErrNotFound].
func (o *Outcome[S]) Fails(target error) *Outcome[S] {
	t := o.scenario.t
	t.Helper()
	switch {
	case o.err == nil:
		t.Errorf("%T did not fail: it led to %s; want %v", o.command, show(o.events()), target)
	case !errors.Is(o.err, target):
		t.Errorf("%T failed: %v; want %v", o.command, o.err, target)
	}
	return o
}

// State wants the aggregate to have this state now, as a load would return it.
func (o *Outcome[S]) State(want S) *Outcome[S] {
	t := o.scenario.t
	t.Helper()
	snap, err := o.scenario.repo.Load(t.Context(), o.scenario.id)
	if err != nil {
		t.Errorf("after %T: %v; want a state", o.command, err)
		return o
	}
	if d := diff(want, snap.State); d != "" {
		t.Errorf("after %T the state is another (- wanted, + got):\n%s", o.command, d)
	}
	return o
}

// When executes another command on the same aggregate.
func (o *Outcome[S]) When(command any, opts ...aggregate.CallOption) *Outcome[S] {
	o.scenario.t.Helper()
	return o.scenario.When(command, opts...)
}

// Result is what the command returned, for what the other methods do not ask.
func (o *Outcome[S]) Result() (aggregate.Result, error) { return o.result, o.err }

func (o *Outcome[S]) events() []any {
	out := make([]any, 0, len(o.result.Events))
	for _, e := range o.result.Events {
		out = append(out, e.Event)
	}
	return out
}

// decoded is how readers will see the events.
func (s *Scenario[S]) decoded(events []any) ([]any, error) {
	out := make([]any, 0, len(events))
	for _, e := range events {
		if v := reflect.ValueOf(e); v.Kind() == reflect.Pointer && !v.IsNil() {
			e = v.Elem().Interface()
		}
		data, err := s.typ.Schema().Encode(e, jetstream.Msgpack)
		if err != nil {
			return nil, err
		}
		read, err := s.typ.Schema().Decode(data)
		if err != nil {
			return nil, err
		}
		out = append(out, read...)
	}
	return out, nil
}

// replayEquals tells whether the stored state is what the events alone make.
func replayEquals[S any](
	ctx context.Context, store *Store, typ *aggregate.Type[S], repo *aggregate.Repository[S], id string,
) error {
	stored, err := repo.Load(ctx, id)
	if errors.Is(err, aggregate.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	fresh, err := aggregate.NewTestRepository(store.mem.Replay(), typ, aggregate.RepositoryConfig{})
	if err != nil {
		return err
	}
	replayed, err := fresh.Load(ctx, id)
	if err != nil {
		return err
	}
	if d := diff(stored.State, replayed.State); d != "" {
		return errors.New("the events replayed make another state than the one stored: " +
			"an Apply depends on more than state, event and Meta (- stored, + replayed):\n" + d)
	}
	return nil
}
