package projection

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"

	"github.com/rossby-go/rossby/jetstream"
)

// SinkUpdater follows the events of a store and keeps a view in a [Sink], each
// event exactly once. Of several updaters of one view one is the owner, the
// others stand by.
type SinkUpdater struct {
	*source

	cfg UpdaterConfig
	board

	sink    anySink
	name    string
	prepare func(ctx context.Context, tx any) error

	// step, when set, is told what was done just now: tests crash there.
	step func(string)

	running  atomic.Bool
	position atomic.Uint64
	read     atomic.Uint64
	pending  atomic.Uint64
}

// NewSinkUpdater prepares the updater of a view that is kept in a sink. Nothing
// happens until [SinkUpdater.Run]. Returns the mistakes of definition and
// configuration, joined.
func NewSinkUpdater[T any](
	store *jetstream.Store, def *SinkDefinition[T], sink Sink[T], cfg SinkConfig,
) (*SinkUpdater, error) {
	if store == nil || def == nil || sink == nil {
		return nil, errors.New("projection: an updater needs a store, a definition and a sink")
	}
	c := def.core
	if err := errors.Join(c.err, cfg.Validate()); err != nil {
		return nil, err
	}
	own := cfg.updater().withDefaults()
	src, err := newSource(store, c, &own)
	if err != nil {
		return nil, err
	}
	u := &SinkUpdater{
		source: src, cfg: own, sink: sinkOf[T]{sink}, name: SinkName(store.Name(), c.view),
		prepare: func(ctx context.Context, tx any) error {
			t, _ := tx.(T)
			return def.prepare(ctx, t)
		},
		board: board{status: Status{View: c.view, State: StateStarting}},
	}
	u.log = u.cfg.Logger.With("store", store.Name(), "view", c.view)
	return u, nil
}

// Status tells what the updater is doing. There are no generations.
func (u *SinkUpdater) Status() Status {
	u.mu.Lock()
	s := u.status
	u.mu.Unlock()
	pos, read := u.position.Load(), u.read.Load()
	s.Position = u.store.Position(pos)
	if read > pos {
		s.Lag = read - pos
	}
	s.Lag += u.pending.Load()
	s.CaughtUp = s.Lag == 0 && pos > 0 && s.State == StateRunning
	return s
}

func (u *SinkUpdater) trouble(err error) { u.set(func(s *Status) { s.Err = err }) }

// done tells the tests about a step.
func (u *SinkUpdater) done(step string) {
	if u.step != nil {
		u.step(step)
	}
}

// Run keeps the view until ctx ends, which returns nil after the view was given
// free for the next instance. Faults of the network and of the database that may
// pass are waited out, and are in the status meanwhile. When the view must stop,
// [SinkConfig.OnStop] says whether Run waits, trying again from time to time and
// on [SinkAdmin.Resume], or returns:
//
//   - [*StoppedError], when an event cannot be folded ([*FoldError]) or the store
//     was restored ([ErrStoreRestored]): a person must look;
//   - [ErrSink], when the database does not do what the view needs;
//   - [ErrSuperseded], when a higher definition version has taken the view.
//
// Whatever OnStop says it returns:
//
//   - [*DefinitionError], when the view was built with another definition under
//     the same version;
//   - [ErrUnavailable], when the connection to NATS was closed.
func (u *SinkUpdater) Run(ctx context.Context) error {
	if !u.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer u.running.Store(false)
	u.set(func(s *Status) { s.State, s.Err = StateStarting, nil })
	err := u.run(ctx)
	if ctx.Err() != nil && (!isStop(err) || errors.Is(err, context.Cause(ctx))) {
		u.set(func(s *Status) { s.State = StateFree })
		return nil
	}
	u.stopped(err)
	return err
}

func (u *SinkUpdater) run(ctx context.Context) error {
	me := u.cfg.Instance + "-" + nuid.Next()[16:]
	var bad failing
	wait := newBackoff(10*time.Millisecond, time.Second)
	retry := newBackoff(time.Second, RetryStoppedMax)
	for {
		began := time.Now()
		own, err := u.acquire(ctx, me)
		if err == nil {
			err = u.own(ctx, own, &bad)
		}
		if time.Since(began) > 5*time.Second {
			wait = newBackoff(10*time.Millisecond, time.Second)
		}
		pause := wait
		switch {
		case u.store.Conn().IsClosed():
			return errors.Join(closedError(u.store.Conn()), stopOf(err))
		case errors.Is(err, ErrDefinition):
			return err
		case isStop(err), errors.Is(err, ErrSuperseded), errors.Is(err, ErrSink):
			if ctx.Err() != nil || u.cfg.OnStop == ReturnWhenStopped {
				return err
			}
			if time.Since(began) > RetryStoppedMax {
				retry = newBackoff(time.Second, RetryStoppedMax)
			}
			bad = failing{}
			u.stopped(err)
			if err := u.rest(ctx, retry); err != nil {
				return err
			}
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errAgain), errors.Is(err, errControl):
			continue
		case errors.Is(err, ErrFold):
			u.log.Warn("view tries an event again", "error", err, "tries", bad.tries)
			pause = newBackoff(50*time.Millisecond<<min(bad.tries, 6), time.Minute)
		case errors.Is(err, errLost):
			u.log.Info("view is owned by another instance now")
		default:
			u.log.Warn("view updater begins again", "error", err)
		}
		u.trouble(err)
		if err := pause.next(ctx); err != nil {
			return err
		}
	}
}

// rest waits until a stopped view should be tried again: after a while, or when
// people say something new.
func (u *SinkUpdater) rest(ctx context.Context, retry *backoff) error {
	known := uint64(0)
	if rec, err := u.sink.load(ctx, controlName(u.name)); err == nil {
		known = rec.Revision
	}
	ctx, cancel := context.WithTimeoutCause(ctx, retry.jittered(), errControl)
	defer cancel()
	if err := u.watchControl(ctx, known); !errors.Is(err, errControl) {
		return err
	}
	return nil
}

// watchControl ends with [errControl] when there is something new.
func (u *SinkUpdater) watchControl(ctx context.Context, known uint64) error {
	for {
		if err := sleep(ctx, u.cfg.often(4)); err != nil {
			return err
		}
		if rec, err := u.sink.load(ctx, controlName(u.name)); err == nil && rec.Revision != known {
			return errControl
		}
		if u.store.Conn().IsClosed() {
			return closedError(u.store.Conn())
		}
	}
}

// own follows the events as the view's owner until it cannot, and gives the view
// free if it still can.
func (u *SinkUpdater) own(ctx context.Context, o *sinkOwnership, bad *failing) error {
	u.log.Info("view is owned by this instance", "owner", o.cp.Owner, "epoch", o.cp.Epoch, "position", o.cp.Position)
	u.position.Store(o.cp.Position)
	u.set(func(s *Status) {
		s.State, s.Owner, s.Epoch = o.cp.State, o.cp.Owner, o.cp.Epoch
		if bad.tries == 0 {
			s.Err = nil
		}
	})
	w := &sinkWriter{
		u: u, cp: *o.cp, rev: o.rev, told: o.told, barrier: bad.sequence, skip: bad.skip, left: bad.left,
		wrote: time.Now(), queue: queue{until: o.cp.Position},
		tracer: newViewTracer(u.cfg.TracerProvider, u.store.Name(), u.core.view),
	}
	err := u.session(ctx, o, w, bad)
	cause := bad.judge(err, u.core.view, &u.cfg)
	if errors.Is(err, ErrFoldTimeout) && !isStop(cause) {
		return cause // The writer was left behind.
	}
	if ctx.Err() != nil || isStop(cause) || errors.Is(cause, errControl) {
		u.free(o, cause) //nolint:contextcheck // ctx is over, the view is given free all the same
	}
	return cause
}

// free tells the others that nobody owns the view, and why if it stopped. It goes
// by what the record says: the writer may not know, or not have come back.
func (u *SinkUpdater) free(o *sinkOwnership, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), parting(u.cfg.LeaseTTL))
	defer cancel()
	rec, err := u.sink.load(ctx, u.name)
	if err != nil {
		u.log.Debug("view was not given free", "error", err)
		return
	}
	cp, err := decodeSinkCheckpoint(rec)
	if err != nil || cp.Owner != o.cp.Owner || cp.Epoch != o.cp.Epoch {
		return
	}
	cp.stop(cause)
	cp.Flush, cp.Time = cp.Flush+1, time.Now().UTC()
	if err := u.put(ctx, rec.Revision, cp, nil); err != nil {
		u.log.Debug("view was not given free", "error", err)
		return
	}
	u.position.Store(cp.Position)
}

// session reads and writes, each in a goroutine of its own, until one of them
// ends.
func (u *SinkUpdater) session(ctx context.Context, o *sinkOwnership, w *sinkWriter, bad *failing) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan chunk, 8)
	cur := &cursor{
		store: u.store, nc: u.store.Conn(), durable: u.core.view + "_sink", narrowing: u.narrowing(), max: u.cfg.Window,
		log: u.log, expires: u.cfg.LeaseTTL / 2,
		pos: o.cp.Position, last: o.cp.Last, verify: u.verifier(o.cp.Epoch), follow: u.ignorable,
		seen: func(pos, pending uint64) {
			u.read.Store(pos)
			u.pending.Store(pending)
		},
		trouble: u.trouble,
		step:    u.done,
	}
	var wg sync.WaitGroup
	start := func(run func() error) {
		wg.Go(func() { cancel(run()) })
	}
	start(func() error { return cur.run(ctx, chunks) })
	written := make(chan struct{})
	go func() {
		defer close(written)
		cancel(w.run(ctx, chunks))
	}()
	start(func() error { return w.dog.run(ctx, u.core.view, u.cfg.FoldTimeout) })
	start(func() error { return u.watchControl(ctx, o.toldRev) })
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, ErrFoldTimeout) {
		return u.abandon(written, err)
	}
	<-written
	if w.passed.Load() {
		*bad = failing{}
	}
	return context.Cause(ctx)
}

// abandon gives a writer whose handler took too long the time to notice, as most
// do: its context has ended. One that does not is left behind, and can commit
// nothing.
func (u *SinkUpdater) abandon(written <-chan struct{}, err error) error {
	t := time.NewTimer(u.cfg.LeaseTTL / 2)
	defer t.Stop()
	select {
	case <-written:
	case <-t.C:
		u.log.Error("a handler of the view does not heed its context and is left behind", "error", err)
	}
	return err
}

// verifier finds out whether the store still holds what the view was made from.
func (u *SinkUpdater) verifier(epoch uint64) func(context.Context, uint64, lastCommit) error {
	return func(ctx context.Context, pos uint64, last lastCommit) error {
		ctx, cancel := context.WithTimeout(ctx, 5*attemptTimeout)
		defer cancel()
		// Who has lost the view leaves the cursor to the next owner.
		if rec, err := u.sink.load(ctx, u.name); err == nil {
			if now, err := decodeSinkCheckpoint(rec); err == nil && now.Epoch > epoch {
				return errLost
			}
		}
		if err := u.holds(ctx, pos, last); err != nil {
			return fmt.Errorf("view %q: %w", u.core.view, err)
		}
		return nil
	}
}
