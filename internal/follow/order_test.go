package follow_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
)

func TestOrderPerLaneUnderRandomFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const lanes, rounds = 100, 20
	b.publishMany(lanes, rounds/2)
	j := newJournal(t)
	j.fail = func(follow.Delivery) error {
		switch rand.IntN(20) {
		case 0:
			return errTest
		case 1:
			panic("test")
		}
		return nil
	}
	i := start(t, b.config(j)).active(t)
	b.publishMany(lanes, rounds/2)
	i.caughtUp(t, lanes*rounds)
	i.stop(t)
	if j.count() != lanes*rounds || j.repeated() != 0 {
		t.Errorf("%d events done, %d repeated; want %d, 0", j.count(), j.repeated(), lanes*rounds)
	}
	j.ordered()
	until(t, "the server knows", func() bool {
		s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
		return err == nil && s.CaughtUp && s.Position == lanes*rounds && s.Owner == ""
	})
}

func TestFailingLaneBlocksOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var mended atomic.Bool
	j.fail = func(d follow.Delivery) error {
		if d.Subject == "t.0" && !mended.Load() {
			return errTest
		}
		return nil
	}
	const lanes, rounds = 10, 100
	b.publishMany(lanes, rounds)
	i := start(t, b.config(j)).active(t)
	until(t, "all others are done", func() bool { return j.count() == (lanes-1)*rounds })
	until(t, "the server knows the age of what is left", func() bool {
		s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
		return err == nil && s.Lag > 0 && s.LagTime > 0
	})
	s := i.Status()
	if len(s.Blocked) != 1 || s.Blocked[0].Subject != "t.0" || s.Blocked[0].From != 1 ||
		s.Blocked[0].Attempts == 0 || s.CaughtUp {
		t.Errorf("status %+v", s)
	}
	if s.LastError == nil {
		t.Error("no last error")
	}
	until(t, "the record shows the lane", func() bool {
		s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
		return err == nil && len(s.Blocked) == 1 && s.Blocked[0].To == (rounds-1)*lanes+1 &&
			s.Blocked[0].Error == errTest.Error()
	})
	mended.Store(true)
	i.caughtUp(t, lanes*rounds)
	i.stop(t)
	if j.count() != lanes*rounds || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
}

func TestManyBlockedLanesStopTheReader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var mended atomic.Bool
	j.fail = func(follow.Delivery) error {
		if !mended.Load() {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.MaxLanes = 20
	b.publishLanes(100, 2)
	i := start(t, cfg)
	until(t, "full", func() bool { return i.Status().State == follow.StateFull })
	if n := i.Status().Unfinished; n > 20 {
		t.Errorf("%d lanes", n)
	}
	mended.Store(true)
	i.caughtUp(t, 200)
	j.ordered()
}

func TestLaneOfOneOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var failures atomic.Int64
	j.fail = func(follow.Delivery) error {
		if failures.Add(1)%7 == 0 {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Lane = func(m *wireMessage) string { return m.Subject[len(m.Subject)-1:] }
	cfg.Window = 8
	b.publishLanes(50, 10)
	i := start(t, cfg)
	i.caughtUp(t, 500)
	if j.count() != 500 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
}

func TestSkippedTailMovesThePosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Filter, cfg.TTL = "t.a.>", leaseShort // heartbeats come as often as leases are renewed
	cfg.Skip = func(m *wireMessage) bool { return m.Subject == "t.a.skip" }
	i := start(t, cfg).active(t)
	b.publish("t.a.1")
	for range 50 {
		b.publish("t.b.1")
		b.publish("t.a.skip")
	}
	last := b.publish("t.b.1")
	until(t, "the idle heartbeat moved the recorded position", func() bool {
		s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
		return err == nil && s.Position == last && s.Lag == 0
	})
	i.caughtUp(t, last)
	if j.count() != 1 {
		t.Errorf("%d done", j.count())
	}
}

func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Concurrency = 1
	cfg.Handle = func(ctx context.Context, d follow.Delivery) error {
		if d.Attempt < 3 {
			goexit()
		}
		return j.handle(ctx, d)
	}
	b.publishLanes(3, 3)
	i := start(t, cfg)
	i.caughtUp(t, 9)
	j.ordered()
}

func TestGraceCutsHandlersOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	inside := make(chan struct{}, 1)
	cfg := b.config(j)
	cfg.Grace = 50 * time.Millisecond
	cfg.Handle = func(ctx context.Context, _ follow.Delivery) error {
		select {
		case inside <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	b.publish("t.1")
	i := start(t, cfg)
	<-inside
	i.stop(t)
	cfg.Handle = j.handle
	i = start(t, cfg)
	i.caughtUp(t, 1)
	j.mu.Lock()
	defer j.mu.Unlock()
	if a := j.starts[0].Attempt; a != 1 {
		t.Errorf("attempt %d after a cut off, want 1: it was no failure", a)
	}
}
