package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// sinkOwnership is a view that this instance may write.
type sinkOwnership struct {
	cp  *sinkCheckpoint
	rev uint64
	// told is what people have said, at revision toldRev.
	told    *control
	toldRev uint64
}

// acquire waits until this instance may own the view, and makes it the owner.
func (u *SinkUpdater) acquire(ctx context.Context, me string) (*sinkOwnership, error) {
	var seen silenceOf
	wait := newBackoff(5*time.Millisecond, time.Second)
	for tries := 1; ; {
		o, err := u.attempt(ctx, me, &seen)
		switch {
		case o != nil:
			return o, nil
		case u.store.Conn().IsClosed():
			return nil, errors.Join(err, closedError(u.store.Conn()))
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil:
			tries, wait = 1, newBackoff(5*time.Millisecond, time.Second)
			if err := sleep(ctx, u.cfg.often(8)); err != nil {
				return nil, err
			}
			continue
		case isStop(err), errors.Is(err, ErrSuperseded), errors.Is(err, ErrDefinition), errors.Is(err, ErrSink):
			return nil, err
		}
		if tries++; tries > troubling {
			u.trouble(fmt.Errorf("the view's database does not answer: %w", err))
			u.log.Warn("view's database does not answer", "error", err)
		}
		if err := wait.next(ctx); err != nil {
			return nil, err
		}
	}
}

// attempt looks once whether this instance may own the view, and takes it then.
func (u *SinkUpdater) attempt(ctx context.Context, me string, seen *silenceOf) (*sinkOwnership, error) {
	said, err := u.sink.load(ctx, controlName(u.name))
	if err != nil {
		return nil, u.fault(err)
	}
	told, err := decodeSinkControl(said)
	if err != nil {
		return nil, err
	}
	rec, err := u.sink.load(ctx, u.name)
	if err != nil {
		return nil, u.fault(err)
	}
	cp, err := decodeSinkCheckpoint(rec)
	if err != nil {
		return nil, err
	}
	silent := seen.unchanged(rec.Revision)
	if err := u.mine(cp); err != nil {
		return nil, err
	}
	u.position.Store(cp.Position)
	if told.Pause != nil {
		return nil, u.paused(ctx, rec.Revision, cp, told, silent)
	}
	if rec.Revision > 0 && cp.Version == u.core.version && cp.Owner != "" && cp.Owner != me && silent < u.cfg.LeaseTTL {
		u.set(func(s *Status) { s.State, s.Owner, s.Epoch, s.Err = StateStandby, cp.Owner, cp.Epoch, nil })
		return nil, nil //nolint:nilnil // not yet, and no fault
	}
	o := &sinkOwnership{told: told, toldRev: said.Revision}
	if err := u.take(ctx, o, me, rec.Revision, cp); err != nil {
		if errors.Is(err, ErrSinkConflict) {
			return nil, nil //nolint:nilnil // somebody was faster
		}
		return nil, u.fault(err)
	}
	return o, nil
}

// mine makes sure that the rows are those that this definition writes, or will
// replace.
func (u *SinkUpdater) mine(cp *sinkCheckpoint) error {
	switch {
	case cp.Version > u.core.version:
		return fmt.Errorf("%w: it is of version %d, this program's is %d", ErrSuperseded, cp.Version, u.core.version)
	case cp.Version < u.core.version:
		return nil
	case cp.Hash != u.core.hash():
		return &DefinitionError{
			View: u.core.view, Version: u.core.version, Live: cp.Version,
			Reason: "the view was built with other events under this version",
			Advice: fmt.Sprintf("raise it with Version(%d), and the view is written anew", u.core.version+1),
		}
	}
	if err := u.made(cp.Store); err != nil {
		return &StoppedError{View: u.core.view, Cause: err}
	}
	return nil
}

// fault is an error of the database: one that may pass, or [ErrSink].
func (u *SinkUpdater) fault(err error) error {
	if u.sink.transient(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSink, err)
}

// take makes this instance the owner. Rows of an older version are deleted, and
// those of none prepared, in the same transaction.
func (u *SinkUpdater) take(ctx context.Context, o *sinkOwnership, me string, rev uint64, cp *sinkCheckpoint) error {
	next := *cp
	var apply func(tx any) error
	if cp.Version < u.core.version {
		next = sinkCheckpoint{checkpoint: checkpoint{
			Format: checkpointFormat, View: u.core.view, Kind: u.core.kind, Version: u.core.version, Hash: u.core.hash(),
			Store: u.store.ID(), Epoch: cp.Epoch,
		}}
		apply = func(tx any) error { return u.prepared(ctx, tx) }
	}
	next.own(me, StateRunning)
	if err := u.put(ctx, rev, &next, apply); err != nil {
		return err
	}
	o.cp, o.rev = &next, rev+1
	return nil
}

// prepared calls the user's function.
func (u *SinkUpdater) prepared(ctx context.Context, tx any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
		}
	}()
	if err := u.prepare(ctx, tx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return context.Cause(ctx)
}

// put writes the view's record together with what apply writes, which may be nil.
func (u *SinkUpdater) put(ctx context.Context, rev uint64, cp *sinkCheckpoint, apply func(tx any) error) error {
	body, err := json.Marshal(cp)
	if err != nil {
		return err
	}
	if apply == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sinkPatience)
		defer cancel()
		apply = func(any) error { return nil }
	}
	return u.sink.transact(ctx, u.name, rev, body, apply)
}

// paused says in the record that the view was told to wait, when nobody owns it, or
// nobody who lives.
func (u *SinkUpdater) paused(
	ctx context.Context, rev uint64, cp *sinkCheckpoint, told *control, silent time.Duration,
) error {
	u.set(func(s *Status) { s.State, s.Owner, s.Err = StatePaused, "", nil })
	if rev == 0 || cp.Owner != "" && silent < u.cfg.LeaseTTL || cp.State == StatePaused {
		return nil
	}
	u.log.Warn("view is paused", "reason", told.Pause.Reason, "position", cp.Position)
	cp.Owner, cp.State, cp.Time = "", StatePaused, time.Now().UTC()
	if err := u.put(ctx, rev, cp, nil); err != nil && !errors.Is(err, ErrSinkConflict) {
		return u.fault(err)
	}
	return nil
}
