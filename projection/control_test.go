package projection_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// waiting is a configuration whose view waits when it has stopped.
func waiting() (projection.UpdaterConfig, *logged) {
	cfg, log := quiet(), &logged{}
	cfg.OnStop, cfg.FoldRetries, cfg.Logger = projection.WaitWhenStopped, -1, slog.New(slog.NewTextHandler(log, nil))
	return cfg, log
}

// status waits until the view's status is as wanted.
func status(t testing.TB, a *projection.Admin, what string, is func(projection.ViewStatus) bool) projection.ViewStatus {
	t.Helper()
	var s projection.ViewStatus
	natstest.Eventually(t, "status is "+what, func() (err error) {
		if s, err = a.Status(t.Context()); err != nil || !is(s) {
			return errors.Join(err, fmt.Errorf("%+v", s))
		}
		return nil
	})
	return s
}

func inState(state projection.State) func(projection.ViewStatus) bool {
	return func(s projection.ViewStatus) bool { return s.State == state }
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 20, 5)
	_, store := f.attach()
	ups := []*running{start(t, f.store, accounts(), quiet()), start(t, store, accounts(), quiet())}
	f.check(m)
	a := admin(t, f, "accounts")
	if err := a.Pause(patient(t), "looking at something"); err != nil {
		t.Fatal(err)
	}
	s := status(t, a, "paused", inState(projection.StatePaused))
	if s.Pause == nil || s.Pause.Reason != "looking at something" || s.Owner != "" {
		t.Errorf("%+v", s)
	}
	at := f.last
	f.feed(m, 20, 5)
	for _, up := range ups {
		natstest.Eventually(t, "the updater is paused", func() error {
			if s := up.Status(); s.State != projection.StatePaused {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	if s := status(t, a, "behind", func(s projection.ViewStatus) bool { return s.Lag == 20 && s.Behind > 0 }); s.Position != at {
		t.Errorf("%+v", s)
	}
	if _, err := reader[account](t, f, "accounts").Position(t.Context()); err != nil {
		t.Error(err)
	}
	if err := a.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	f.check(m)
	status(t, a, "running", inState(projection.StateRunning))
}

// TestStoppedViewWaits: a stopped view says so, everywhere, and keeps the rest of
// its process alive; it goes on when the cause is gone, or the event is skipped.
func TestStoppedViewWaits(t *testing.T) {
	t.Parallel()
	servers(t, stoppedViewWaits)
}

func stoppedViewWaits(t *testing.T, url string, replicas int) {
	boom := errors.New("boom")
	setup := func(t *testing.T, failing *atomic.Bool) (*fixture, *running, *logged, *projection.Admin) {
		t.Helper()
		f := fixtureAt(t, url, replicas)
		f.append("a1", opened{}, credited{Cents: 1})
		f.append("a1", credited{Cents: 2}, credited{Cents: 13}, credited{Cents: 4})
		def := projection.NewKeyed("v",
			projection.OnRow(accountEvents, func(r *projection.Row[account], e credited, _ jetstream.Meta) error {
				if r.Value.Cents += e.Cents; e.Cents == 13 && failing.Load() {
					return boom
				}
				return nil
			}))
		cfg, log := waiting()
		return f, start(t, f.store, def, cfg), log, admin(t, f, "v")
	}
	stopped := func(t *testing.T, up *running, log *logged, a *projection.Admin) projection.ViewStatus {
		t.Helper()
		s := status(t, a, "stopped", func(s projection.ViewStatus) bool { return s.State == projection.StateStopped && s.Failed != nil })
		if s.Failed.Event != "credited" || s.Failed.ID != "a1" || s.Failed.EventID == "" || !strings.Contains(s.Error, "boom") {
			t.Errorf("%+v, %+v", s, s.Failed)
		}
		natstest.Eventually(t, "the updater says so", func() error {
			if s := up.Status(); s.State != projection.StateStopped || !errors.Is(s.Err, boom) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "boom") {
			t.Errorf("log:\n%s", text)
		}
		return s
	}
	value := func(t *testing.T, f *fixture, want int64) {
		t.Helper()
		if e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(f.last)); e.Value.Cents != want {
			t.Errorf("a1 is %+v, wanted %d", e.Value, want)
		}
	}
	t.Run("CauseGone", func(t *testing.T) {
		t.Parallel()
		var failing atomic.Bool
		failing.Store(true)
		f, up, log, a := setup(t, &failing)
		stopped(t, up, log, a)
		failing.Store(false)
		value(t, f, 20) // by itself
	})
	t.Run("Resume", func(t *testing.T) {
		t.Parallel()
		var failing atomic.Bool
		failing.Store(true)
		f, up, log, a := setup(t, &failing)
		stopped(t, up, log, a)
		failing.Store(false)
		if err := a.Resume(patient(t)); err != nil {
			t.Fatal(err)
		}
		value(t, f, 20)
	})
	t.Run("Skip", func(t *testing.T) {
		t.Parallel()
		var failing atomic.Bool
		failing.Store(true)
		f, up, log, a := setup(t, &failing)
		s := stopped(t, up, log, a)
		if err := a.Skip(patient(t), projection.FailedEvent{Sequence: 2, EventID: "x"}, "why"); !errors.Is(err, projection.ErrGeneration) {
			t.Errorf("skip another event: %v", err)
		}
		if err := a.Skip(patient(t), *s.Failed, ""); err == nil {
			t.Error("skipped without a reason")
		}
		if err := a.Skip(patient(t), *s.Failed, "thirteen is bad luck"); err != nil {
			t.Fatal(err)
		}
		value(t, f, 7)
		skips, err := a.Skips(patient(t))
		if err != nil || len(skips) != 1 || skips[0].Reason != "thirteen is bad luck" || skips[0].EventID != s.Failed.EventID {
			t.Errorf("%+v, %v", skips, err)
		}
		status(t, a, "running with one skipped", func(s projection.ViewStatus) bool {
			return s.State == projection.StateRunning && s.Skipped == 1 && s.Failed == nil
		})
		// A rebuilt view leaves it out, too, even if it could be folded now.
		failing.Store(false)
		if _, err := a.Rebuild(patient(t), projection.RebuildOptions{Switch: true}); err != nil {
			t.Fatal(err)
		}
		generation(t, a, 2, "live", live)
		value(t, f, 7)
	})
	t.Run("UnreadableCommit", func(t *testing.T) {
		t.Parallel()
		var failing atomic.Bool
		f, _, _, a := setup(t, &failing)
		bad := natsMsg(f.store.Name()+".event.account.1.zz", "not msgpack", "Rossby-Format", "1", "Rossby-Events", "credited")
		natstest.Retry(t, "store what cannot be read, once", func(ctx context.Context) error {
			_, err := wire.Publish(ctx, f.nc, wire.Expect(bad, 0))
			if wire.Number(err) == wire.CodeWrongLastSequence {
				return nil // An earlier attempt was stored.
			}
			return err
		})
		f.append("a1", credited{Cents: 1})
		s := status(t, a, "stopped", func(s projection.ViewStatus) bool { return s.State == projection.StateStopped && s.Failed != nil })
		if err := a.Skip(patient(t), *s.Failed, "garbage"); err != nil {
			t.Fatal(err)
		}
		value(t, f, 21)
	})
}

// TestFoldTimeout: a fold that does not come back stops the view, or is left out.
func TestFoldTimeout(t *testing.T) {
	t.Parallel()
	servers(t, foldTimeout)
}

func foldTimeout(t *testing.T, url string, replicas int) {
	hanging := func(t *testing.T, timeout time.Duration, policy projection.ErrorPolicy) (*fixture, *running) {
		t.Helper()
		f := fixtureAt(t, url, replicas)
		f.append("a1", credited{Cents: 1}, credited{Cents: 13})
		f.append("a2", credited{Cents: 2})
		release := make(chan struct{})
		ended := make(chan struct{})
		end := sync.OnceFunc(func() { close(ended) })
		t.Cleanup(func() { close(release); <-ended })
		def := projection.NewKeyed("v", projection.On(accountEvents, func(a *account, e credited, _ jetstream.Meta) {
			if e.Cents == 13 {
				defer end()
				<-release
			}
			a.Cents += e.Cents
		}))
		cfg := quiet()
		cfg.FoldTimeout, cfg.FoldRetries, cfg.OnError = timeout, -1, policy
		return f, start(t, f.store, def, cfg)
	}
	t.Run("Stop", func(t *testing.T) {
		t.Parallel()
		_, up := hanging(t, 200*time.Millisecond, projection.StopOnError)
		err := up.wait()
		var fold *projection.FoldError
		if !errors.Is(err, projection.ErrFoldTimeout) || !errors.As(err, &fold) || fold.ID != "a1" || fold.EventID == "" || fold.Sequence != 2 {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("Skip", func(t *testing.T) {
		t.Parallel()
		for timeout := 200 * time.Millisecond; ; timeout *= 4 {
			f, _ := hanging(t, timeout, projection.SkipOnError)
			e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(f.last))
			if readStatus(t, f, "v").Skipped > 1 && timeout < natstest.Patience {
				continue // The machine stood still in the fold of another event.
			}
			if e.Value.Cents != 1 {
				t.Errorf("a1 is %+v", e)
			}
			return
		}
	})
}

// TestBucketFull: the status says why nothing is stored, and it goes on when there
// is room again.
func TestBucketFull(t *testing.T) {
	t.Parallel()
	everywhere(t, bucketFull)
}

func bucketFull(t *testing.T, f *fixture) {
	m := model{}
	f.feed(m, 30, 10)
	cfg, _ := waiting()
	up := start(t, f.store, accounts(), cfg)
	f.check(m)
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	limit := func(n int64) {
		t.Helper()
		natstest.Retry(t, "change the bucket", func(ctx context.Context) error {
			s, err := js.Stream(ctx, "KV_"+f.store.Name()+"_accounts")
			if err != nil {
				return err
			}
			c := s.CachedInfo().Config
			c.MaxBytes = n
			_, err = js.UpdateStream(ctx, c)
			return err
		})
	}
	limit(1)
	f.feed(m, 30, 30)
	natstest.Eventually(t, "the updater says why", func() error {
		if s := up.Status(); !errors.Is(s.Err, projection.ErrNotTaken) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	limit(-1)
	f.check(m)
	natstest.Eventually(t, "all is well", func() error {
		if s := up.Status(); s.Err != nil || s.State != projection.StateRunning {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// deleteBucket deletes a view's bucket.
func (f *fixture) deleteBucket(view string) {
	f.t.Helper()
	js, err := natsjs.New(f.nc)
	if err != nil {
		f.t.Fatal(err)
	}
	natstest.Retry(f.t, "delete the bucket", func(ctx context.Context) error {
		err := js.DeleteStream(ctx, "KV_"+f.store.Name()+"_"+view)
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			return nil // An earlier attempt came through.
		}
		return err
	})
}

// TestBucketDeleted: the view stops with a name, and is built anew.
func TestBucketDeleted(t *testing.T) {
	t.Parallel()
	everywhere(t, bucketDeleted)
}

func bucketDeleted(t *testing.T, f *fixture) {
	m := model{}
	f.feed(m, 50, 10)
	cfg, log := waiting()
	start(t, f.store, accounts(), cfg)
	f.check(m)
	f.deleteBucket("accounts")
	f.feed(m, 50, 10)
	natstest.Eventually(t, "the view is there again", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
		defer cancel()
		r, err := projection.NewReader[account](ctx, f.nc, f.store.Name(), "accounts", projection.ReaderConfig{OpenWait: natstest.Patience})
		if err == nil {
			_, err = r.Position(ctx, projection.AtLeast(f.last))
		}
		return err
	})
	f.check(m)
	if !strings.Contains(log.String(), projection.ErrBucket.Error()) {
		t.Errorf("log:\n%s", log)
	}
}

// TestConsumerDeleted: somebody deletes the view's consumer again and again, and
// makes another one of its name: nothing is lost, doubled, or in the way.
func TestConsumerDeleted(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		m := model{}
		up := start(t, f.store, accounts(), quiet())
		f.feed(m, 30, 8)
		f.check(m)
		js, err := natsjs.New(f.nc)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 4 {
			natstest.Retry(t, "delete the consumer", func(ctx context.Context) error {
				err := js.DeleteConsumer(ctx, f.store.Name(), "accounts")
				if errors.Is(err, natsjs.ErrConsumerNotFound) {
					return nil
				}
				return err
			})
			f.feed(m, 10, 8)
			if n%2 == 1 { // It may have been made again, which refuses this one.
				// What is asked while there is no leader is not answered.
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				_, err := js.CreateConsumer(ctx, f.store.Name(), natsjs.ConsumerConfig{
					Durable: "accounts", AckPolicy: natsjs.AckExplicitPolicy, DeliverPolicy: natsjs.DeliverNewPolicy,
				})
				cancel()
				t.Logf("another consumer: %v", err)
			}
			f.check(m)
		}
		natstest.Eventually(t, "all is well", func() error {
			if s := up.Status(); s.Err != nil || s.State != projection.StateRunning || !s.CaughtUp {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	})
}
