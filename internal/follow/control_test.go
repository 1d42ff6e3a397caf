package follow_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
)

// A pause starts no handlers, is in force for the next owner too, and loses
// nothing when it ends.
func TestPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	b.publishLanes(5, 4)
	i := start(t, cfg)
	i.caughtUp(t, 20)
	why := follow.Pause{By: "ada", Reason: "the partner asked for it", At: time.Now().UTC()}
	if err := i.Pause(t.Context(), why); err != nil {
		t.Fatal(err)
	}
	if s := i.Status(); s.State != follow.StatePaused || s.Paused == nil || *s.Paused != why {
		t.Errorf("status %+v", s)
	}
	b.publishLanes(5, 4)
	i.stop(t)
	if err := i.Pause(t.Context(), why); !isErr(err, follow.ErrNotOwner) {
		t.Errorf("pause of one that does not own: %v", err)
	}
	if err := i.Unpause(t.Context()); !isErr(err, follow.ErrNotOwner) {
		t.Errorf("unpause: %v", err)
	}
	if err := i.Discard(t.Context(), "t.1", 1, true); !isErr(err, follow.ErrNotOwner) {
		t.Errorf("discard: %v", err)
	}
	if err := i.Replay(t.Context(), follow.Replay{From: 1, To: 2}); !isErr(err, follow.ErrNotOwner) {
		t.Errorf("replay: %v", err)
	}

	// Everything is read and waits for a handler: the next owner pauses, too.
	i = start(t, cfg)
	until(t, "the events wait", func() bool { return i.Status().Unfinished == 5 })
	if s := i.Status(); s.State != follow.StatePaused || j.count() != 20 {
		t.Errorf("%s, %d done", s.State, j.count())
	}
	if s := b.status(); s.State != follow.StatePaused || s.Paused.Reason != why.Reason {
		t.Errorf("%+v", s)
	}
	if err := i.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.caughtUp(t, 40)
	if j.count() != 40 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
	if s := i.Status(); s.State != follow.StateActive || s.Paused != nil {
		t.Errorf("status %+v", s)
	}
}

// What a lane waits for can be given up, by whoever names it rightly.
func TestDiscard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var bad sync.Map // sequences that fail
	j.fail = func(d follow.Delivery) error {
		if _, fails := bad.Load(d.Sequence); fails && d.Done < 2 {
			d.Step(1)
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Park} }
	bad.Store(uint64(3), true) // the second event of lane 1 of 2
	b.publishLanes(2, 5)
	i := start(t, cfg)
	until(t, "it is parked", func() bool { return j.count() == 6 && len(i.Status().Blocked) == 1 })
	l := i.Status().Blocked[0]
	if l.From != 3 || l.Done != 1 || l.Since.IsZero() || !l.Parked {
		t.Errorf("%+v", l)
	}
	for _, c := range []struct {
		lane string
		seq  uint64
		want error
	}{{"t.9", 3, follow.ErrNoLane}, {l.Subject, 4, follow.ErrOtherEvent}} {
		if err := i.Discard(t.Context(), c.lane, c.seq, true); !isErr(err, c.want) {
			t.Errorf("discard %d of %s: %v, want %v", c.seq, c.lane, err, c.want)
		}
	}
	// The part that failed is given up, and what this event has behind it is done.
	if err := i.Discard(t.Context(), l.Subject, 3, false); err != nil {
		t.Fatal(err)
	}
	i.caughtUp(t, 10)
	if j.count() != 10 {
		t.Errorf("%d done", j.count())
	}
	// A whole event is given up.
	bad.Store(uint64(11), true)
	b.publishLanes(2, 2)
	until(t, "it is parked", func() bool { return len(i.Status().Blocked) == 1 })
	if err := i.Discard(t.Context(), i.Status().Blocked[0].Subject, 11, true); err != nil {
		t.Fatal(err)
	}
	i.caughtUp(t, 14)
	if j.count() != 13 {
		t.Errorf("%d done", j.count())
	}
}

// A replay handles a range again, in order and flagged, and changes nothing else;
// a new owner goes on with it.
func TestReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var mu sync.Mutex
	var again []uint64
	var block atomic.Bool
	reached, release := make(chan struct{}), make(chan struct{})
	cfg := b.config(j)
	handle := cfg.Handle
	cfg.Handle = func(ctx context.Context, d follow.Delivery) error {
		if !d.Replay {
			return handle(ctx, d)
		}
		if d.Sequence == 7 && block.CompareAndSwap(true, false) {
			close(reached)
			<-release
			return errTest
		}
		if d.Sequence == 9 && d.Attempt < 3 {
			return errTest
		}
		mu.Lock()
		defer mu.Unlock()
		again = append(again, d.Sequence)
		return nil
	}
	cfg.Decide = func(f follow.Failure) follow.Verdict {
		if f.Attempt >= 3 {
			return follow.Verdict{Action: follow.Park}
		}
		return follow.Verdict{After: time.Millisecond}
	}
	cfg.Skip = nil
	b.publishLanes(4, 5)
	i := start(t, cfg)
	i.caughtUp(t, 20)
	for _, r := range []follow.Replay{{From: 0, To: 3}, {From: 5, To: 4}, {From: 1, To: 21}} {
		if err := i.Replay(t.Context(), r); err == nil || !strings.Contains(err.Error(), "want 1 to 20") {
			t.Errorf("replay %d to %d: %v", r.From, r.To, err)
		}
	}
	block.Store(true)
	if err := i.Replay(t.Context(), follow.Replay{From: 5, To: 12, Pause: follow.Pause{By: "ada"}}); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := i.Replay(t.Context(), follow.Replay{From: 1, To: 2}); !errors.Is(err, follow.ErrReplaying) {
		t.Errorf("a second one: %v", err)
	}
	if s := i.Status(); s.State != follow.StateReplaying || s.Replay == nil || s.Replay.Next != 7 || s.Replay.By != "ada" {
		t.Errorf("status %+v", s)
	}
	b.publishLanes(4, 1)
	close(release)
	i.stop(t)
	i = start(t, cfg)
	i.caughtUp(t, 24)
	mu.Lock()
	defer mu.Unlock()
	// What the first owner was at when it stopped may be done twice.
	seen := map[uint64]bool{}
	for k, seq := range again {
		if k > 0 && seq < again[k-1] {
			t.Errorf("out of order: %v", again)
		}
		seen[seq] = true
	}
	if len(seen) != 8 || !seen[5] || !seen[12] {
		t.Errorf("replayed %v", again)
	}
	if j.count() != 24 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
	until(t, "the replay is over", func() bool { return i.Status().Replay == nil })
}

// A replay is of what was handled: what waits in a lane is not handled before what
// it waits behind.
func TestReplayLeavesWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	j.fail = func(d follow.Delivery) error {
		if d.Sequence == 3 { // the second of lane 0, whose third is 5
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Park} }
	b.publishLanes(2, 3)
	i := start(t, cfg)
	until(t, "one lane waits, all else is done", func() bool { return len(i.Status().Blocked) == 1 && j.count() == 4 })
	if err := i.Replay(t.Context(), follow.Replay{From: 1, To: 6}); err != nil {
		t.Fatal(err)
	}
	until(t, "the replay is over", func() bool { return i.Status().Replay == nil })
	var again []uint64
	j.mu.Lock()
	for _, d := range j.starts {
		if d.Replay {
			again = append(again, d.Sequence)
		}
	}
	j.mu.Unlock()
	if !slices.Equal(again, []uint64{1, 2, 4, 6}) {
		t.Errorf("replayed %v", again)
	}
}

// Whatever a handler does in a replay, it ends, and the others go on.
func TestReplayOfWhatFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Handle = func(ctx context.Context, d follow.Delivery) error {
		switch {
		case d.Replay && d.Sequence == 1 && d.Attempt == 1:
			goexit()
		case d.Replay && d.Sequence == 2:
			return errTest
		}
		return j.handle(ctx, d)
	}
	cfg.Decide = func(f follow.Failure) follow.Verdict {
		return follow.Decide(f, []follow.Policy{{For: time.Millisecond}}, time.Millisecond, 2*time.Millisecond)
	}
	b.publishLanes(1, 3)
	i := start(t, cfg)
	i.caughtUp(t, 3)
	if err := i.Replay(t.Context(), follow.Replay{From: 1, To: 3}); err != nil {
		t.Fatal(err)
	}
	until(t, "the replay is over", func() bool { return i.Status().Replay == nil })
	b.publish("t.0")
	i.caughtUp(t, 4)
}

// A replay that would be tried without an end is ended by somebody, however long it
// waits, and everything else goes on; what was not replayed is left alone.
func TestReplayIsEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	j.fail = func(d follow.Delivery) error {
		if d.Replay && d.Sequence == 2 {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{After: time.Hour} }
	b.publishLanes(1, 3)
	i := start(t, cfg)
	i.caughtUp(t, 3)
	if err := i.EndReplay(t.Context()); err != nil {
		t.Errorf("without one: %v", err)
	}
	if err := i.Replay(t.Context(), follow.Replay{From: 1, To: 3}); err != nil {
		t.Fatal(err)
	}
	until(t, "it fails", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.starts[len(j.starts)-1].Sequence == 2
	})
	b.publish("t.0")
	if err := i.EndReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.caughtUp(t, 4)
	if s := i.Status(); s.Replay != nil || s.State != follow.StateActive {
		t.Errorf("%+v", s)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	began := make([]uint64, 0, len(j.starts))
	for _, d := range j.starts {
		began = append(began, d.Sequence)
	}
	if !slices.Equal(began, []uint64{1, 2, 3, 1, 2, 4}) {
		t.Errorf("began %v", began)
	}
}
