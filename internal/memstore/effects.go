package memstore

import "time"

// Effect is what a reactor's handler asked for.
type Effect struct {
	// Target is the aggregate type, ID the aggregate; "" where it is derived.
	Target, ID string
	// Step is the effect's name, "" when it was not given one.
	Step string
	// Command is the command: a struct, or the function that computes it.
	Command any
	// Create tells a creation.
	Create bool
	// After is the delay of a deadline, Cancel tells that it is cancelled.
	After  time.Duration
	Cancel bool
}

// SetAnswer lets f see every effect. With true, the effect does not happen, and
// the handler gets the error as its outcome.
func (s *Store) SetAnswer(f func(Effect) (bool, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Answer asks for an effect's outcome; false lets it happen.
func (s *Store) Answer(e Effect) (answered bool, outcome error) {
	s.mu.Lock()
	f := s.answer
	s.mu.Unlock()
	if f == nil {
		return false, nil
	}
	return f(e)
}
