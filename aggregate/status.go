package aggregate

import (
	"context"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// ErrNeverRan is returned by [ReadStatus] for a reactor that never ran.
var ErrNeverRan = follow.ErrNoRecord

// Status is what a reactor, or the timers, are doing.
type Status = follow.Status

// Status is this instance's view; it asks nobody.
func (r *Reactor) Status() Status { return r.follower.Status() }

// Status is this instance's view of the timers of each target's type; it asks
// nobody.
func (t *Timers) Status() map[string]Status {
	out := map[string]Status{}
	for _, f := range t.followers {
		out[f.typ] = f.follower.Status()
	}
	return out
}

// ReadStatus asks the servers about a reactor, wherever it runs, or about the
// timers of an aggregate type with [TimersName]. Returns [ErrNeverRan].
func ReadStatus(ctx context.Context, store *jetstream.Store, name string) (Status, error) {
	stream := store.Name()
	if _, ok := timersOf(name); ok {
		stream = timerStream(stream)
	}
	return follow.ReadStatus(ctx, store.Conn(), stream, store.Name()+"__followers", name)
}
