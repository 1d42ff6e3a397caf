package projectiontest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Scenario is a view with the events that it was made of. Its methods say what it
// should be, and report it to the test when it is not; they return the scenario,
// so that one may follow the other, and more events, too.
type Scenario[V any] struct {
	t         testing.TB
	def       *projection.Definition[V]
	mem       *memstore.Store
	rehearsal *projection.Rehearsal
	at        time.Time
	last      map[string]jetstream.Head

	// made is what the events make, or err, once folded holds.
	folded bool
	made   view
	err    error
}

// view is what a fold of all events leaves.
type view = map[string]projection.Rehearsed

// New begins a test of a view. Mistakes in the definition fail the test.
func New[V any](t testing.TB, def *projection.Definition[V]) *Scenario[V] {
	t.Helper()
	s := &Scenario[V]{
		t: t, def: def, mem: memstore.New(), last: map[string]jetstream.Head{},
		at: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC),
	}
	var err error
	if s.rehearsal, err = projection.NewRehearsal(s.mem, def); err != nil {
		t.Fatal(err)
	}
	return s
}

// Given lets events have happened to an aggregate, one commit each, after those
// that were given before. An event may be a [jetstream.Recorded], whose Meta then
// gives its time, correlation, causation and metadata; the time is otherwise one
// second later with each event, from the beginning of 2026.
func (s *Scenario[V]) Given(schema *jetstream.Schema, id string, events ...any) *Scenario[V] {
	s.t.Helper()
	if err := errors.Join(schema.Err(), jetstream.ValidateID(id)); err != nil {
		s.t.Fatal(err)
	}
	s.folded = false
	for _, e := range events {
		d := jetstream.Decision{Time: s.at}
		trace := ""
		if r, ok := e.(jetstream.Recorded); ok {
			e = r.Event
			d.Correlation, d.Causation, d.Metadata, trace = r.Correlation, r.Causation, maps.Clone(r.Metadata), r.TraceParent
			if !r.Time.IsZero() {
				d.Time = jetstream.MicroTime(r.Time)
			}
		}
		s.mem.Freeze(s.at)
		s.at = s.at.Add(time.Second)
		data, err := schema.Encode(e, s.mem.Codec())
		if err != nil {
			s.t.Fatalf("given event %T of %q: %v", e, schema.Type(), err)
		}
		d.Events = []jetstream.EventData{data}
		name := schema.Type() + " " + id
		s.last[name], err = s.mem.Append(s.t.Context(), jetstream.Write{
			Type: schema.Type(), ID: id, After: s.last[name], Decisions: []jetstream.Decision{d}, TraceParent: trace,
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return s
}

// Then wants the view to hold these values and no others. Values are compared as
// readers see them: after encoding and decoding.
func (s *Scenario[V]) Then(want map[string]V) *Scenario[V] {
	s.t.Helper()
	if !s.fold("the view") {
		return s
	}
	got, wanted := map[string]V{}, map[string]V{}
	for key, r := range s.made {
		got[key] = s.decode(key, r.Value)
	}
	for key, v := range want {
		wanted[key] = s.seen(key, v)
	}
	if d := diff(wanted, got); d != "" {
		s.t.Errorf("the view is another (- wanted, + got):\n%s", d)
	}
	return s
}

// Holds wants the view to hold a value under a key, whatever else it holds.
func (s *Scenario[V]) Holds(key string, want V) *Scenario[V] {
	s.t.Helper()
	if !s.fold(fmt.Sprintf("key %q", key)) {
		return s
	}
	got, ok := s.Get(key)
	if !ok {
		s.t.Errorf("the view does not hold key %q; its keys are %q", key, slices.Sorted(maps.Keys(s.made)))
		return s
	}
	if d := diff(s.seen(key, want), got); d != "" {
		s.t.Errorf("the value of key %q is another (- wanted, + got):\n%s", key, d)
	}
	return s
}

// Lacks wants the view not to hold keys.
func (s *Scenario[V]) Lacks(keys ...string) *Scenario[V] {
	s.t.Helper()
	if !s.fold(fmt.Sprintf("no keys %q", keys)) {
		return s
	}
	for _, key := range keys {
		if got, ok := s.Get(key); ok {
			s.t.Errorf("the view holds key %q: %+v", key, got)
		}
	}
	return s
}

// Finds wants an index of the view to lead from an index value to these keys and
// no others, in any order.
func (s *Scenario[V]) Finds(index, value string, keys ...string) *Scenario[V] {
	s.t.Helper()
	if !s.fold(fmt.Sprintf("keys %q by %s %q", keys, index, value)) {
		return s
	}
	found, err := s.rehearsal.Find(s.made, index, value)
	if err != nil {
		s.t.Errorf("find %s %q: %v", index, value, err)
		return s
	}
	if d := diff(slices.Sorted(slices.Values(keys)), found); d != "" && len(keys)+len(found) > 0 {
		s.t.Errorf("index %q leads from %q to other keys (- wanted, + got):\n%s", index, value, d)
	}
	return s
}

// Fails wants an event that cannot be folded, with an error that is target, such
// as [projection.ErrFold]: an updater would stop.
func (s *Scenario[V]) Fails(target error) *Scenario[V] {
	s.t.Helper()
	s.check()
	switch {
	case s.err == nil:
		s.t.Errorf("the events can be folded; want %v", target)
	case !errors.Is(s.err, target):
		s.t.Errorf("the fold failed: %v; want %v", s.err, target)
	}
	return s
}

// Get is the value of a key, for what the other methods do not ask.
func (s *Scenario[V]) Get(key string) (v V, found bool) {
	s.t.Helper()
	if !s.fold(fmt.Sprintf("key %q", key)) {
		return v, false
	}
	r, found := s.made[key]
	if !found {
		return v, false
	}
	return s.decode(key, r.Value), true
}

// fold makes the view, and tells whether there is one; wanted is what for.
func (s *Scenario[V]) fold(wanted string) bool {
	s.t.Helper()
	s.check()
	if s.err != nil {
		s.t.Errorf("the fold failed: %v; want %s", s.err, wanted)
	}
	return s.err == nil
}

// decode is a stored value as readers see it.
func (s *Scenario[V]) decode(key string, data []byte) (v V) {
	s.t.Helper()
	if data == nil {
		return v
	}
	if err := jetstream.JSON.Decode(data, &v); err != nil {
		s.t.Fatalf("the value of key %q does not decode: %v", key, err)
	}
	return v
}

// seen is a value as readers would see it.
func (s *Scenario[V]) seen(key string, v V) V {
	s.t.Helper()
	data, err := jetstream.JSON.Encode(v)
	if err != nil {
		s.t.Fatalf("the wanted value of key %q does not encode: %v", key, err)
	}
	return s.decode(key, data)
}

// diff describes how two values differ, "" when they do not.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }))
}
