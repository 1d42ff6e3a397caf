package follow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// tenure is the time during which this instance owns the record.
type tenure struct {
	f     *Follower
	cfg   *Config
	place place
	epoch uint64

	// ctx ends the reading, handlers the running handlers.
	ctx            context.Context //nolint:containedctx // a tenure is what the context spans
	cancel         context.CancelFunc
	handlers       context.Context //nolint:containedctx // likewise
	cancelHandlers context.CancelFunc

	// over is closed when the tenure must end: lease lost, superseded, or an
	// error that waiting does not mend.
	over chan struct{}
	// gone is closed when the tenure has ended.
	gone chan struct{}
	// flushNow wakes the flusher, roomNow the reader, dueNow and tellNow wakeDue.
	flushNow, roomNow, dueNow, tellNow chan struct{}
	// rereads bounds the reads of lanes under way.
	rereads chan struct{}
	// replayNow wakes the replayer.
	replayNow chan struct{}

	workers sync.WaitGroup

	mu    sync.Mutex
	work  *sync.Cond // a worker may find something to do
	table *table
	idle  int // workers that wait
	// unrecorded counts events that run, or are done and not in the record;
	// finished those of them that are done.
	unrecorded, finished int
	readerWaits          bool
	running              int // handlers
	changes              []change
	draining             bool
	// lost is set once the record is not ours any more.
	lost   bool
	endErr error

	head record // what the record says beside position and lanes
	rev  uint64
	// startUntil is the end of the lease less the margin: no handler starts
	// later.
	startUntil time.Time
	lastPut    time.Time

	cursor cursorState
}

// cursorState is what the reader last heard.
type cursorState struct {
	head, pending uint64
	known         bool
	lastTime      time.Time
	full          bool
}

func newTenure(ctx context.Context, f *Follower, r record, rev uint64, sent time.Time) *tenure {
	t := &tenure{
		f: f, cfg: &f.cfg, place: f.place, epoch: r.Epoch,
		over: make(chan struct{}), gone: make(chan struct{}), flushNow: make(chan struct{}, 1),
		roomNow: make(chan struct{}, 1), dueNow: make(chan struct{}, 1),
		tellNow: make(chan struct{}, 1), replayNow: make(chan struct{}, 1),
		rereads: make(chan struct{}, rereadsMax),
		table:   newTable(f.cfg.Window, r, time.Now()), head: r, rev: rev,
		startUntil: sent.Add(f.cfg.TTL - f.cfg.margin()), lastPut: sent,
	}
	t.head.Lanes = nil
	t.work = sync.NewCond(&t.mu)
	// The end of Run's context begins the drain; it must not cut handlers off.
	base := context.WithoutCancel(ctx)
	t.ctx, t.cancel = context.WithCancel(base)
	t.handlers, t.cancelHandlers = context.WithCancel(base)
	return t
}

// end makes the tenure end because of err; the first call decides.
func (t *tenure) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(err)
}

func (t *tenure) endLocked(err error) {
	if t.endErr == nil {
		t.endErr = err
		close(t.over)
	}
	if errors.Is(err, errLost) || errors.Is(err, ErrRecordVanished) {
		t.lost = true
		t.cancelHandlers()
	}
	t.draining = true
	t.work.Broadcast()
}

// ended returns why the tenure ended by itself, and whether the record is lost.
func (t *tenure) ended() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost, t.endErr
}

func (t *tenure) drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	t.work.Broadcast()
}

// wakeWorkers is called with the mutex held.
func (t *tenure) wakeWorkers(n int) {
	for range min(n, t.idle) {
		t.work.Signal()
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run owns the record until ctx ends or the tenure does. It returns nil when
// the follower should stand by again or ctx ended, else the final error.
func (t *tenure) run(ctx context.Context) error {
	defer close(t.gone)
	var helpers sync.WaitGroup
	for range t.cfg.Concurrency {
		t.workers.Go(t.worker)
	}
	helpers.Go(t.read)
	helpers.Go(t.wakeDue)
	t.workers.Go(t.replayer) // it runs handlers, too
	stopFlush := make(chan struct{})
	flusherDone := make(chan struct{})
	go func() { //nolint:contextcheck // a drain has to record too
		defer close(flusherDone)
		t.flusher(stopFlush)
	}()

	select {
	case <-ctx.Done():
	case <-t.over:
	}
	t.drain()
	t.cancel()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		t.workers.Wait()
	}()
	t.await(ctx, idle)
	close(stopFlush)
	<-flusherDone
	helpers.Wait()

	lost, err := t.ended()
	if !lost {
		t.free() //nolint:contextcheck // likewise
	}
	t.cancelHandlers()
	if errors.Is(err, errLost) {
		t.cfg.Logger.Warn("owner no more", "epoch", t.epoch, "error", err)
		return nil
	}
	return err
}

// await waits for the handlers: for the grace, then for as long again with
// their context cancelled. Without a stop from outside it waits on, because this
// process may own the record again and must not run a lane twice at once.
func (t *tenure) await(ctx context.Context, idle <-chan struct{}) {
	grace := time.NewTimer(t.cfg.Grace)
	defer grace.Stop()
	select {
	case <-idle:
		return
	case <-t.handlers.Done():
	case <-grace.C:
		t.cfg.Logger.Warn("handlers still run after the grace: cancelling them", "grace", t.cfg.Grace)
		t.cancelHandlers()
	}
	stopping := ctx.Done()
	limit := time.NewTimer(t.cfg.Grace)
	defer limit.Stop()
	limit.Stop()
	remind := time.NewTicker(max(t.cfg.Grace, time.Second))
	defer remind.Stop()
	for {
		select {
		case <-idle:
			return
		case <-stopping:
			stopping = nil
			limit.Reset(t.cfg.Grace)
		case <-limit.C:
			t.cfg.Logger.Error("handlers ignore their context: leaving them behind; their events will run again")
			return
		case <-remind.C:
			t.cfg.Logger.Error("handlers ignore their cancelled context")
		}
	}
}

// lostf is the quiet end of a tenure.
func lostf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errLost, fmt.Sprintf(format, args...))
}
