package follow

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// worker runs lanes, one event at a time, until the tenure drains.
func (t *tenure) worker() {
	var l *lane
	var m wire.Message
	inHandler := false
	// A handler that ends its goroutine (runtime.Goexit) takes the worker with
	// it: count a failure and send another worker.
	defer func() {
		if inHandler {
			t.mu.Lock()
			t.left()
			t.unrecorded--
			t.failed(l, m, Verdict{After: backoff(l.tries+1, BackoffMinDefault, BackoffMaxDefault)}, errGoexit)
			t.mu.Unlock()
			t.workers.Go(t.worker)
		}
	}()
	t.mu.Lock()
	for {
		if l = t.next(); l == nil {
			t.mu.Unlock()
			return
		}
		if len(l.queue) == 0 {
			t.mu.Unlock()
			t.reread(l)
			t.mu.Lock()
			continue
		}
		m = l.queue[0]
		t.running++
		d := Delivery{
			Message: m, Epoch: t.epoch, Attempt: l.tries + 1, Since: l.since, Done: l.step, tenure: t, lane: l,
		}
		t.unrecorded++
		t.mu.Unlock()
		inHandler = true
		err := t.call(d)
		var verdict Verdict
		cut := err != nil && t.handlers.Err() != nil
		if err != nil && !cut {
			verdict, err = t.decide(Failure{Message: m, Attempt: d.Attempt, Since: d.Since, Err: err})
		}
		inHandler = false
		t.mu.Lock()
		t.left()
		switch {
		case err == nil, mutate.On(mutate.AckBeforeEffect):
			t.finish(l, m.Sequence)
		case cut:
			// The tenure ends; the event was not judged and stays as it was.
			t.unrecorded--
			t.table.again(l)
		default:
			t.unrecorded--
			t.failed(l, m, verdict, err)
		}
	}
}

// next waits for a lane that may run now; nil when no more may start.
func (t *tenure) next() *lane {
	for {
		if t.draining {
			return nil
		}
		if len(t.table.ready) > 0 && t.head.Paused == nil && t.head.Replay == nil &&
			t.unrecorded < t.cfg.MaxUnrecorded && time.Now().Before(t.startUntil) {
			return t.table.take()
		}
		t.idle++
		t.work.Wait()
		t.idle--
	}
}

// left counts a handler that ended; the mutex is held.
func (t *tenure) left() {
	if t.running--; t.running == 0 && t.head.Replay != nil {
		t.work.Broadcast() // the replay waits to be alone
	}
}

// finish counts an event as done.
func (t *tenure) finish(l *lane, seq uint64) {
	t.finished++
	t.table.done(l, seq)
	if t.finished == (t.cfg.MaxUnrecorded+1)/2 {
		kick(t.flushNow)
	}
	t.roomMade()
}

// roomMade wakes the reader when there is room for a worthwhile pull.
func (t *tenure) roomMade() {
	if t.readerWaits && t.table.queued <= t.cfg.Window/2 {
		t.readerWaits = false
		kick(t.roomNow)
	}
}

// failed applies a verdict to a lane that ran; the mutex is held.
func (t *tenure) failed(l *lane, m wire.Message, v Verdict, err error) {
	l.from = m.Sequence // there is none between
	if v.Action == Postpone {
		l.err = clip(err.Error(), errorTextMax)
		t.table.wait(l, time.Now(), max(v.After, time.Millisecond))
		l.postponed = true
		kick(t.dueNow)
		t.roomMade()
		return
	}
	if l.tries++; l.since.IsZero() {
		l.since = time.Now()
	}
	l.err = clip(err.Error(), errorTextMax)
	log := t.cfg.Logger.With("subject", m.Subject, "sequence", m.Sequence, "attempt", l.tries, "error", err)
	if p, ok := errors.AsType[*PanicError](err); ok {
		log = log.With("stack", string(p.Stack))
	}
	t.f.failed(err)
	switch v.Action {
	case SkipEvent:
		log.Error("event skipped by verdict")
		t.unrecorded++
		t.finish(l, m.Sequence)
	case Park:
		log.Error("lane parked: it waits for Resume", "lane", l.key)
		t.table.park(l)
		kick(t.tellNow)
	case Stop:
		log.Error("follower stops by verdict")
		// Not parked: the next owner tries the event again.
		t.table.again(l)
		t.endLocked(fmt.Errorf("%w: %q sequence %d: %w", ErrStopped, m.Subject, m.Sequence, err))
	default:
		log.Warn("event failed", "retry", v.After)
		if mutate.On(mutate.NakInsteadOfHold) && len(l.queue) > 1 {
			l.queue = append(l.queue[1:], l.queue[0])
		}
		t.table.wait(l, time.Now(), max(v.After, 0))
		kick(t.dueNow)
	}
	t.roomMade()
}

// classify asks Skip and Lane. A panic of theirs stops the follower: without an
// answer no event behind it can be placed.
func (t *tenure) classify(m *wire.Message) (key string, skip, ok bool) {
	defer func() {
		if !ok {
			p := &PanicError{Value: recover(), Stack: debug.Stack()}
			t.cfg.Logger.Error("Skip or Lane panicked",
				"subject", m.Subject, "sequence", m.Sequence, "error", p, "stack", string(p.Stack))
			t.end(fmt.Errorf("follow: Skip or Lane at sequence %d: %w", m.Sequence, p))
		}
	}()
	if t.cfg.Skip != nil && t.cfg.Skip(m) {
		return "", true, true
	}
	if mutate.On(mutate.NoLanes) {
		return m.Subject + "." + strconv.FormatUint(m.Sequence, 10), false, true
	}
	if t.cfg.Lane == nil {
		return m.Subject, false, true
	}
	return t.cfg.Lane(m), false, true
}

// call runs the handler and turns a panic into an error.
func (t *tenure) call(d Delivery) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		err = &PanicError{Value: recover(), Stack: debug.Stack()}
	}()
	err = t.cfg.Handle(t.handlers, d)
	returned = true
	return err
}

// decide asks the policy. A policy that panics gets the default's verdict, with
// its panic beside the failure.
func (t *tenure) decide(f Failure) (v Verdict, err error) {
	returned := false
	defer func() {
		if !returned {
			p := &PanicError{Value: recover(), Stack: debug.Stack()}
			v = Verdict{After: backoff(f.Attempt, BackoffMinDefault, BackoffMaxDefault)}
			err = errors.Join(f.Err, fmt.Errorf("follow: Decide: %w", p))
		}
	}()
	v = t.cfg.Decide(f)
	returned = true
	return v, f.Err
}

// wakeDue makes waiting lanes ready when their time comes, and tells of parked
// ones: those who park hold the mutex.
func (t *tenure) wakeDue() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.tellNow:
			t.f.changed()
		case <-t.dueNow:
		case <-timer.C:
		}
		t.mu.Lock()
		n, next := t.table.wake(time.Now())
		t.wakeWorkers(n)
		t.mu.Unlock()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// clip cuts a text without splitting a character.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}
