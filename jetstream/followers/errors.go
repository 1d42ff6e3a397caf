package followers

import "errors"

var (
	// ErrNeverRan is returned for a follower that has no record.
	ErrNeverRan = errors.New("the follower never ran")
	// ErrNotRunning is returned when no process runs the follower, or none of those that
	// do owns it and the record names no owner.
	ErrNotRunning = errors.New("no process runs the follower")
	// ErrNotWaiting is returned for a lane that does not wait, or not for the event
	// that was named: somebody else may have been faster.
	ErrNotWaiting = errors.New("it does not wait for that")
	// ErrRefused is returned for what the follower cannot do, such as the replay of a
	// reactor, whose effects happen once for ever.
	ErrRefused = errors.New("the follower does not do that")
)
