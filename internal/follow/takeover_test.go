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
	cfg.TTL = 20 * time.Second // so that only the hint can be fast
	first := start(t, cfg).active(t)
	cfg.Conn = b.connect()
	second := start(t, cfg)
	b.publishLanes(10, 10)
	first.caughtUp(t, 100)
	until(t, "the second sees the owner", func() bool { return second.Status().Owner == first.Status().Owner })
	if s := second.Status().State; s != follow.StateStandby {
		t.Errorf("the second is %s", s)
	}
	begin := time.Now()
	first.stop(t)
	second.active(t)
	if d := time.Since(begin); d > time.Second {
		t.Errorf("took over after %v", d)
	}
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
	for l := range events {
		b.publish("t." + string(rune('a'+l%20)))
	}
	j := newJournal(t)
	reached := make(chan struct{})
	var once sync.Once
	j.gate = func(context.Context, follow.Delivery) {
		if j.count() > events/4 {
			once.Do(func() { close(reached) })
		}
	}
	cfg := b.config(j)
	cfg.MaxUnrecorded = k
	dying := b.connect()
	cfg.Conn = dying
	first := start(t, cfg)
	<-reached
	shut(dying)
	cfg.Conn = b.nc
	second := start(t, cfg)
	begin := time.Now()
	second.active(t)
	if d := time.Since(begin); d > 2*cfg.TTL {
		t.Errorf("took over after %v", d)
	}
	if err := first.wait(t); err == nil {
		t.Error("a follower without a connection ended without an error")
	}
	second.caughtUp(t, events)
	t.Logf("repeated %d", j.repeated())
	if j.count() != events || j.repeated() > k {
		t.Errorf("%d done, %d repeated; want %d and at most %d", j.count(), j.repeated(), events, k)
	}
	j.ordered()
}

func TestLostLeaseCancelsHandlersAndStartsNoMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cut := make(chan struct{})
	inside := make(chan struct{})
	cfg := b.config(j)
	dying := b.connect()
	cfg.Conn = dying
	var calls atomic.Int64
	cfg.Handle = func(ctx context.Context, _ follow.Delivery) error {
		calls.Add(1)
		close(inside)
		<-ctx.Done()
		close(cut)
		return nil
	}
	b.publish("t.1")
	first := start(t, cfg)
	<-inside
	shut(dying)
	select {
	case <-cut:
	case <-time.After(2 * cfg.TTL):
		t.Error("the handler was not cut off")
	}
	if err := first.wait(t); err == nil {
		t.Error("no error")
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
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
	for range 5 {
		i := start(t, cfg)
		i.active(t)
		b.publishLanes(10, 1)
		i.stop(t)
	}
	i := start(t, cfg)
	i.caughtUp(t, 150)
	if j.count() != 140 || j.repeated() != 0 || starts.Load() != 2 {
		t.Errorf("%d done, %d repeated, Start asked %d times", j.count(), j.repeated(), starts.Load())
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
	if err := old.wait(t); !isErr(err, follow.ErrNewerVersion) {
		t.Errorf("the old one ended with %v", err)
	}
	young.active(t)
	b.publishLanes(10, 10)
	young.caughtUp(t, 200)
	if j.count() != 200 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	cfg.Version, cfg.Definition = 1, "d"
	if err := start(t, cfg).wait(t); !isErr(err, follow.ErrNewerVersion) {
		t.Errorf("an old one started with %v", err)
	}
	young.stop(t)
	s, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f")
	if err != nil || s.Version != 2 || s.Definition != "other" {
		t.Errorf("%+v, %v", s, err)
	}
}
