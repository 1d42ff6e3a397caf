package projectiontest

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/rossby-go/rossby/projection"
)

// pages are the numbers of events folded together, beside one and all.
var pages = []int{2, 3, 7} //nolint:gochecknoglobals // a constant

// check folds the events in every way that must not matter.
func (s *Scenario[V]) check() {
	s.t.Helper()
	if s.folded {
		return
	}
	s.folded = true
	commits := s.mem.Commits(0)
	before := make([]map[string]string, len(commits))
	for i, c := range commits {
		before[i] = maps.Clone(c.Decisions[0].Metadata)
	}
	s.made, s.err = s.rehearsal.Fold(s.t.Context(), 1)
	for i, c := range commits {
		if !maps.Equal(before[i], c.Decisions[0].Metadata) {
			s.t.Errorf("the fold of %s of %s %q changes Meta.Metadata, which others see, too", c.EventNames[0], c.Type, c.ID)
			c.Decisions[0].Metadata = before[i]
		}
	}
	if repeat, ok := errors.AsType[*projection.RepeatError](s.err); ok {
		s.t.Errorf("%v (- first, + again):\n%s%s", repeat,
			diff(s.decode(repeat.Key, repeat.First), s.decode(repeat.Key, repeat.Again)), impure)
		s.err = nil
		s.made, _ = s.rehearsal.Fold(s.t.Context(), len(commits))
		return
	}
	if s.err != nil {
		return
	}
	again, err := s.rehearsal.Fold(s.t.Context(), 1)
	if !s.same(again, err, "folded from the beginning again, the view is another (- first, + again)", impure) {
		return
	}
	for _, n := range append(slices.Clone(pages), len(commits)) {
		if n < 2 || n > len(commits) {
			continue
		}
		again, err = s.rehearsal.Fold(s.t.Context(), n)
		if !s.same(again, err, "events folded together make another view (- one by one, + together)", sharing) {
			return
		}
	}
	if inAnotherYear(s.t, func() { again, err = s.rehearsal.Fold(s.t.Context(), 1) }) {
		s.same(again, err, "folded at another time, the view is another (- now, + in the year 2000)", clock)
	}
}

// What is probably wrong.
const (
	impure = "\na fold must depend on the value, the event and its Meta only: no clock, no random numbers, " +
		"no order of a map, no variable"
	sharing = "\na fold must not keep or share anything between events: a slice or map of an event or of a variable " +
		"that two values hold, or a field that JSON leaves out"
	clock = "\na fold must not ask for the time: that of the event is in its Meta"
)

// same compares a view with the one that was made first.
func (s *Scenario[V]) same(got view, err error, what, why string) bool {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("%s: the fold failed: %v%s", what, err, why)
		return false
	}
	readable := func(made view) (map[string]V, map[string][]string) {
		values, indexes := map[string]V{}, map[string][]string{}
		for key, r := range made {
			values[key] = s.decode(key, r.Value)
			if len(r.Index) > 0 {
				indexes[key] = r.Index
			}
		}
		return values, indexes
	}
	values, indexes := readable(s.made)
	gotValues, gotIndexes := readable(got)
	d := diff(values, gotValues)
	if d == "" {
		d = diff(indexes, gotIndexes)
	}
	if d != "" {
		s.t.Errorf("%s:\n%s%s", what, d, why)
	}
	return d == ""
}

// bubbled is a test that stands for another.
type bubbled interface{ bubble() *testing.T }

// inAnotherYear runs f where the clock says that it is the year 2000. That takes a
// *testing.T, and a test that does not do so itself; it tells whether f ran.
func inAnotherYear(t testing.TB, f func()) (ran bool) {
	t.Helper()
	var own *testing.T
	switch t := t.(type) {
	case *testing.T:
		own = t
	case bubbled:
		own = t.bubble()
	default:
		return false
	}
	defer func() {
		if v := recover(); v != nil && ran {
			panic(v)
		}
	}()
	synctest.Test(own, func(*testing.T) {
		ran = true
		f()
	})
	return ran
}
