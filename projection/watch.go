package projection

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// ChangeKind is what happened to a key, or to the view.
type ChangeKind uint8

// The kinds of changes.
const (
	// Put is a key's value: a new one, or one that was there when the watch began.
	Put ChangeKind = iota + 1
	// Delete is a key that the view no longer holds, before Ready also one that was not
	// yielded. The entry has no value.
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
	Kind ChangeKind
	// Entry is the key's. Its position is one that the view had reached when the
	// value was read; it is zero when that is not known, as before a Ready. Ready has
	// position and generation, too.
	Entry Entry[V]
}

// Token is where a watch goes on after this change: see [WatchOptions].
func (c *Change[V]) Token() string { return c.Entry.Token() }

// WatchOptions says what is watched. The zero value watches the whole view.
type WatchOptions struct {
	// Key is the only key to watch, Prefix what the keys begin with. At most one of
	// them may be set.
	Key, Prefix string
	// After is the [Change.Token] to go on after, also in another process: deletions
	// that came since are yielded before Ready, too. When the view was rebuilt since,
	// the watch begins with Reset.
	After string
}

func (o *WatchOptions) validate() error {
	if o.Key == "" {
		return nil
	}
	if o.Prefix != "" {
		return &jetstream.InvalidError{Field: "Prefix", Value: o.Prefix, Reason: "is set, and Key is, too"}
	}
	_, err := encodeKey(o.Key)
	return err
}

// Watch yields what the view holds, then Ready, then every change, until ctx ends or
// the loop is left. Changes come in the order in which they were written, and none
// comes twice, whatever the network, the servers and rebuilds do meanwhile. Values
// that follow each other faster than they are taken are left out but for the last,
// so a slow caller costs nothing but time. A fault of the network is waited out; an
// error ends the watch: a value that V cannot hold, or one of those of [Reader.Get]
// that waiting does not mend.
//
// It needs no consumer: writes to the checkpoint wake it, and it reads what has
// changed since. A watch of one key reads that key only; any other reads all that
// has changed in the view, and leaves out what it was not asked for.
func (r *Reader[V]) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Change[V], error] {
	return func(yield func(Change[V], error) bool) {
		w := &watch[V]{r: r, prefix: o.Prefix, yield: yield}
		f := &follow[V]{r: r, key: o.Key, to: w}
		w.told = &f.told
		gen, after, err := parseToken(o.After)
		if err = errors.Join(o.validate(), err); err == nil {
			f.gen, f.after, w.resumed = gen, after, o.After != ""
			err = f.run(ctx)
		}
		if err != nil && !w.left {
			yield(Change[V]{}, fmt.Errorf("watch of view %q: %w", r.b.view, err))
		}
	}
}

// errLeft ends a watch whose loop was left.
var errLeft = errors.New("left")

// watch makes changes of what it is told.
type watch[V any] struct {
	r      *Reader[V]
	prefix string
	yield  func(Change[V], error) bool
	// ready says that Ready was yielded, resumed that it goes on after a token.
	ready, resumed bool
	// left says that the loop was left: it must not be gone on with.
	left bool
	// told says that a key may have been yielded before.
	told *bool
}

func (w *watch[V]) emit(kind ChangeKind, e Entry[V]) error {
	if !w.yield(Change[V]{Kind: kind, Entry: e}, nil) {
		w.left = true
		return errLeft
	}
	return nil
}

func (w *watch[V]) reset(gen int) error {
	w.ready, w.resumed = false, false
	return w.emit(Reset, Entry[V]{Generation: gen})
}

func (w *watch[V]) message(gen int, key string, at jetstream.Position, m *wire.Message) error {
	if !strings.HasPrefix(key, w.prefix) {
		return nil
	}
	e, err := w.r.entryAt(key, gen, at, m)
	switch {
	case errors.Is(err, ErrNotFound) && (w.ready || w.resumed || *w.told):
		return w.emit(Delete, e)
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return w.emit(Put, e)
}

func (w *watch[V]) whole(gen int, at jetstream.Position, after uint64, _ *checkpoint) error {
	if w.ready {
		return nil
	}
	w.ready = true
	return w.emit(Ready, Entry[V]{Generation: gen, Position: at, place: after})
}
