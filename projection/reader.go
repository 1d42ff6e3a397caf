package projection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Reader answers questions from a view. It needs nothing but the view's bucket,
// and holds no resources of its own. It is safe for concurrent use.
//
// Every answer is a snapshot of one replica, and no answer is older than one
// that the reader has given before.
type Reader[V any] struct {
	b     *bucket
	cfg   ReaderConfig
	store string
	// use is the generation that was used last, floor the highest revision served,
	// top the highest position. Since the bucket was made anew, reads must reach
	// least.
	use   atomic.Pointer[generation]
	floor floor
	top   atomic.Uint64
	least atomic.Uint64
	// matches bounds what a search sorts: [maxMatches], or less in tests.
	matches int
}

// Entry is a key of a view.
type Entry[V any] struct {
	Key   string
	Value V
	// Position is how far the view was when it was read: every event up to there
	// is in the value.
	Position jetstream.Position
	// Sequence is the stream sequence of the last event that changed the value. It may
	// be after Position for a moment, since keys are written before their position.
	Sequence uint64
	// Revision is that of the value in the bucket, Generation the view's. Both
	// change when the view is rebuilt.
	Revision   uint64
	Generation int
	// Time is when the value was written, UTC.
	Time time.Time
	// Indexed is the index value that [Reader.Find] has found it by.
	Indexed string

	place uint64 // where a list has found it, when that is not Revision
}

// ETag changes with the value, and when the view is rebuilt.
func (e *Entry[V]) ETag() string {
	return `"` + strconv.Itoa(e.Generation) + "-" + strconv.FormatUint(e.Revision, 36) +
		"-" + strconv.FormatUint(e.Sequence, 36) + `"`
}

// Token is where a list goes on after this entry: see [ListOptions] and
// [FindOptions].
func (e *Entry[V]) Token() string {
	if e.Indexed != "" {
		return findToken(hit{value: e.Indexed, part: partOf(e.Key), key: e.Key})
	}
	return strconv.Itoa(e.Generation) + "-" + strconv.FormatUint(cmp.Or(e.place, e.Revision), 36)
}

func parseToken(token string) (gen int, after uint64, err error) {
	if token == "" {
		return 0, 0, nil
	}
	left, right, found := strings.Cut(token, "-")
	gen, err1 := strconv.Atoi(left)
	after, err2 := strconv.ParseUint(right, 36, 64)
	if !found || gen < 1 || err1 != nil || err2 != nil {
		return 0, 0, &jetstream.InvalidError{Field: "list token", Value: token, Reason: "is not one that a list gave out"}
	}
	return gen, after, nil
}

// ReadOption is an option of one read.
type ReadOption func(*readOptions)

type readOptions struct{ atLeast jetstream.Position }

// AtLeast makes a read wait until the view has reached a position, such as that
// of the caller's own command. Without a deadline in the context it waits for
// [ReaderConfig.Wait], and then returns a [*StaleError].
func AtLeast(p jetstream.Position) ReadOption {
	return func(o *readOptions) { o.atLeast = p }
}

// NewReader opens a view of a store. V is what the definition's V is, or a part
// of it: values are JSON.
//
// Returns [ErrViewNotFound] when nobody has made the view within
// [ReaderConfig.OpenWait], and a [*DefinitionError] when it has no generation of
// [ReaderConfig.Version]. It, and every read, returns a [*jetstream.PermissionError]
// when the server does not let the program read the bucket.
func NewReader[V any](ctx context.Context, nc *nats.Conn, store, view string, cfg ReaderConfig) (*Reader[V], error) {
	if err := errors.Join(validateNames(store, view), cfg.Validate()); err != nil {
		return nil, err
	}
	r := &Reader[V]{b: newBucket(nc, store, view), cfg: cfg.withDefaults(), matches: maxMatches}
	r.b.seen = new(decoded)
	r.floor.renew()
	ctx, cancel := context.WithTimeout(ctx, max(r.cfg.OpenWait, attemptTimeout))
	defer cancel()
	began := time.Now()
	for wait := newBackoff(10*time.Millisecond, 200*time.Millisecond); ; {
		snap, err := r.b.read(ctx, 0, nil)
		switch {
		case err == nil && snap.pointer != nil:
			r.store = snap.pointer.Store
			g := snap.pointer.pick(r.cfg.Version)
			if g == nil {
				return nil, r.lacks(snap.pointer)
			}
			r.use.Store(g)
			return r, nil
		case err == nil || missing(err):
			err = r.b.absent()
			if time.Since(began) >= r.cfg.OpenWait {
				return nil, err
			}
		}
		if wire.Denied(err) {
			return nil, fmt.Errorf("open view %q: %w", view, err)
		}
		if stop := errors.Join(wait.next(ctx), closedError(nc)); stop != nil {
			return nil, fmt.Errorf("open view %q: %w", view, errors.Join(err, stop))
		}
	}
}

func (r *Reader[V]) lacks(p *pointer) error {
	e := &DefinitionError{
		View: r.b.view, Version: r.cfg.Version, Reason: "the view has no generation of this version that can be read",
		Advice: "wait until its updater has built it, or read with a program of the live version",
	}
	if g := p.live(); g != nil {
		e.Live = g.Version
	}
	return e
}

// View is the view's name, Store that of its store.
func (r *Reader[V]) View() string { return r.b.view }

// Store is the name of the view's store.
func (r *Reader[V]) Store() string { return r.b.store }

// Get returns a key's entry in one request. A key that the view does not hold is
// [ErrNotFound]; the entry then has key and position. Also returns a
// [*KeyError], with [AtLeast] a [*StaleError] or a
// jetstream.ForeignPositionError, and [ErrUnavailable].
func (r *Reader[V]) Get(ctx context.Context, key string, opts ...ReadOption) (Entry[V], error) {
	stored, err := encodeKey(key)
	if err != nil {
		return Entry[V]{Key: key}, err
	}
	subject := func(gen int) []string { return []string{r.b.keyPrefix(gen) + stored} }
	gen, snap, err := r.snapshot(ctx, readOpts(opts), subject)
	if err != nil {
		return Entry[V]{Key: key}, err
	}
	m := snap.messages[r.b.keyPrefix(gen)+stored]
	e, err := r.entry(key, gen, snap, m)
	r.served(snap, m)
	if errors.Is(err, ErrNotFound) {
		e = Entry[V]{Key: key, Generation: gen, Position: e.Position}
	}
	return e, err
}

// GetMany returns the entries of the keys that the view holds, as they stood
// together at one moment, in the order of keys; at most 1000 keys. Errors are
// those of [Reader.Get] but for [ErrNotFound].
func (r *Reader[V]) GetMany(ctx context.Context, keys []string, opts ...ReadOption) ([]Entry[V], error) {
	if len(keys) > scanKeys {
		return nil, &jetstream.InvalidError{
			Field: "keys", Value: strconv.Itoa(len(keys)), Reason: "are more than " + strconv.Itoa(scanKeys),
		}
	}
	stored := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if stored[i], err = encodeKey(key); err != nil {
			return nil, err
		}
	}
	gen, snap, err := r.snapshot(ctx, readOpts(opts), func(gen int) []string {
		subjects := make([]string, len(stored))
		for i, s := range stored {
			subjects[i] = r.b.keyPrefix(gen) + s
		}
		return subjects
	})
	if errors.Is(err, wire.ErrTooMany) {
		return nil, &jetstream.InvalidError{
			Field: "keys", Value: strconv.Itoa(len(keys)), Reason: "are more than one request or answer can hold",
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]Entry[V], 0, len(keys))
	for i, key := range keys {
		m := snap.messages[r.b.keyPrefix(gen)+stored[i]]
		e, err := r.entry(key, gen, snap, m)
		r.served(snap, m)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Position is how far the view is. Errors are those of [Reader.Get].
func (r *Reader[V]) Position(ctx context.Context, opts ...ReadOption) (jetstream.Position, error) {
	_, snap, err := r.snapshot(ctx, readOpts(opts), func(int) []string { return nil })
	if err != nil {
		return jetstream.Position{}, err
	}
	r.served(snap, nil)
	return makePosition(snap.checkpoint.Store, snap.checkpoint.Position), nil
}

func readOpts(opts []ReadOption) readOptions {
	var o readOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}
