package aggregatetest

import (
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// maxCommits bounds what reactors make of each other's events in one go: beyond it
// they never come to an end.
const maxCommits = 10_000

// running is a reactor of a store.
type running struct {
	name     string
	handlers *aggregate.Rehearsal
	position uint64
}

// Run gives the store a reactor, which handles all events, from the first, when
// [Store.Settle] or [Store.Advance] is called. Its commands go to the repositories
// of [NewRepository].
func (s *Store) Run(name string, handlers ...aggregate.ReactorOption) {
	s.t.Helper()
	r, err := aggregate.NewRehearsal(s.mem, name, handlers...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.reactors = append(s.reactors, &running{name: name, handlers: r})
}

// Settle lets the reactors handle events until nothing is left, their own included.
//
// Each event is handled twice, as it may be in production after a crash. What the
// second time leads to anything new fails the test: an effect that did not go
// through [aggregate.Do], or has a name that is not the same each time. An error
// that a handler returns fails the test, too; in production the event would wait.
func (s *Store) Settle() {
	s.t.Helper()
	began := len(s.mem.Commits(0))
	for settled := false; !settled; {
		settled = true
		for _, r := range s.reactors {
			for _, c := range s.mem.Commits(r.position) {
				settled = false
				s.handle(r, c)
				r.position = c.Sequence
			}
		}
		if n := len(s.mem.Commits(0)) - began; n > maxCommits {
			s.t.Fatalf("the reactors do not settle: %d commits", n)
		}
	}
}

func (s *Store) handle(r *running, c *jetstream.Commit) {
	s.t.Helper()
	if err := r.handlers.Handle(s.t.Context(), c, 1); err != nil {
		s.t.Errorf("reactor %q: %v", r.name, err)
		return
	}
	before, timers := s.mem.Commits(0), len(s.mem.Timers())
	if err := r.handlers.Handle(s.t.Context(), c, 2); err != nil {
		s.t.Errorf("reactor %q, handling again: %v", r.name, err)
		return
	}
	if more := s.mem.Commits(before[len(before)-1].Sequence); len(more) > 0 {
		s.t.Errorf("reactor %q handled %v of %s %q again, and that changed %s %q once more: "+
			"have every effect through Do, with the same step each time",
			r.name, c.EventNames, c.Type, c.ID, more[0].Type, more[0].ID)
	}
	if n := len(s.mem.Timers()); n > timers {
		s.t.Errorf("reactor %q handled %v of %s %q again, and that set %d more deadlines",
			r.name, c.EventNames, c.Type, c.ID, n-timers)
	}
}

// Advance settles, then moves the store's clock: every deadline that falls due is
// executed at its time, in order, and twice, and its events settle before the next.
func (s *Store) Advance(d time.Duration) {
	s.t.Helper()
	s.Settle()
	end := s.mem.Now().Add(d)
	for next, ok := s.next(end); ok; next, ok = s.next(end) {
		s.mem.DropTimer(next.Key)
		s.mem.Advance(max(next.Due.Sub(s.mem.Now()), 0))
		for range 2 {
			if err := aggregate.RehearseTimer(s.t.Context(), next, s.targets...); err != nil {
				s.t.Errorf("deadline: %v", err)
			}
		}
		s.Settle()
	}
	s.mem.Advance(max(end.Sub(s.mem.Now()), 0))
}

// next is the next timer that is due at the time.
func (s *Store) next(end time.Time) (memstore.Timer, bool) {
	for _, t := range s.mem.Timers() {
		return t, !t.Due.After(end)
	}
	return memstore.Timer{}, false
}

// Now is the store's time.
func (s *Store) Now() time.Time { return s.mem.Now() }
