package follow

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrOtherEvent is returned by [Follower.Discard] when the lane waits for another
	// event than the one that was named.
	ErrOtherEvent = errors.New("the lane waits for another event")
	// ErrReplaying is returned by [Follower.Replay] while another replay runs.
	ErrReplaying = errors.New("a replay is under way")
	// ErrRange is returned by [Follower.Replay] for a range that is none.
	ErrRange = errors.New("not a range of what was followed")
)

// Pause is a stop that somebody asked for. It outlives owners.
type Pause struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// Replay is a range that is handled again because somebody asked for it. It
// outlives owners.
type Replay struct {
	Pause

	// From and To are the first and the last sequence, Next the first one not done.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	Next uint64 `json:"next"`
	// Failed counts the events given up by the policy.
	Failed int `json:"failed,omitempty"`
}

// owner returns the tenure of an instance that owns the record.
func (f *Follower) owned(ctx context.Context, what string) (*tenure, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("follow: %s: %w", what, err)
	}
	f.mu.Lock()
	t := f.tenure
	f.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	if t == nil || t.draining || time.Now().After(t.startUntil) {
		return nil, fmt.Errorf("follow: %q: %s: %w", f.cfg.Name, what, ErrNotOwner)
	}
	return t, nil
}

// Owns tells whether this instance owns the record now.
func (f *Follower) Owns(ctx context.Context) bool {
	_, err := f.owned(ctx, "")
	return err == nil
}

// Pause starts no more handlers until [Follower.Unpause]; those that run finish. It
// returns when that is recorded, so it outlives this instance. Only the owner can:
// [ErrNotOwner].
func (f *Follower) Pause(ctx context.Context, p Pause) error {
	t, err := f.owned(ctx, "pause")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		t.head.Paused = &p
		return nil
	})
}

// Unpause ends a pause. Without one it does nothing. Only the owner can:
// [ErrNotOwner].
func (f *Follower) Unpause(ctx context.Context) error {
	t, err := f.owned(ctx, "unpause")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		t.head.Paused = nil
		t.work.Broadcast()
		return nil
	})
}

// Discard gives up what a blocked lane waits for: the part of the event at the
// sequence that failed, or the whole event with all of its parts. The lane goes on
// behind it. Only the owner can: [ErrNotOwner]. [ErrNoLane] and [ErrOtherEvent] say
// that the lane does not wait, or for something else.
func (f *Follower) Discard(ctx context.Context, lane string, sequence uint64, whole bool) error {
	t, err := f.owned(ctx, "discard")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		l := t.table.lanes[lane]
		if l == nil || (l.state != laneParked && l.state != laneWaiting) {
			return fmt.Errorf("follow: %q: discard %q: %w", f.cfg.Name, lane, ErrNoLane)
		}
		if l.from != sequence {
			return fmt.Errorf("follow: %q: discard %d of %q: %w: %d", f.cfg.Name, sequence, lane, ErrOtherEvent, l.from)
		}
		t.table.discard(l, whole)
		t.cfg.Logger.Warn("event discarded", "lane", lane, "sequence", sequence, "whole", whole)
		t.wakeWorkers(1)
		return nil
	})
}

// Replay handles the followed events of a range again, in order, one at a time,
// flagged as [Delivery.Replay]; nothing else is handled meanwhile. It returns when
// that is recorded; a new owner goes on with it. Only the owner can: [ErrNotOwner].
func (f *Follower) Replay(ctx context.Context, r Replay) error {
	t, err := f.owned(ctx, "replay")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		switch {
		case t.head.Replay != nil:
			return fmt.Errorf("follow: %q: %w: %d to %d", f.cfg.Name, ErrReplaying, t.head.Replay.From, t.head.Replay.To)
		case r.From == 0 || r.To < r.From || r.To > t.table.position:
			return fmt.Errorf("follow: %q: replay %d to %d: %w: want 1 to %d, in order",
				f.cfg.Name, r.From, r.To, ErrRange, t.table.position)
		}
		r.Next, r.Failed = r.From, 0
		t.head.Replay = &r
		kick(t.replayNow)
		return nil
	})
}

// EndReplay ends a replay after the handler that runs, if one does; without a replay
// it does nothing. Only the owner can: [ErrNotOwner].
func (f *Follower) EndReplay(ctx context.Context) error {
	t, err := f.owned(ctx, "end replay")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		if t.head.Replay == nil {
			return nil
		}
		r := *t.head.Replay // a snapshot may be encoding the old one
		r.To = r.Next - 1   // the replayer, this owner's or the next one's, has nothing left
		t.head.Replay = &r
		kick(t.replayNow)
		return nil
	})
}

// change makes a change to the record and waits until it is written.
func (t *tenure) change(ctx context.Context, what func() error) error {
	written := make(chan struct{})
	t.mu.Lock()
	if err := what(); err != nil {
		t.mu.Unlock()
		return err
	}
	t.table.dirty = true
	// The next snapshot will hold it.
	t.changes = append(t.changes, change{flush: t.head.Flush + 1, written: written})
	t.mu.Unlock()
	kick(t.flushNow)
	select {
	case <-written:
		t.f.changed()
		return nil
	case <-t.gone:
		return fmt.Errorf("follow: %q: %w: it may or may not be recorded", t.cfg.Name, ErrNotOwner)
	case <-ctx.Done():
		return fmt.Errorf("follow: %q: it may or may not be recorded: %w", t.cfg.Name, ctx.Err())
	}
}

// change is something that somebody waits to be recorded.
type change struct {
	flush   uint64
	written chan struct{}
}

// told closes the changes that a record of the flush holds; the mutex is held.
func (t *tenure) told(flush uint64) {
	kept := t.changes[:0]
	for _, c := range t.changes {
		if c.flush <= flush {
			close(c.written)
			continue
		}
		kept = append(kept, c)
	}
	t.changes = kept
}
