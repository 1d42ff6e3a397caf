package follow

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// flusher writes the record when something changed, and in any case often
// enough to keep the lease, until stop is closed or the lease is lost.
func (t *tenure) flusher(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.flushNow:
		case <-timer.C:
		}
		wait, due := t.flushDue(time.Now())
		if due {
			if err := t.put(false); err != nil {
				t.end(err)
				return
			}
			wait, _ = t.flushDue(time.Now())
		}
		timer.Reset(wait)
	}
}

// flushDue tells whether to write now, else how long to wait.
func (t *tenure) flushDue(now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := now.Sub(t.lastPut)
	switch {
	case t.finished >= (t.cfg.MaxUnrecorded+1)/2, since >= t.cfg.TTL/3, len(t.changes) > 0:
		return 0, true
	case t.table.dirty && since >= t.cfg.FlushEvery:
		return 0, true
	}
	// Looking every FlushEvery costs next to nothing and saves the workers a
	// wake-up per event.
	return min(t.cfg.FlushEvery, t.cfg.TTL/3-since), false
}

// attempt is one write of the record.
type attempt struct {
	body     []byte
	rev      uint64
	flush    uint64
	finished int
	sent     time.Time
}

// snapshot encodes the record as it is now.
func (t *tenure) snapshot(free bool) attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.head.Flush++
	r := t.head
	r.Position = t.table.position
	if free {
		r.Owner = ""
	}
	lanes := t.table.lanes
	if mutate.On(mutate.ForgetLanes) {
		lanes = nil
	}
	body := r.encodeWithin(lanes, t.cfg.recordMax())
	t.table.dirty = false
	return attempt{body: body, rev: t.rev, flush: r.Flush, finished: t.finished, sent: time.Now()}
}

// recorded takes the result of a write that is known to have happened.
func (t *tenure) recorded(a attempt, rev uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rev = rev
	t.lastPut = a.sent
	t.finished -= a.finished
	t.unrecorded -= a.finished
	t.startUntil = a.sent.Add(t.cfg.TTL - t.cfg.margin())
	t.told(a.flush)
	t.work.Broadcast()
}

// deadline is when the lease is given up.
func (t *tenure) deadline() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.startUntil
}

// put writes the record until it is known to be written. Its errors end the
// tenure.
func (t *tenure) put(free bool) error {
	// Not the tenure's context: a drain has to record too.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(t.ctx), t.deadline())
	defer cancel()
	for {
		a := t.snapshot(free)
		once, cancelOnce := context.WithTimeout(ctx, t.cfg.TTL/4)
		rev, err := t.place.write(once, a.body, a.rev)
		cancelOnce()
		if err == nil {
			t.recorded(a, rev)
			return nil
		}
		t.mu.Lock()
		t.table.dirty = true
		t.mu.Unlock()
		t.cfg.Logger.Warn("record not written, reading it back", "error", err)
		t.f.failed(err)
		landed, backErr := t.readBack(ctx, a)
		if backErr != nil {
			return backErr
		}
		if landed {
			return nil
		}
		if !pause(ctx, t.cfg.TTL/60) {
			return lostf("the lease could not be renewed: %v", err)
		}
	}
}

// readBack learns what became of a write that failed or got no answer. It
// returns an error when the record is lost.
func (t *tenure) readBack(ctx context.Context, a attempt) (bool, error) {
	missing := 0
	for {
		once, cancel := context.WithTimeout(ctx, t.cfg.TTL/4)
		r, rev, err := t.place.read(once)
		cancel()
		switch {
		case errors.Is(err, ErrRecordFormat):
			return false, lostf("%v", err)
		case errors.Is(err, wire.ErrNotFound):
			// A deposed leader may say so once.
			if missing++; missing > 2 {
				return false, t.cfg.vanished()
			}
		case err != nil && t.cfg.Conn.IsClosed():
			return false, lostf("%v", nats.ErrConnectionClosed)
		case err != nil:
			// Ask again.
		case rev <= a.rev:
			// Ours did not land, or the answer is old: the next write will tell.
			return false, nil
		case r.Epoch != t.epoch || (r.Owner != t.head.Owner && r.Owner != "") || r.Store != t.cfg.StoreID:
			return false, lostf("record taken by %q, epoch %d", r.Owner, r.Epoch)
		case r.Flush == a.flush:
			t.recorded(a, rev)
			t.adopt(r, rev)
			return true, nil
		default:
			// An earlier write of ours, or a higher version announced itself.
			t.adopt(r, rev)
			return false, nil
		}
		if !pause(ctx, t.cfg.TTL/60) {
			return false, lostf("the lease could not be renewed: %v", err)
		}
	}
}

// adopt goes on from a newer revision of our own record.
func (t *tenure) adopt(r record, rev uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rev = rev
	if r.Version > t.head.Version {
		t.head.Version, t.head.Definition = r.Version, r.Definition
		t.endLocked(t.cfg.check(r))
	}
}

// free gives the record up and tells the others.
func (t *tenure) free() {
	if err := t.put(true); err != nil {
		t.cfg.Logger.Warn("record not freed: the next owner waits for the lease to end", "error", err)
		return
	}
	if err := t.cfg.Conn.Publish(t.cfg.hint(), nil); err != nil {
		t.cfg.Logger.Warn("hint not published", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.cfg.TTL/4)
	defer cancel()
	// The caller may close the connection next.
	if err := t.cfg.Conn.FlushWithContext(ctx); err != nil {
		t.cfg.Logger.Warn("hint not flushed", "error", err)
	}
}
