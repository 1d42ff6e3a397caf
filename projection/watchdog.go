package projection

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// watchdog notices a fold that does not come back. The folder says what it begins,
// which costs next to nothing, and somebody else looks now and then.
type watchdog struct {
	begun atomic.Uint64
	rec   atomic.Pointer[jetstream.Recorded]
	slot  atomic.Pointer[slot]
	// some stands for an event that is not known: one of the slot's.
	some jetstream.Recorded
}

// begin says that user code is called for an event.
func (w *watchdog) begin(rec *jetstream.Recorded, s *slot) {
	w.begun.Add(1)
	w.slot.Store(s)
	w.rec.Store(rec)
}

// end says that user code is not being called.
func (w *watchdog) end() { w.rec.Store(nil) }

// run ends with a [*FoldError] when one event's fold takes longer than the
// timeout.
func (w *watchdog) run(ctx context.Context, view string, timeout time.Duration) error {
	if timeout <= 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	tick := time.NewTicker(max(timeout/8, time.Millisecond))
	defer tick.Stop()
	var same silenceOf
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		rec, begun := w.rec.Load(), w.begun.Load()
		if same.unchanged(begun) < timeout || rec == nil {
			if rec == nil {
				same = silenceOf{}
			}
			continue
		}
		_, sequence := splitPosition(rec.Position)
		e := &FoldError{
			View: view, Event: rec.Name, Type: rec.Type, ID: rec.ID, EventID: rec.EventID, Sequence: sequence,
			Cause: fmt.Errorf("%w: more than %v", ErrFoldTimeout, timeout),
		}
		if s := w.slot.Load(); s != nil {
			if e.Key = s.key; rec == &w.some {
				e.Event, e.Sequence = "?", s.seq
			}
		}
		return e
	}
}
