package jetstream

import (
	"context"
	"math/rand/v2"
	"time"
)

// The waits between attempts: short at first, since most faults are a leader
// change away from being over.
const (
	backoffFirst = 5 * time.Millisecond
	backoffLast  = 500 * time.Millisecond
)

type backoff struct{ wait time.Duration }

func newBackoff() *backoff { return &backoff{wait: backoffFirst} }

// next waits a jittered, doubling time or until ctx ends, whose cause it returns.
func (b *backoff) next(ctx context.Context) error {
	d := b.wait/2 + rand.N(b.wait/2+1)
	b.wait = min(2*b.wait, backoffLast)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
