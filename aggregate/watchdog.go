package aggregate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
)

// errTimeOver ends the context of a handler that takes too long.
var errTimeOver = errors.New("the handler's time is over")

// watchdog gives handlers a time to be done in. A timer for each event would cost
// as much as everything else that the engine does for it, so one goroutine looks
// after all of them, and contexts that did not end are used again.
type watchdog struct {
	limit time.Duration
	log   *slog.Logger

	mu    sync.Mutex
	idle  []*watched
	tasks map[*watched]struct{}
}

// watched is a handler's place.
type watched struct {
	base   context.Context //nolint:containedctx // that of the events it is for
	ctx    context.Context //nolint:containedctx // made of base
	cancel context.CancelCauseFunc

	// The rest is guarded by the watchdog.
	began    time.Time
	subject  string
	sequence uint64
	over     bool // its time was over, and its context has ended
	told     bool // that it went on all the same
}

// watchedContext is a handler's context: it knows its deadline.
type watchedContext struct {
	context.Context //nolint:containedctx // it is one

	deadline time.Time
}

func (c watchedContext) Deadline() (time.Time, bool) { return c.deadline, true }

func newWatchdog(limit time.Duration, log *slog.Logger) *watchdog {
	return &watchdog{limit: limit, log: log, tasks: map[*watched]struct{}{}}
}

// watch looks after the handlers while run runs.
func (w *watchdog) watch(run func() error) error {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(max(w.limit/20, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case now := <-tick.C:
				w.look(now)
			}
		}
	}()
	err := run()
	close(stop)
	<-ended
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.idle {
		t.cancel(nil)
	}
	w.idle = nil
	return err
}

func (w *watchdog) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.tasks {
		age := now.Sub(t.began)
		if age >= w.limit && !t.over {
			t.over = true
			t.cancel(errTimeOver)
		}
		if age >= w.limit+w.limit/10 && !t.told {
			t.told = true
			w.log.Error("a handler ignores the end of its time: its aggregate's events wait for it",
				"subject", t.subject, "sequence", t.sequence, "timeout", w.limit)
		}
	}
}

// take gives a handler a place.
func (w *watchdog) take(ctx context.Context, d *follow.Delivery) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	var t *watched
	for n := len(w.idle); n > 0 && t == nil; n = len(w.idle) {
		if last := w.idle[n-1]; last.base == ctx {
			t = last
		} else {
			last.cancel(nil) // of another time as owner
		}
		w.idle = w.idle[:n-1]
	}
	if t == nil {
		t = &watched{base: ctx}
		t.ctx, t.cancel = context.WithCancelCause(ctx)
	}
	t.began, t.subject, t.sequence = time.Now(), d.Subject, d.Sequence
	w.tasks[t] = struct{}{}
	return t
}

// give takes the place back, and tells whether the time was over.
func (w *watchdog) give(t *watched) (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tasks, t)
	if !t.over {
		w.idle = append(w.idle, t)
	}
	return t.over
}

// bound makes a handler one that is looked after.
func (w *watchdog) bound(
	handle func(context.Context, follow.Delivery) error,
) func(context.Context, follow.Delivery) error {
	return func(ctx context.Context, d follow.Delivery) (err error) {
		t := w.take(ctx, &d)
		defer func() {
			if over := w.give(t); over && err != nil {
				err = fmt.Errorf("%w: it was given %v: %w", errTimeOver, w.limit, err)
			}
		}()
		return handle(watchedContext{t.ctx, t.began.Add(w.limit)}, d) //nolint:contextcheck // t.ctx is made of ctx
	}
}
