package projection

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"

	"github.com/rossby-go/rossby/jetstream"
)

// Updater follows the events of a store and keeps a view in its bucket, each
// event exactly once. Of several updaters of one view one is the owner, the
// others stand by.
type Updater struct {
	*source

	cfg UpdaterConfig
	board

	b *bucket
	// target is the generation that is built beside the live one, 0 for the one that
	// the definition's version leads to.
	target   int
	building atomic.Pointer[Updater]
	// sealed is the live generation's seal that a switch waits behind, and how far
	// the store was then.
	sealed struct{ rev, head uint64 }

	// step, when set, is told what was done just now: tests crash there.
	step func(string)
	// refolded is a partial rebuild that waits for its last step.
	refolded *refold

	running  atomic.Bool
	position atomic.Uint64
	read     atomic.Uint64
	pending  atomic.Uint64
}

// Status is what an updater is doing.
type Status struct {
	// View is the view's name, Owner who owns it, as far as this instance knows.
	View  string
	State State
	Owner string
	Epoch uint64
	// Generation is the number of the generation that is written, 0 before it is
	// known.
	Generation int
	// Position is how far the view is.
	Position jetstream.Position
	// Lag is the number of the store's commits after Position, as far as this
	// instance knows; CaughtUp tells whether it is none.
	Lag      uint64
	CaughtUp bool
	// Err is why the updater stopped, or what it is trying again.
	Err error
	// Building is a generation that this instance builds beside, nil for none.
	Building *Status
}

// NewUpdater prepares the updater of a view. Nothing happens until [Updater.Run].
// Returns the mistakes of definition and configuration, joined.
func NewUpdater(store *jetstream.Store, def AnyDefinition, cfg UpdaterConfig) (*Updater, error) {
	if store == nil || def == nil {
		return nil, errors.New("projection: an updater needs a store and a definition")
	}
	c := def.definition()
	if err := errors.Join(c.err, cfg.Validate()); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	src, err := newSource(store, c, &cfg)
	if err != nil {
		return nil, err
	}
	return &Updater{
		source: src, cfg: cfg,
		b: newBucket(store.Conn(), store.Name(), c.view),
		board: board{
			log: cfg.Logger.With("store", store.Name(), "view", c.view), status: Status{View: c.view, State: StateStarting},
		},
	}, nil
}

// Status tells what the updater is doing.
func (u *Updater) Status() Status {
	u.mu.Lock()
	s := u.status
	u.mu.Unlock()
	pos, read := u.position.Load(), u.read.Load()
	s.Position = u.store.Position(pos)
	if pos == 0 {
		s.Position = jetstream.Position{}
	}
	if read > pos {
		s.Lag = read - pos
	}
	s.Lag += u.pending.Load()
	if child := u.building.Load(); child != nil {
		built := child.Status()
		s.Building = &built
	}
	s.CaughtUp = s.Lag == 0 && pos > 0 && (s.State == StateRunning || s.State == StateBuilding)
	return s
}

// Run keeps the view until ctx ends, which returns nil after the view was given
// free for the next instance. It makes the view's bucket when there is none, and
// builds the generations that [Admin.Rebuild] asks for. Faults of the network are
// waited out. When the view must stop, [UpdaterConfig.OnStop] says whether Run
// waits, trying again from time to time and on [Admin.Resume], or returns:
//
//   - [*StoppedError], when an event cannot be folded, or makes a value that
//     cannot be stored ([*FoldError], with a [*ValueError] in it), or the store
//     was restored ([ErrStoreRestored]): a person must look;
//   - [ErrBucket], when the view's bucket cannot be used;
//   - [ErrSuperseded], when another definition version took the view's place:
//     waiting, it goes on after an [Admin.Rollback].
//
// Whatever OnStop says it returns:
//
//   - [*DefinitionError], when the view was built with another definition;
//   - [ErrUnavailable], when the connection was closed.
func (u *Updater) Run(ctx context.Context) error {
	if !u.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer u.running.Store(false)
	u.set(func(s *Status) { s.State, s.Err = StateStarting, nil })
	actx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { u.attend(actx) })
	err := u.run(ctx)
	cancel()
	wg.Wait()
	// What ended the context may itself be the stop of another view.
	if ctx.Err() != nil && (!isStop(err) || errors.Is(err, context.Cause(ctx))) {
		u.set(func(s *Status) { s.State = StateFree })
		return nil
	}
	u.stopped(err)
	return err
}

func isStop(err error) bool {
	_, stopped := errors.AsType[*StoppedError](err)
	return stopped
}

// failing remembers which event failed and how often.
type failing struct {
	sequence uint64
	tries    int
	skip     bool
	// left is an event to leave out without a call, as calls do not come back.
	left string
	// doubt is the key whose value could not be stored.
	doubt string
}

// judge remembers what ended a session, and says what comes of it: that it is tried
// again, without the event ([errAgain]), or that the view stops ([*StoppedError]).
func (b *failing) judge(err error, view string, cfg *UpdaterConfig) error {
	if fold, ok := errors.AsType[*FoldError](err); ok {
		if b.sequence != fold.Sequence {
			*b = failing{sequence: fold.Sequence, doubt: b.doubt}
		}
		b.tries++
		switch {
		case !fold.final && b.tries <= max(cfg.FoldRetries, 1):
			return err
		case fold.final && b.tries <= 1:
			return err // Once more, to write what stands before it.
		case !fold.final && cfg.OnError == SkipOnError && !b.skip:
			b.skip = true
			if errors.Is(err, ErrFoldTimeout) {
				b.left = fold.EventID
			}
			return errAgain
		}
		return &StoppedError{View: view, Cause: err}
	}
	value, ok := errors.AsType[*ValueError](err)
	if ok && b.doubt != value.Key {
		b.doubt = value.Key
		return errAgain // Once more, to find the event that makes it so.
	}
	if ok || errors.Is(err, ErrStoreRestored) {
		return &StoppedError{View: view, Cause: err}
	}
	return err
}

func (u *Updater) run(ctx context.Context) error {
	me := u.cfg.Instance + "-" + nuid.Next()[16:]
	hint, err := u.hints()
	if err != nil {
		return errors.Join(err, closedError(u.b.nc))
	}
	defer hint.close()
	var bad failing
	wait := newBackoff(10*time.Millisecond, time.Second)
	retry := newBackoff(time.Second, RetryStoppedMax)
	for {
		began := time.Now()
		own, err := u.acquire(ctx, me, hint)
		if err == nil {
			err = u.own(ctx, own, hint, &bad)
		}
		if time.Since(began) > 5*time.Second {
			wait = newBackoff(10*time.Millisecond, time.Second)
		}
		pause := wait
		switch {
		case u.b.nc.IsClosed():
			return errors.Join(closedError(u.b.nc), stopOf(err))
		case errors.Is(err, ErrDefinition), errors.Is(err, errSwitched), u.target > 0 && errors.Is(err, ErrSuperseded):
			return err
		case errors.Is(err, ErrSuperseded) && u.stillMine(ctx):
			continue
		case u.target > 0 && errors.Is(err, ErrBucket) && u.removed(ctx):
			return ErrSuperseded
		case isStop(err), errors.Is(err, ErrSuperseded), errors.Is(err, ErrBucket):
			if ctx.Err() != nil || u.cfg.OnStop == ReturnWhenStopped {
				return err
			}
			if time.Since(began) > RetryStoppedMax {
				retry = newBackoff(time.Second, RetryStoppedMax)
			}
			bad = failing{}
			u.stopped(err)
			if err := u.rest(ctx, retry, hint); err != nil {
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
		u.set(func(s *Status) { s.Err = err })
		if err := pause.next(ctx); err != nil {
			return err
		}
	}
}

func stopOf(err error) error {
	if isStop(err) {
		return err
	}
	return nil
}

// rest waits until a stopped view should be tried again: after a while, or when
// people say something new.
func (u *Updater) rest(ctx context.Context, retry *backoff, hint *hints) error {
	_, known, err := u.b.control(ctx)
	if err != nil {
		known = 0
	}
	ctx, cancel := context.WithTimeoutCause(ctx, retry.jittered(), errControl)
	defer cancel()
	if err := u.watchControl(ctx, known, hint); !errors.Is(err, errControl) {
		return err
	}
	return nil
}

// stillMine tells whether the generation that took this one's place is of the same
// definition: then this instance goes on with it.
func (u *Updater) stillMine(ctx context.Context) bool {
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return false
	}
	p, err := decodePointer(m)
	if err != nil {
		return false
	}
	g := p.live()
	return g != nil && g.Version == u.core.version && g.Hash == u.core.hash()
}

// removed tells whether the generation that is built was taken out of the view.
func (u *Updater) removed(ctx context.Context) bool {
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return false
	}
	p, err := decodePointer(m)
	return err == nil && p.find(u.target) == nil
}

// errAgain begins again at once.
var errAgain = errors.New("begin again")

// own follows the events as the view's owner until it cannot, and gives the view
// free if it still can.
func (u *Updater) own(ctx context.Context, o *ownership, hint *hints, bad *failing) error {
	u.log.Info("view is owned by this instance", "owner", o.cp.Owner, "epoch", o.cp.Epoch,
		"generation", o.gen, "position", o.cp.Position)
	u.position.Store(o.cp.Position)
	u.set(func(s *Status) {
		s.State, s.Owner, s.Epoch, s.Generation = o.cp.State, o.cp.Owner, o.cp.Epoch, o.gen
		if bad.tries == 0 {
			s.Err = nil
		}
	})
	fl := &flusher{
		b: u.b, gen: o.gen, keyed: u.core.kind == kindKeyed, ttl: u.cfg.LeaseTTL, log: u.log,
		cp: *o.cp, rev: o.rev, shared: new(atomic.Uint64), pos: &u.position, wrote: time.Now(), each: u.b.single.Load(),
		step: u.done,
	}
	u.b.trouble = func(err error) { u.set(func(s *Status) { s.Err = err }) }
	fl.shared.Store(o.rev)
	err := u.rebuildKeys(ctx, o, fl, o.stopped || bad.tries > 0)
	if err == nil {
		err = u.session(ctx, o, fl, hint, bad)
	}
	cause := bad.judge(err, u.core.view, &u.cfg)
	if ctx.Err() == nil && !isStop(cause) && !errors.Is(cause, errSwitched) && !errors.Is(cause, errControl) {
		return cause
	}
	u.free(fl, cause) //nolint:contextcheck // ctx is over, the view is given free all the same
	return cause
}

// free tells the others that nobody owns the view, and why if it stopped.
func (u *Updater) free(fl *flusher, cause error) {
	if u.b.nc.IsClosed() || fl.undecided {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), parting(u.cfg.LeaseTTL))
	defer cancel()
	cp := fl.cp
	cp.stop(cause)
	if err := fl.put(ctx, nil, cp); err != nil {
		u.log.Debug("view was not given free", "error", err)
		return
	}
	if !isStop(cause) { // Nobody hurries to where the view has stopped.
		_ = u.b.nc.Publish(u.b.hintSubject(), nil)
		_ = u.b.nc.FlushWithContext(ctx)
	}
}

// session reads, folds and writes, each in a goroutine of its own, until one of
// them ends.
func (u *Updater) session(ctx context.Context, o *ownership, fl *flusher, hint *hints, bad *failing) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan chunk, 32)
	pages, done := make(chan *page), make(chan *page, 1)
	cur := &cursor{
		store: u.store, nc: u.b.nc, durable: o.durable, narrowing: u.narrowing(), max: u.cfg.Window, log: u.log,
		expires: u.cfg.LeaseTTL / 2,
		pos:     o.cp.Position, last: o.cp.Last, verify: u.verifier(o.gen, o.cp), follow: u.ignorable,
		seen: func(pos, pending uint64) {
			u.read.Store(pos)
			u.pending.Store(pending)
		},
		trouble: func(err error) { u.set(func(s *Status) { s.Err = err }) },
	}
	fo := &folder{
		core: u.core, cfg: &u.cfg, log: u.log, store: u.store, decoder: u.decoder, b: u.b, gen: o.gen,
		epoch: o.cp.Epoch, rev: fl.shared, cache: newCache(u.cfg.CacheBytes, o.fresh),
		page: newPage(o.cp.Position), written: o.cp.Position, barrier: bad.sequence, skip: bad.skip,
		told: o.told, left: bad.left, doubt: bad.doubt,
	}
	if o.building {
		fl.idle = func(ctx context.Context) error { return u.flip(ctx, o, fl, cur) }
	}
	if !o.building {
		fo.took = u.took
		fo.tracer = newViewTracer(u.cfg.TracerProvider, u.store.Name(), u.core.view)
	}
	cur.step, fo.step = u.done, u.done
	var wg sync.WaitGroup
	start := func(run func() error) {
		wg.Go(func() { cancel(run()) })
	}
	start(func() error { return cur.run(ctx, chunks) })
	folded := make(chan struct{})
	go func() {
		defer close(folded)
		cancel(fo.run(ctx, chunks, pages, done))
	}()
	start(func() error { return fo.dog.run(ctx, u.core.view, u.cfg.FoldTimeout) })
	start(func() error { return fl.run(ctx, pages, done) })
	start(func() error { return u.watchControl(ctx, o.toldRev, hint) })
	if !o.building && o.told.waiting() != nil {
		start(func() error { return u.prepare(ctx, o) })
	}
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, ErrFoldTimeout) {
		return err // Its goroutine ends when the fold does: what it works on is its own.
	}
	<-folded
	if fo.passed.Load() {
		*bad = failing{}
	}
	return context.Cause(ctx)
}

// done tells the tests about a step.
func (u *Updater) done(step string) {
	if u.step != nil {
		u.step(step)
	}
}

// verifier finds out whether the store still holds what the view was made from.
func (u *Updater) verifier(gen int, cp *checkpoint) func(context.Context, uint64, lastCommit) error {
	return func(ctx context.Context, pos uint64, last lastCommit) error {
		ctx, cancel := context.WithTimeout(ctx, 5*attemptTimeout)
		defer cancel()
		if err := u.made(cp.Store); err != nil {
			return err
		}
		// Who has lost the view leaves the cursor to the next owner.
		if m, err := u.b.leader(ctx, u.b.checkpointSubject(gen)); err == nil {
			if now, err := decodeCheckpoint(m); err == nil && now.Epoch > cp.Epoch {
				return errLost
			}
		}
		return u.holds(ctx, pos, last)
	}
}
