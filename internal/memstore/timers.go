package memstore

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Timer is a message that waits for its time.
type Timer struct {
	Key  string
	Due  time.Time
	Data []byte
}

// SetTimer keeps a timer unless there is one of its key, and tells whether it did.
func (s *Store) SetTimer(t Timer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.timers[t.Key]
	if !known {
		s.timers[t.Key] = t
	}
	return !known
}

// DropTimer forgets a timer.
func (s *Store) DropTimer(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.timers, key)
}

// Timers are those that wait, the next one first.
func (s *Store) Timers() []Timer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.timers), func(a, b Timer) int {
		return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Key, b.Key))
	})
}
