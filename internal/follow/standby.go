package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
)

// taken is a record that this instance owns since before sent.
type taken struct {
	record record
	rev    uint64
	sent   time.Time
}

// watch is what a standby knows of the record: its revision, and since when by
// its own monotonic clock.
type watch struct {
	rev  uint64
	seen time.Time
	// tried is the epoch of the last attempt to take the record. Nothing was done in
	// it: where it is recorded all the same, the answer came too late.
	tried uint64
}

// final tells whether waiting will not mend the error.
func final(err error) bool {
	for _, e := range []error{
		ErrOtherDefinition, ErrNewerVersion, ErrOtherStore, ErrRecordVanished,
		ErrRecordFormat, ErrBeyondHead, ErrNoStream, ErrConnectionClosed, ErrPanic,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// standby waits until the record is free, or its owner has not renewed it for
// TTL, and takes it. It returns ctx's error or a final one.
func (f *Follower) standby(ctx context.Context, me string) (taken, error) {
	hints := make(chan *nats.Msg, 16)
	var sub *nats.Subscription
	defer func() {
		if sub != nil {
			_ = sub.Unsubscribe()
		}
	}()
	var w watch
	failures := 0
	for {
		err := error(nil)
		if sub == nil {
			sub, err = f.cfg.Conn.ChanSubscribe(f.cfg.hint(), hints)
		}
		var got *taken
		if err == nil {
			got, err = f.look(ctx, me, &w, attemptFor(failures, f.cfg.TTL))
		}
		wait := f.cfg.TTL / 4
		switch {
		case err == nil && got != nil:
			return *got, nil
		case err == nil:
			failures = 0
			// Not a moment later than the lease ends.
			wait = min(wait, max(time.Until(w.seen.Add(f.cfg.TTL)), time.Millisecond))
		case ctx.Err() != nil:
			return taken{}, ctx.Err()
		case f.cfg.Conn.IsClosed():
			return taken{}, ErrConnectionClosed
		case final(err):
			return taken{}, err
		default:
			failures++
			f.failed(err)
			wait = backoff(failures, resetWaitMin, min(f.cfg.TTL/2, resetWaitMax))
			f.cfg.Logger.Warn("standby: the record cannot be read", "wait", wait, "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return taken{}, ctx.Err()
		case <-hints:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look reads the record once and takes it if that is allowed.
func (f *Follower) look(ctx context.Context, me string, w *watch, within time.Duration) (*taken, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, rev, err := f.place.read(ctx)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return f.first(ctx, me, w, rev)
	case wire.Number(err) == wire.CodeStreamNotFound, errors.Is(err, nats.ErrNoResponders):
		if err := f.makeBucket(ctx); err != nil {
			return nil, err
		}
		return f.first(ctx, me, w, 0)
	case err != nil:
		return nil, err
	}
	if err := f.cfg.check(r); err != nil {
		return nil, err
	}
	if rev != w.rev {
		w.rev, w.seen = rev, time.Now()
	}
	f.observe(r)
	// A lease of our own is nobody's: what was done under it has ended.
	if r.Owner != "" && r.Owner != me && time.Since(w.seen) < f.cfg.TTL {
		if r.Version < f.cfg.Version {
			return nil, f.announce(ctx, r, rev)
		}
		return nil, nil //nolint:nilnil // nothing to take yet
	}
	if r.Owner != me || r.Epoch != w.tried {
		r.Epoch++
	}
	r.Owner = me
	r.Flush++
	r.Version, r.Definition, r.Stream = f.cfg.Version, f.cfg.Definition, f.cfg.Stream
	return f.take(ctx, w, r, rev)
}

// announce raises the version in a record whose owner is of a lower one. The
// owner sees it at its next write, ends its handlers and gives the record up;
// position, lanes and lease stay the owner's until then.
func (f *Follower) announce(ctx context.Context, r record, rev uint64) error {
	f.cfg.Logger.Info("asking an owner of a lower version to give way",
		"owner", r.Owner, "theirs", r.Version, "ours", f.cfg.Version)
	r.Version, r.Definition = f.cfg.Version, f.cfg.Definition
	body := r.encodeWithin(lanesOf(r, time.Now()), f.cfg.recordMax())
	_, err := f.place.write(ctx, body, rev)
	if wire.IsWrongLastSequence(err) {
		return nil // the owner wrote first; look again
	}
	return err
}

// take writes the record with this instance as the owner.
func (f *Follower) take(ctx context.Context, w *watch, r record, rev uint64) (*taken, error) {
	sent := time.Now()
	w.tried = r.Epoch
	body := r.encodeWithin(lanesOf(r, sent), f.cfg.recordMax())
	next, ok, err := f.place.writeSure(ctx, r, body, rev)
	if err != nil || !ok {
		return nil, err
	}
	return &taken{record: r, rev: next, sent: sent}, nil
}

// first makes the record, if the follower never ran.
func (f *Follower) first(ctx context.Context, me string, w *watch, rev uint64) (*taken, error) {
	err := f.api(ctx, f.cfg.Stream, func(ctx context.Context) error {
		_, err := f.js.Consumer(ctx, f.cfg.Stream, f.cfg.Name)
		return err
	})
	switch {
	case err == nil:
		// The other instance may have made both since we read.
		if _, _, err := f.place.read(ctx); errors.Is(err, wire.ErrNotFound) {
			return nil, f.cfg.vanished()
		}
		return nil, nil //nolint:nilnil // look again
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("%w: %q", ErrNoStream, f.cfg.Stream)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, fmt.Errorf("ask for consumer %q: %w", f.cfg.Name, err)
	}
	after, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	info, err := f.streamInfo(ctx)
	if err != nil {
		return nil, err
	}
	if after > info.State.LastSeq {
		return nil, fmt.Errorf("%w: Start says %d, the last message of %q is %d",
			beyond(info), after, f.cfg.Stream, info.State.LastSeq)
	}
	return f.take(ctx, w, record{
		Owner: me, Epoch: 1, Flush: 1, Position: after, Store: f.cfg.StoreID,
		Version: f.cfg.Version, Definition: f.cfg.Definition, Stream: f.cfg.Stream,
	}, rev)
}

// start asks the configuration where to begin.
func (f *Follower) start(ctx context.Context) (after uint64, err error) {
	returned := false
	defer func() {
		if !returned {
			err = fmt.Errorf("start: %w", &PanicError{Value: recover()})
		}
	}()
	after, err = f.cfg.Start(ctx)
	returned = true
	if err != nil {
		err = fmt.Errorf("start: %w", err)
	}
	return after, err
}
