package follow

import (
	"context"
	"errors"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

// replayer handles ranges again when somebody asks for it, until the tenure ends.
func (t *tenure) replayer() {
	for {
		t.mu.Lock()
		r := t.head.Replay
		t.mu.Unlock()
		if r != nil {
			t.replay()
		}
		select {
		case <-t.ctx.Done():
			return
		case <-t.over:
			return
		case <-t.replayNow:
		}
	}
}

// replay works the record's replay off.
func (t *tenure) replay() {
	if !t.alone() {
		return
	}
	t.cfg.Logger.Warn("replay goes on")
	for {
		t.mu.Lock()
		next, to := t.head.Replay.Next, t.head.Replay.To
		t.mu.Unlock()
		if next > to {
			break
		}
		once, cancel := context.WithTimeout(t.ctx, t.cfg.TTL)
		m, err := wire.LeaderNext(once, t.cfg.Conn, t.cfg.Stream, t.replaySource(), next)
		cancel()
		switch {
		case errors.Is(err, wire.ErrNotFound), err == nil && m.Sequence > to:
			t.replayed(to+1, false)
			continue
		case err != nil:
			if t.ctx.Err() == nil {
				t.cfg.Logger.Warn("replay cannot read", "sequence", next, "error", err)
				t.f.failed(err)
			}
			if !pause(t.ctx, missWaitMax) {
				return
			}
			continue
		}
		key, skip, ok := t.classify(&m)
		switch {
		case !ok:
			return
		case skip, t.undone(key, m.Sequence):
			t.replayed(m.Sequence+1, false)
		default:
			given, ok := t.again(m)
			if !ok {
				return
			}
			t.replayed(m.Sequence+1, given)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cfg.Logger.Warn("replay ends", "from", t.head.Replay.From, "to", t.head.Replay.To, "given up", t.head.Replay.Failed)
	t.head.Replay = nil
	t.table.dirty = true
	t.work.Broadcast()
}

func (t *tenure) replaySource() string {
	if t.cfg.Filter != "" {
		return t.cfg.Filter
	}
	return ">"
}

// alone waits until no handler runs, and tells whether the tenure goes on.
func (t *tenure) alone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.running > 0 && !t.draining {
		t.work.Wait()
	}
	return !t.draining
}

// undone tells that an event was not handled yet: it waits in its lane, for its
// turn or for a person, and is not to be handled before those in front of it.
func (t *tenure) undone(key string, seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.table.lanes[key]
	return l != nil && seq >= l.from
}

// again handles one event until it is done or given up, and tells whether it was
// given up, and whether the tenure goes on.
func (t *tenure) again(m wire.Message) (given, ok bool) {
	step := 0
	var since time.Time
	for attempt := 1; ; attempt++ {
		if !t.mayStart() {
			return false, false
		}
		if t.replayEnds(m.Sequence) {
			return attempt > 1, true
		}
		before := step
		err := t.callApart(Delivery{
			Message: m, Epoch: t.epoch, Attempt: attempt, Since: since, Replay: true, Done: step, stepped: &step,
		})
		if step > before {
			attempt, since = 1, time.Time{} // another part's
		}
		if err == nil {
			return false, true
		}
		if t.handlers.Err() != nil {
			return false, false
		}
		v, err := t.decide(Failure{Message: m, Attempt: attempt, Since: since, Err: err})
		if since.IsZero() && v.Action != Postpone {
			since = time.Now()
		}
		log := t.cfg.Logger.With("subject", m.Subject, "sequence", m.Sequence, "attempt", attempt, "error", err)
		switch v.Action {
		case Park, SkipEvent, Stop:
			log.Error("replay gives an event up")
			return true, true
		case Postpone:
			attempt--
		case Retry:
			log.Warn("replayed event failed", "retry", v.After)
		}
		if !t.pauseReplay(max(v.After, time.Millisecond)) {
			return false, false
		}
	}
}

// pauseReplay waits for d, or until somebody ends the replay; false when the tenure
// ended first.
func (t *tenure) pauseReplay(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.ctx.Done():
		return false
	case <-t.replayNow:
	case <-timer.C:
	}
	return true
}

// replayEnds tells that somebody ended the replay before the sequence.
func (t *tenure) replayEnds(seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head.Replay.To < seq
}

// callApart is call for a handler that may end its goroutine (runtime.Goexit):
// without the replayer, no handler would ever run again.
func (t *tenure) callApart(d Delivery) error {
	done := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() { done <- err }()
		err = t.call(d)
	}()
	return <-done
}

// mayStart tells whether a handler may start, and waits while the lease is being
// renewed or somebody paused the follower.
func (t *tenure) mayStart() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.draining && (t.head.Paused != nil || !time.Now().Before(t.startUntil)) {
		t.work.Wait()
	}
	return !t.draining
}

func (t *tenure) replayed(next uint64, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := *t.head.Replay // a snapshot may be encoding the old one
	r.Next = next
	if failed {
		r.Failed++
	}
	t.head.Replay = &r
	t.table.dirty = true
}
