package gateway

import (
	"context"
	"sync"

	"github.com/rossby-go/rossby/internal/follow"
)

// progress is how far an attempt at a commit of several events came: the record
// on the servers knows commits only.
type progress struct {
	sequence, epoch uint64
	done, at        int
}

type progressKey struct{}

// goOn lets an attempt at a commit begin at the event that the last one failed
// at, as long as this instance is the owner.
func goOn(
	handle func(ctx context.Context, d follow.Delivery) error,
) func(ctx context.Context, d follow.Delivery) error {
	var (
		mu     sync.Mutex
		failed = map[string]*progress{} // by subject, of which one commit is handled at a time
		epoch  uint64
	)
	begin := func(d follow.Delivery) *progress {
		mu.Lock()
		defer mu.Unlock()
		if epoch != d.Epoch {
			// What another owner finished in between would never be forgotten.
			clear(failed)
			epoch = d.Epoch
		}
		p := failed[d.Subject]
		if p == nil || p.sequence != d.Sequence {
			p = &progress{sequence: d.Sequence, epoch: d.Epoch}
		}
		p.at = 0
		delete(failed, d.Subject)
		return p
	}
	return func(ctx context.Context, d follow.Delivery) error {
		p := begin(d)
		all := false
		// Deferred, because a handler may panic.
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			if !all && p.done > 0 && p.epoch == epoch {
				failed[d.Subject] = p
			}
		}()
		err := handle(context.WithValue(ctx, progressKey{}, p), d)
		all = err == nil
		return err
	}
}

// nextStep counts an event of the attempt. It returns whether an earlier attempt
// delivered the event, else what notes that this one did.
func nextStep(ctx context.Context) (note func(), done bool) {
	p, ok := ctx.Value(progressKey{}).(*progress)
	if !ok {
		return func() {}, false
	}
	p.at++
	at := p.at
	return func() { p.done = at }, at <= p.done
}
