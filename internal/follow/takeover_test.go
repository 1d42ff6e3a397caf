package follow_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
)

func TestStandbyTakesOverFromAGracefulStop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.TTL = time.Hour // so that only the hint can be in time
	first := start(t, cfg).active(t)
	cfg.Conn = b.connect()
	second := start(t, cfg)
	b.publishLanes(10, 10)
	first.caughtUp(t, 100)
	until(t, "the second sees the owner", func() bool { return second.Status().Owner == first.Status().Owner })
	if s := second.Status().State; s != follow.StateStandby {
		t.Errorf("the second is %s", s)
	}
	first.stop(t)
	second.active(t)
	b.publishLanes(10, 10)
	second.caughtUp(t, 200)
	if j.count() != 200 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
}

func TestCrashRepeatsAtMostK(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const k, events = 32, 2000
	b.publishMany(20, events/20)
	j := newJournal(t)
	reached := make(chan struct{})
	var once sync.Once
	j.gate = func(context.Context, follow.Delivery) {
		if j.count() > events/4 {
			once.Do(func() { close(reached) })
		}
	}
	cfg := b.config(j)
	cfg.MaxUnrecorded, cfg.TTL = k, leaseShort
	dying := b.connect()
	cfg.Conn = dying
	first := start(t, cfg)
	<-reached
	shut(dying)
	cfg.Conn = b.nc
	second := start(t, cfg).active(t)
	if err := first.wait(t); err == nil {
		t.Error("a follower without a connection ended without an error")
	}
	second.caughtUp(t, events)
	// A slow machine may lose a lease more than once.
	lost := int(second.Status().Epoch) - 1
	t.Logf("repeated %d, with %d owners after the first", j.repeated(), lost)
	if j.count() != events || lost < 1 || j.repeated() > lost*k {
		t.Errorf("%d done, %d repeated; want %d and at most %d", j.count(), j.repeated(), events, lost*k)
	}
	j.ordered()
}

func TestLostLeaseCancelsHandlersAndStartsNoMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	inside := make(chan struct{}, 1)
	cfg := b.config(j)
	dying := b.connect()
	// The lease is over long before the handler's grace is.
	cfg.Conn, cfg.TTL, cfg.Grace = dying, leaseShort, time.Hour
	var calls, cut atomic.Int64
	cfg.Handle = func(ctx context.Context, _ follow.Delivery) error {
		calls.Add(1)
		select {
		case inside <- struct{}{}:
		default:
		}
		<-ctx.Done()
		cut.Add(1)
		return nil
	}
	b.publish("t.1")
	first := start(t, cfg)
	<-inside
	shut(dying)
	before := calls.Load()
	if err := first.wait(t); err == nil {
		t.Error("no error")
	}
	if calls.Load() != before || cut.Load() != before {
		t.Errorf("%d calls, %d of them cut off, %d before the connection was lost", calls.Load(), cut.Load(), before)
	}
}

func TestRestartContinuesFromTheRecord(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	var starts atomic.Int64
	cfg.Start = func(context.Context) (uint64, error) {
		if starts.Add(1) == 1 {
			return 0, errTest // asked again
		}
		return 10, nil
	}
	b.publishLanes(10, 10)
	var asked int64
	for n := range 5 {
		i := start(t, cfg)
		i.active(t)
		if n == 0 {
			asked = starts.Load()
		}
		b.publishLanes(10, 1)
		i.stop(t)
	}
	i := start(t, cfg)
	i.caughtUp(t, 150)
	if j.count() != 140 || j.repeated() != 0 || asked < 2 || starts.Load() != asked {
		t.Errorf("%d done, %d repeated, Start asked %d times, then %d", j.count(), j.repeated(), asked, starts.Load())
	}
	if i.Status().Epoch != 6 {
		t.Errorf("epoch %d", i.Status().Epoch)
	}
	j.ordered()
}

func TestHigherVersionTakesOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	b.publishLanes(10, 10)
	old := start(t, cfg)
	old.caughtUp(t, 100)
	cfg.Version, cfg.Definition, cfg.Conn = 2, "other", b.connect()
	young := start(t, cfg)
	// The old one sees it when it next has something to record.
	events := 100
	for ended := false; !ended; {
		b.publish("t.1")
		events++
		select {
		case <-old.done:
			ended = true
		default:
		}
	}
	if err := old.wait(t); !isErr(err, follow.ErrNewerVersion) {
		t.Errorf("the old one ended with %v", err)
	}
	young.active(t)
	b.publishLanes(10, 10)
	events += 100
	young.caughtUp(t, uint64(events))
	if j.count() != events || j.repeated() != 0 {
		t.Errorf("%d of %d done, %d repeated", j.count(), events, j.repeated())
	}
	cfg.Version, cfg.Definition = 1, "d"
	if err := start(t, cfg).wait(t); !isErr(err, follow.ErrNewerVersion) {
		t.Errorf("an old one started with %v", err)
	}
	young.stop(t)
	if s := b.status(); s.Version != 2 || s.Definition != "other" {
		t.Errorf("%+v", s)
	}
}
