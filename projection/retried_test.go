package projection_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// retried is a fold that fails at the amount 13; armed, it waits at its next try until
// it is let go.
type retried struct {
	armed   atomic.Bool
	entered chan struct{}
	release chan struct{}
}

func newRetried() *retried {
	return &retried{entered: make(chan struct{}, 1), release: make(chan struct{})}
}

func (r *retried) fail(e credited) error {
	if e.Cents != 13 {
		return nil
	}
	r.wait()
	return errors.New("thirteen")
}

func (r *retried) wait() {
	if !r.armed.Load() {
		return
	}
	select {
	case r.entered <- struct{}{}:
	default:
	}
	<-r.release
}

// administered is what both kinds of admin do here.
type administered struct {
	status func() (projection.ViewStatus, error)
	skip   func(projection.FailedEvent) error
}

// triedAgain skips the event that a view has stopped at while it is tried again.
func (r *retried) triedAgain(t *testing.T, a administered) {
	t.Helper()
	var stopped projection.ViewStatus
	natstest.Eventually(t, "the view has stopped", func() (err error) {
		if stopped, err = a.status(); err == nil && (stopped.State != projection.StateStopped || stopped.Failed == nil) {
			err = fmt.Errorf("%+v", stopped)
		}
		return err
	})
	r.armed.Store(true)
	<-r.entered
	var s projection.ViewStatus
	natstest.Eventually(t, "read the status", func() (err error) {
		s, err = a.status()
		return err
	})
	if s.State != projection.StateRunning || s.Failed == nil || *s.Failed != *stopped.Failed || s.Error == "" {
		t.Errorf("while it is tried again: %+v", s)
	}
	err := a.skip(*stopped.Failed)
	close(r.release)
	if err != nil {
		t.Fatalf("skipped while it is tried again: %v", err)
	}
	natstest.Eventually(t, "the view is past the event", func() error {
		s, err := a.status()
		if err == nil && (s.Lag != 0 || s.Failed != nil || s.Error != "" || s.Skipped != 1) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}

// TestSkipWhileTriedAgain: a stopped view tries its event again from time to time.
// Meanwhile it still says which one it is, and lets people skip it.
func TestSkipWhileTriedAgain(t *testing.T) {
	t.Parallel()
	t.Run("View", func(t *testing.T) {
		t.Parallel()
		f, r := newFixture(t), newRetried()
		f.append("a1", credited{Cents: 1})
		f.append("a1", credited{Cents: 13})
		def := projection.NewKeyed("v",
			projection.OnRow(accountEvents, func(row *projection.Row[account], e credited, _ jetstream.Meta) error {
				row.Value.Cents += e.Cents
				return r.fail(e)
			}))
		cfg, _ := waiting()
		cfg.FoldTimeout = natstest.Patience
		start(t, f.store, def, cfg)
		a := admin(t, f, "v")
		r.triedAgain(t, administered{
			status: func() (projection.ViewStatus, error) { return a.Status(t.Context()) },
			skip:   func(e projection.FailedEvent) error { return a.Skip(patient(t), e, "a test") },
		})
	})
	t.Run("Sink", func(t *testing.T) {
		t.Parallel()
		f, r, m := newFixture(t), newRetried(), newMemory()
		f.append("a1", credited{Cents: 1})
		f.append("a1", credited{Cents: 13})
		cfg := quietSink()
		cfg.OnStop, cfg.FoldRetries, cfg.FoldTimeout = projection.WaitWhenStopped, -1, natstest.Patience
		up, err := projection.NewSinkUpdater(f.store, sinkFailing(func(e credited) error {
			if e.Cents == 13 {
				return errors.New("thirteen")
			}
			return nil
		}), m, cfg)
		if err != nil {
			t.Fatal(err)
		}
		// A handler that waits would keep the sink from being told.
		projection.SinkSteps(up, func(step string) {
			if step == "read" {
				r.wait()
			}
		})
		launchSink(t, up)
		a := sinkAdmin(t, f, m)
		r.triedAgain(t, administered{
			status: func() (projection.ViewStatus, error) { return a.Status(t.Context()) },
			skip:   func(e projection.FailedEvent) error { return a.Skip(patient(t), e, "a test") },
		})
	})
}
