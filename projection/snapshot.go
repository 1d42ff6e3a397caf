package projection

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// floor is the highest revision of a bucket that was served. A bucket that is made
// anew counts from the start, and what was read from the one before says nothing.
type floor struct{ now atomic.Pointer[atomic.Uint64] }

func (f *floor) renew() { f.now.Store(new(atomic.Uint64)) }

// Load is the floor of the bucket as it is.
func (f *floor) Load() uint64 { return f.now.Load().Load() }

// raiseTo makes a value at least n.
func raiseTo(v *atomic.Uint64, n uint64) {
	for {
		old := v.Load()
		if n <= old || v.CompareAndSwap(old, n) {
			return
		}
	}
}

// decoded remembers the checkpoint and the pointer that were read last, which come
// with every read and seldom change. Nobody changes them. Nil remembers nothing.
type decoded struct {
	pointer    atomic.Pointer[decodedAs[pointer]]
	checkpoint atomic.Pointer[decodedAs[checkpoint]]
}

type decodedAs[T any] struct {
	sequence uint64
	time     time.Time // of the message: another bucket counts from the start
	value    *T
}

func (d *decoded) pointerOf(m *wire.Message) (*pointer, error) {
	if d == nil {
		return decodePointer(m)
	}
	return remembered(&d.pointer, m, decodePointer)
}

func (d *decoded) checkpointOf(m *wire.Message) (*checkpoint, error) {
	if d == nil {
		return decodeCheckpoint(m)
	}
	return remembered(&d.checkpoint, m, decodeCheckpoint)
}

func remembered[T any](
	last *atomic.Pointer[decodedAs[T]], m *wire.Message, decode func(*wire.Message) (*T, error),
) (*T, error) {
	if was := last.Load(); was != nil && was.sequence == m.Sequence && was.time.Equal(m.Time) {
		return was.value, nil
	}
	v, err := decode(m)
	if err == nil {
		last.Store(&decodedAs[T]{sequence: m.Sequence, time: m.Time, value: v})
	}
	return v, err
}

// number is the generation in use.
func (r *Reader[V]) number() int { return r.use.Load().Number }

// snapshot reads subjects of the generation in use, with checkpoint and pointer,
// until they are as new as asked for and not older than what was served.
func (r *Reader[V]) snapshot(
	ctx context.Context, o readOptions, subjects func(gen int) []string,
) (int, *snapshot, error) {
	want, err := r.sequence(o.atLeast)
	if err != nil {
		return 0, nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.cfg.Wait)
		defer cancel()
	}
	var newest *checkpoint
	for wait := newBackoff(500*time.Microsecond, 20*time.Millisecond); ; {
		use, served := r.use.Load(), r.floor.now.Load()
		gen := use.Number
		snap, err := r.b.read(ctx, gen, subjects(gen))
		switch {
		case errors.Is(err, wire.ErrTooMany), errors.Is(err, ErrBucket):
			return gen, nil, err
		case wire.Denied(err):
			return gen, nil, fmt.Errorf("view %q: %w", r.b.view, err)
		case err == nil && snap.pointer != nil && anew(snap.pointer, use):
			if err := r.renew(snap.pointer, use); err != nil {
				return gen, nil, err
			}
			continue
		case err == nil && snap.pointer != nil && snap.upTo >= served.Load():
			g := snap.pointer.pick(r.cfg.Version)
			if g == nil {
				return gen, nil, r.lacks(snap.pointer)
			}
			if g.Number != gen {
				r.use.CompareAndSwap(use, g)
				continue
			}
			if snap.checkpoint == nil {
				break
			}
			if snap.checkpoint.Position >= max(want, r.least.Load()) || mutate.On(mutate.NoPositionWait) {
				snap.floor = served
				return gen, snap, nil
			}
			if newest == nil || snap.checkpoint.Position >= newest.Position {
				newest = snap.checkpoint
			}
		}
		if stop := errors.Join(wait.next(ctx), closedError(r.b.nc)); stop != nil {
			return 0, nil, r.gaveUp(o.atLeast, want, newest, err, stop)
		}
	}
}

// sequence is that of a position of the view's store, 0 of none.
func (r *Reader[V]) sequence(p jetstream.Position) (uint64, error) {
	if p.IsZero() {
		return 0, nil
	}
	store, seq := splitPosition(p)
	if store != r.store {
		return 0, &jetstream.ForeignPositionError{Position: p, Store: r.b.store}
	}
	return seq, nil
}

// gaveUp is the error of a read that found no snapshot as new as it must be.
func (r *Reader[V]) gaveUp(wanted jetstream.Position, want uint64, newest *checkpoint, err, stop error) error {
	if want > 0 && (newest != nil || err == nil) {
		return r.stale(wanted, want, newest)
	}
	if missing(err) {
		err = fmt.Errorf("%w: bucket %s is gone", ErrViewNotFound, r.b.name)
	}
	if err == nil && newest != nil {
		err = fmt.Errorf("its bucket was made anew, and it is being built: it has reached sequence %d, was read at %d",
			newest.Position, r.least.Load())
	}
	return fmt.Errorf("view %q: %w: %w", r.b.view, ErrUnavailable, errors.Join(err, stop))
}

// stale is the error of a view that is behind.
func (r *Reader[V]) stale(wanted jetstream.Position, want uint64, cp *checkpoint) *StaleError {
	e := &StaleError{View: r.b.view, Wanted: wanted}
	if cp == nil {
		return e
	}
	e.Position, e.Behind = makePosition(r.store, cp.Position), want-min(want, cp.Position)
	e.State, e.Cause = cp.State, cp.Error
	if !cp.Last.Time.IsZero() {
		e.Lag = max(time.Since(cp.Last.Time), 0)
	}
	return e
}

// anew tells that a pointer is that of another bucket than the one in which a
// generation was found: the bucket was deleted meanwhile, and made again.
func anew(p *pointer, use *generation) bool {
	if g := p.find(use.Number); g != nil {
		return !g.Made.Equal(use.Made)
	}
	for i := range p.Generations {
		// Numbers rise with time, and none is given twice.
		if g := &p.Generations[i]; g.Number < use.Number && g.Made.After(use.Made) {
			return true
		}
	}
	return false
}

// renew begins with a bucket that was made anew. The view in it is being built from
// the first event, and what it holds until it is as far as before would be older
// than what was served.
func (r *Reader[V]) renew(p *pointer, use *generation) error {
	if p.Store != r.store {
		return fmt.Errorf("view %q: %w: open the reader again", r.b.view, ErrStoreRestored)
	}
	g := p.pick(r.cfg.Version)
	if g == nil {
		return r.lacks(p)
	}
	raiseTo(&r.least, r.top.Load())
	if r.use.CompareAndSwap(use, g) {
		r.floor.renew()
	}
	return nil
}

// served remembers how new an answer was, so that no later one is older.
func (r *Reader[V]) served(snap *snapshot, m *wire.Message) {
	rev := snap.revision
	if m != nil {
		rev = max(rev, m.Sequence)
	}
	at := snap.floor
	if at == nil {
		at = r.floor.now.Load()
	}
	raiseTo(at, rev)
	if snap.checkpoint != nil {
		raiseTo(&r.top, snap.checkpoint.Position)
	}
}

func (r *Reader[V]) entry(key string, gen int, snap *snapshot, m *wire.Message) (Entry[V], error) {
	return r.entryAt(key, gen, makePosition(r.store, snap.checkpoint.Position), m)
}

// entryAt decodes a key's message, nil when there is none.
func (r *Reader[V]) entryAt(key string, gen int, at jetstream.Position, m *wire.Message) (Entry[V], error) {
	e := Entry[V]{Key: key, Generation: gen, Position: at}
	if m != nil {
		e.Revision, e.Sequence, e.Time = m.Sequence, reflects(m), m.Time.UTC()
	}
	if m == nil || deleted(m) {
		return e, fmt.Errorf("view %q, key %q: %w", r.b.view, shorten(key), ErrNotFound)
	}
	if err := codec.JSON.Decode(m.Data, &e.Value); err != nil {
		return e, fmt.Errorf("view %q, %w", r.b.view, &ValueError{Key: key, Cause: err})
	}
	return e, nil
}
