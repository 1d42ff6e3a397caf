package follow_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/follow"
)

func isErr(err, target error) bool { return errors.Is(err, target) }

func TestSkipEventVerdict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	j.fail = func(d follow.Delivery) error {
		if d.Sequence == 5 {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(f follow.Failure) follow.Verdict {
		if f.Attempt < 5 {
			return follow.Verdict{After: time.Millisecond}
		}
		return follow.Verdict{Action: follow.SkipEvent}
	}
	b.publishLanes(2, 10)
	i := start(t, cfg)
	i.caughtUp(t, 20)
	if j.count() != 19 {
		t.Errorf("%d done", j.count())
	}
	j.ordered()
}

func TestParkAndResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var mended atomic.Bool
	j.fail = func(d follow.Delivery) error {
		if d.Subject == "t.1" && !mended.Load() {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Park} }
	states := make(chan follow.Status, 64)
	cfg.OnState = func(s follow.Status) {
		select {
		case states <- s:
		default: // it must not block
		}
	}
	b.publishLanes(3, 50)
	i := start(t, cfg)
	until(t, "the parked lane is told", func() bool {
		select {
		case s := <-states:
			return len(s.Blocked) == 1 && s.Blocked[0].Parked
		default:
			return false
		}
	})
	until(t, "the others are done", func() bool { return j.count() == 100 })
	i.stop(t)
	if err := i.Resume(t.Context(), "t.1"); !isErr(err, follow.ErrNotOwner) {
		t.Errorf("resume on a stopped one: %v", err)
	}

	// It stays parked over a restart.
	i = start(t, cfg).active(t)
	b.publishLanes(3, 50)
	until(t, "the others are done", func() bool { return j.count() == 200 })
	if s := i.Status(); len(s.Blocked) != 1 || !s.Blocked[0].Parked ||
		s.Blocked[0].Error != errTest.Error() || s.Blocked[0].Attempts != 1 {
		t.Errorf("status %+v", s)
	}
	if err := i.Resume(t.Context(), "t.2"); !isErr(err, follow.ErrNoLane) {
		t.Errorf("resume of a free lane: %v", err)
	}
	mended.Store(true)
	if err := i.Resume(t.Context(), "t.1"); err != nil {
		t.Error(err)
	}
	i.caughtUp(t, 300)
	if j.count() != 300 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
}

// What a person resumed is resumed for the next owner, too, when this one dies at once.
func TestResumeOutlivesTheOwner(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		resumeOutlivesTheOwner(t, setup(t))
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		resumeOutlivesTheOwner(t, newBench(t, cluster(t), 3))
	})
}

func resumeOutlivesTheOwner(t *testing.T, b *bench) {
	t.Helper()
	j := newJournal(t)
	var mended atomic.Bool
	j.fail = func(follow.Delivery) error {
		if !mended.Load() {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.TTL = leaseShort
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Park} }
	// The dying owner does not get to try again.
	hold := make(chan struct{})
	dying := cfg
	dying.Conn = b.connect()
	handle := dying.Handle
	dying.Handle = func(ctx context.Context, d follow.Delivery) error {
		if mended.Load() {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return errTest
		}
		return handle(ctx, d)
	}
	b.publishLanes(1, 1)
	first := start(t, dying)
	until(t, "it is parked, and recorded so", func() bool {
		s := b.status()
		return len(s.Blocked) == 1 && s.Blocked[0].Parked
	})
	mended.Store(true)
	until(t, "it is resumed", func() bool { return first.Resume(t.Context(), "") == nil })
	shut(dying.Conn)
	close(hold)
	second := start(t, cfg)
	_ = first.wait(t)
	second.caughtUp(t, 1)
	if j.count() != 1 {
		t.Errorf("%d done", j.count())
	}
}

func TestStopVerdict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	var failed atomic.Bool
	j.fail = func(d follow.Delivery) error {
		if d.Sequence == 50 && failed.CompareAndSwap(false, true) {
			return errTest
		}
		return nil
	}
	cfg := b.config(j)
	cfg.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Stop} }
	b.publishLanes(5, 20)
	i := start(t, cfg)
	if err := i.wait(t); !isErr(err, follow.ErrStopped) || !isErr(err, errTest) {
		t.Errorf("ended with %v", err)
	}
	if s := i.Status(); s.State != follow.StateStopped || s.LastError == nil {
		t.Errorf("status %+v", s)
	}
	start(t, cfg).caughtUp(t, 100)
	if j.count() != 100 || j.repeated() != 0 {
		t.Errorf("%d done, %d repeated", j.count(), j.repeated())
	}
	j.ordered()
}

func TestWaitingDoesNotMend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, b *bench, cfg *follow.Config)
		want   error
	}{
		{"OtherDefinition", func(_ *testing.T, _ *bench, cfg *follow.Config) {
			cfg.Definition = "x"
		}, follow.ErrOtherDefinition},
		{"OtherStore", func(_ *testing.T, _ *bench, cfg *follow.Config) { cfg.StoreID = "x" }, follow.ErrOtherStore},
		{"LowerVersion", func(_ *testing.T, _ *bench, cfg *follow.Config) { cfg.Version = 0 }, follow.ErrNewerVersion},
		{"RecordVanished", func(t *testing.T, b *bench, _ *follow.Config) {
			t.Helper()
			kv, err := b.js.KeyValue(t.Context(), b.bucket)
			if err != nil {
				t.Fatal(err)
			}
			if err := kv.Delete(t.Context(), "f"); err != nil {
				t.Fatal(err)
			}
		}, follow.ErrRecordVanished},
		{"BucketVanished", func(t *testing.T, b *bench, _ *follow.Config) {
			t.Helper()
			if err := b.js.DeleteKeyValue(t.Context(), b.bucket); err != nil {
				t.Fatal(err)
			}
		}, follow.ErrRecordVanished},
		{"BeyondHead", func(t *testing.T, b *bench, _ *follow.Config) {
			t.Helper()
			if err := b.js.DeleteStream(t.Context(), b.stream); err != nil {
				t.Fatal(err)
			}
			b.makeStream(1)
		}, follow.ErrBeyondHead},
		{"NoStream", func(t *testing.T, b *bench, _ *follow.Config) {
			t.Helper()
			if err := b.js.DeleteStream(t.Context(), b.stream); err != nil {
				t.Fatal(err)
			}
		}, follow.ErrNoStream},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			cfg := b.config(newJournal(t))
			cfg.TTL = leaseShort
			b.publishLanes(2, 2)
			i := start(t, cfg)
			i.caughtUp(t, 4)
			i.stop(t)
			c.change(t, b, &cfg)
			if err := start(t, cfg).wait(t); !isErr(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
		})
	}
}

func TestRecordVanishesUnderTheOwner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config(newJournal(t))
	cfg.TTL = leaseShort // an owner looks as often as it renews its lease
	i := start(t, cfg)
	b.publishLanes(2, 2)
	i.caughtUp(t, 4)
	kv, err := b.js.KeyValue(t.Context(), b.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if err := i.wait(t); !isErr(err, follow.ErrRecordVanished) {
		t.Errorf("ended with %v", err)
	}
	// Without the consumer too it is a fresh start.
	if err := b.js.DeleteConsumer(t.Context(), b.stream, "f"); err != nil {
		t.Fatal(err)
	}
	start(t, b.config(newJournal(t))).caughtUp(t, 4)
}

func TestMissingEventIsAFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	j.fail = func(follow.Delivery) error { return errTest }
	cfg := b.config(j)
	cfg.Decide = func(f follow.Failure) follow.Verdict {
		if errors.Is(f.Err, follow.ErrEventMissing) {
			return follow.Verdict{Action: follow.SkipEvent}
		}
		return follow.Verdict{After: time.Millisecond}
	}
	b.publish("t.1")
	i := start(t, cfg)
	until(t, "it failed", func() bool { return len(i.Status().Blocked) == 1 })
	st, err := b.js.Stream(t.Context(), b.stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.DeleteMsg(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	i.caughtUp(t, 1)
}

func TestReadStatusOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f"); !isErr(err, follow.ErrNoRecord) {
		t.Errorf("got %v", err)
	}
	if _, err := b.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: b.bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := follow.ReadStatus(t.Context(), b.nc, b.stream, b.bucket, "f"); !isErr(err, follow.ErrNoRecord) {
		t.Errorf("got %v", err)
	}
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	i := start(t, b.config(newJournal(t))).active(t)
	if err := i.Run(t.Context()); !isErr(err, follow.ErrRunning) {
		t.Errorf("got %v", err)
	}
}

func TestConfigValidateNamesEveryField(t *testing.T) {
	t.Parallel()
	_, err := follow.New(follow.Config{
		Stream: "a.b", Bucket: "a b", Name: "a.b", Filter: "a..b", Version: -1, TTL: time.Millisecond,
		FlushEvery: time.Hour, Grace: -1, MaxUnrecorded: -2, Concurrency: -3, Window: -4, MaxLanes: -5,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"Conn", `Stream "a.b"`, `Bucket "a b"`, `Name "a.b"`, `Filter "a..b"`,
		"Version -1", `TTL "1ms"`, `FlushEvery "1h0m0s"`,
		`Grace "-1ns"`, "MaxUnrecorded -2", "Concurrency -3", "Window -4", "MaxLanes -5", "Start", "Handle",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	good := follow.Config{Start: func(context.Context) (uint64, error) { return 0, nil }}
	if err := good.Validate(); err == nil || strings.Contains(err.Error(), "Start") {
		t.Errorf("got %v", err)
	}
}

func TestPanicsOfTheOtherFunctions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Skip = func(*wireMessage) bool { panic("test") }
	b.publishLanes(2, 2)
	if err := start(t, cfg).wait(t); !isErr(err, follow.ErrPanic) {
		t.Errorf("Skip: ended with %v", err)
	}
	cfg.Skip = nil
	var mended atomic.Bool
	j.fail = func(follow.Delivery) error {
		if !mended.Load() {
			return errTest
		}
		return nil
	}
	cfg.Decide = func(follow.Failure) follow.Verdict { panic("test") }
	i := start(t, cfg)
	until(t, "the panic of Decide is told, and what failed", func() bool {
		err := i.Status().LastError
		return isErr(err, follow.ErrPanic) && isErr(err, errTest)
	})
	mended.Store(true)
	i.caughtUp(t, 4)
	cfg.Name = "g"
	cfg.Start = func(context.Context) (uint64, error) { panic("test") }
	if err := start(t, cfg).wait(t); !isErr(err, follow.ErrPanic) {
		t.Errorf("Start: ended with %v", err)
	}
	cfg.Start = func(context.Context) (uint64, error) { return 5, nil }
	if err := start(t, cfg).wait(t); !isErr(err, follow.ErrBeyondHead) {
		t.Errorf("Start beyond the head: ended with %v", err)
	}
}
