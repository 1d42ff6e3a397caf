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

// TimersName is the name of the follower that runs the timers: see [ReadStatus].
const TimersName = timerFollower

// Status is this instance's view; it asks nobody.
func (r *Reactor) Status() Status { return r.follower.Status() }

// Status is this instance's view; it asks nobody.
func (t *Timers) Status() Status { return t.follower.Status() }

// ReadStatus asks the servers about a reactor, wherever it runs, or about the
// timers with [TimersName]. Returns [ErrNeverRan].
func ReadStatus(ctx context.Context, store *jetstream.Store, name string) (Status, error) {
	stream := store.Name()
	if name == TimersName {
		stream += timerStreamSuffix
	}
	return follow.ReadStatus(ctx, store.Conn(), stream, store.Name()+"__followers", name)
}
