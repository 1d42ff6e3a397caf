package projection

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// ChangeKind is what happened to a key, or to the view.
type ChangeKind uint8

// The kinds of changes.
const (
	// Put is a key's value: a new one, or one that was there when the watch began.
	Put ChangeKind = iota + 1
	// Delete is a key that the view no longer holds. The entry has no value.
	Delete
	// Ready comes once what was there when the watch began has been yielded, and
	// again after a Reset.
	Ready
	// Reset says that the view was rebuilt: forget what came before, everything is
	// yielded anew.
	Reset
)

// String is the kind's name.
func (k ChangeKind) String() string {
	switch k {
	case Put:
		return "put"
	case Delete:
		return "delete"
	case Ready:
		return "ready"
	case Reset:
		return "reset"
	}
	return fmt.Sprintf("change(%d)", uint8(k))
}

// Change is one step of a [Reader.Watch].
type Change[V any] struct {
	Kind  ChangeKind
	Entry Entry[V]
}

// watchPoll is how often a watch looks even when nothing calls it.
const watchPoll = 500 * time.Millisecond

// Watch yields what the view holds under a prefix, then Ready, then every change,
// until ctx ends or the loop is left. Values that follow each other faster than
// they are taken are left out but for the last. A fault of the network is waited
// out; an error ends the watch.
//
// It needs no consumer: writes to the checkpoint wake it, and it reads what has
// changed since.
func (r *Reader[V]) Watch(ctx context.Context, prefix string) iter.Seq2[Change[V], error] {
	return func(yield func(Change[V], error) bool) {
		wake := make(chan struct{}, 1)
		sub, err := r.b.nc.Subscribe(r.b.prefix+"_rossby.>", func(*nats.Msg) {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		if err != nil {
			yield(Change[V]{}, fmt.Errorf("watch of view %q: %w", r.b.view, err))
			return
		}
		defer func() { _ = sub.Unsubscribe() }()
		w := watch[V]{r: r, prefix: prefix, yield: yield}
		poll := watchPoll
		for {
			more, err := w.step(ctx)
			if w.done {
				return
			}
			if final := errors.Join(err, context.Cause(ctx), closedError(r.b.nc)); final != nil {
				yield(Change[V]{}, fmt.Errorf("watch of view %q: %w", r.b.view, final))
				return
			}
			if more {
				continue
			}
			t := time.NewTimer(poll)
			select {
			case <-ctx.Done():
			case <-wake:
				// The write is seen before it is stored: look again soon, then less often.
				poll = time.Millisecond
			case <-t.C:
				poll = min(2*poll, watchPoll)
			}
			t.Stop()
		}
	}
}

// watch is the state of one Watch.
type watch[V any] struct {
	r      *Reader[V]
	prefix string
	yield  func(Change[V], error) bool
	done   bool

	gen   int
	after uint64
	ready bool
	cp    *snapshot
}

// step yields what has changed; more says that there is more to read now.
func (w *watch[V]) step(ctx context.Context) (more bool, err error) {
	gen, snap, err := w.r.snapshot(ctx, readOptions{}, func(int) []string { return nil })
	switch {
	case errors.Is(err, ErrUnavailable):
		rest(ctx)
		return true, nil
	case err != nil:
		return false, err
	case w.gen != 0 && gen != w.gen:
		w.after, w.ready = 0, false
		if w.emit(Change[V]{Kind: Reset}); w.done {
			return false, nil
		}
	}
	w.gen, w.cp = gen, snap
	if !w.ready {
		// What was there before is complete once a replica as new as the leader
		// shows the end.
		if err := w.r.raise(ctx, gen); err != nil && !errors.Is(err, ErrTokenExpired) {
			rest(ctx)
			return true, nil
		}
	}
	floor := w.r.floor.Load()
	page, err := w.r.b.page(ctx, w.after)
	if err != nil {
		rest(ctx)
		return true, nil //nolint:nilerr // looked at again at once
	}
	for i := range page.Messages {
		if err := w.message(&page.Messages[i]); err != nil || w.done {
			return false, err
		}
	}
	if page.Pending > 0 {
		return true, nil
	}
	if w.after < floor {
		rest(ctx)
		return true, nil
	}
	if !w.ready {
		w.ready = true
		w.emit(Change[V]{Kind: Ready})
	}
	return false, nil
}

// rest waits a little before the next attempt.
func rest(ctx context.Context) { _ = sleep(ctx, 5*time.Millisecond) }

func (w *watch[V]) position() jetstream.Position {
	if w.cp == nil {
		return jetstream.Position{}
	}
	return makePosition(w.r.store, w.cp.checkpoint.Position)
}

func (w *watch[V]) emit(c Change[V]) {
	if c.Kind == Ready || c.Kind == Reset {
		c.Entry = Entry[V]{Generation: w.gen, Position: w.position()}
	}
	if !w.yield(c, nil) {
		w.done = true
	}
}

// message yields the change that a message of the bucket is.
func (w *watch[V]) message(m *wire.Message) error {
	w.after = m.Sequence
	key, ok := keyOf(m.Subject, w.r.b.keyPrefix(w.gen))
	if !ok || !strings.HasPrefix(key, w.prefix) {
		return nil
	}
	e, err := w.r.entry(key, w.gen, w.cp, m)
	switch {
	case errors.Is(err, ErrNotFound):
		e.Revision, e.Sequence, e.Time = m.Sequence, reflects(m), m.Time.UTC()
		if w.ready {
			w.emit(Change[V]{Kind: Delete, Entry: e})
		}
		return nil
	case err != nil:
		return err
	}
	w.emit(Change[V]{Kind: Put, Entry: e})
	return nil
}
