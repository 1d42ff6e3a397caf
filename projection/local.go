package projection

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// LocalBytesDefault is the default of [LocalConfig.MaxBytes].
const LocalBytesDefault = 64 << 20

// localOverhead is about what a key costs beside its bytes: map, entry, times.
const localOverhead = 320

// LocalConfig describes a [LocalView]. The zero value is right for most.
type LocalConfig struct {
	// MaxBytes bounds what is held, counted as keys and values are stored, with 320
	// bytes for each key. Defaults to [LocalBytesDefault].
	MaxBytes int
	// MaxKeys bounds the number of keys that are held. Defaults to 0, no bound but
	// MaxBytes.
	MaxKeys int
	// Prefix is what the keys that are held begin with. Defaults to all.
	Prefix string
}

// Validate reports every field that [NewLocalView] would refuse, joined.
func (c LocalConfig) Validate() error {
	var errs []error
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("LocalConfig.MaxBytes %d is negative", c.MaxBytes))
	}
	if c.MaxKeys < 0 {
		errs = append(errs, fmt.Errorf("LocalConfig.MaxKeys %d is negative", c.MaxKeys))
	}
	return errors.Join(errs...)
}

// LocalView holds a view in memory and keeps it fresh by a watch, for reads without a
// request. What it says is what one replica of the bucket had a moment ago: how long
// a moment, [LocalView.Status] tells. For no key it goes back. It is safe for
// concurrent use.
//
// When the view is larger than the bounds, keys that find no room are left out for
// good, and a Get of them asks the bucket, as [Reader.Get] does: open another local
// view when it has become smaller. The bucket is asked, too, when the watch has ended
// in an error. While a rebuilt view is read in, the old one is held
// beside it, and answers.
type LocalView[V any] struct {
	r      *Reader[V]
	cfg    LocalConfig
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.RWMutex
	view localState[V]
	// moved is closed when the position has changed, nil when nobody waits.
	moved chan struct{}
	err   error

	checked atomic.Int64
}

// localState is what is held.
type localState[V any] struct {
	held     map[string]*local[V]
	size     int
	complete bool // what is not held is not in the view
	cp       *checkpoint
	gen      int
	at       jetstream.Position
	seq      uint64
}

// local is one key that is held.
type local[V any] struct {
	entry Entry[V]
	err   error // of a value that V cannot hold
	size  int
}

// LocalStatus says what a [LocalView] holds, and how fresh it is.
type LocalStatus struct {
	// Position is how far the view was, Generation which one it was.
	Position   jetstream.Position
	Generation int
	// Keys and Bytes are what is held. Complete says that this is the whole view, or
	// all of it under the prefix.
	Keys, Bytes int
	Complete    bool
	// Checked is when the bucket was last read; it is read at least twice a second.
	// Written is when the view's updater last wrote, by its clock, which it does
	// every few seconds even when nothing happens: a replica that is cut off shows
	// there.
	Checked, Written time.Time
	// Connected says whether the connection is.
	Connected bool
	// Err is why the watch has ended, nil while it goes on, context.Canceled after
	// Close.
	Err error
}

// NewLocalView reads a view in, and returns when all of it is there; ctx bounds that
// only. The caller closes it. Errors are those of [Reader.Watch].
//
// Values are shared by all who get them, maps and slices in them too: do not change
// what you get.
func NewLocalView[V any](ctx context.Context, r *Reader[V], cfg LocalConfig) (*LocalView[V], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = LocalBytesDefault
	}
	// It outlives the call.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &LocalView[V]{r: r, cfg: cfg, cancel: cancel, done: make(chan struct{})}
	filler := &localFiller[V]{l: l, filled: make(chan struct{}), next: fresh[V]()}
	go func() {
		defer close(l.done)
		err := (&follow[V]{r: r, to: filler}).run(run)
		l.end(err)
	}()
	select {
	case <-filler.filled:
		return l, nil
	case <-l.done:
		cancel()
		return nil, fmt.Errorf("local copy of view %q: %w", r.b.view, l.err)
	case <-ctx.Done():
		l.Close()
		return nil, fmt.Errorf("local copy of view %q: %w", r.b.view, context.Cause(ctx))
	}
}

func fresh[V any]() localState[V] { return localState[V]{held: map[string]*local[V]{}, complete: true} }

// Close ends the watch. Reads ask the bucket from then on.
func (l *LocalView[V]) Close() {
	l.cancel()
	<-l.done
}

// end leaves everything to the bucket.
func (l *LocalView[V]) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.view.held, l.view.size, l.view.complete = nil, 0, false
	l.wake()
}

// wake tells those who wait for a position. The caller holds the lock.
func (l *LocalView[V]) wake() {
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// Get returns a key's entry, without a request when it is held. With [AtLeast] it
// waits until what is held has reached the position. Entries have the position of
// all that is held. Errors are those of [Reader.Get].
func (l *LocalView[V]) Get(ctx context.Context, key string, opts ...ReadOption) (Entry[V], error) {
	if len(opts) > 0 {
		if err := l.reach(ctx, readOpts(opts)); err != nil {
			return Entry[V]{Key: key}, err
		}
	}
	l.mu.RLock()
	h, gen, at, complete := l.view.held[key], l.view.gen, l.view.at, l.view.complete
	l.mu.RUnlock()
	if h != nil {
		e := h.entry
		e.Position = at
		return e, h.err
	}
	if !complete || !strings.HasPrefix(key, l.cfg.Prefix) {
		return l.r.Get(ctx, key, opts...)
	}
	if _, err := encodeKey(key); err != nil {
		return Entry[V]{Key: key}, err
	}
	return Entry[V]{Key: key, Generation: gen, Position: at}, ErrNotFound
}

// Position is how far the view was when it was last read. With [AtLeast] it waits.
func (l *LocalView[V]) Position(ctx context.Context, opts ...ReadOption) (jetstream.Position, error) {
	if err := l.reach(ctx, readOpts(opts)); err != nil {
		return jetstream.Position{}, err
	}
	l.mu.RLock()
	at, ended := l.view.at, l.err != nil
	l.mu.RUnlock()
	if ended {
		return l.r.Position(ctx, opts...)
	}
	return at, nil
}

// reach waits until what is held has reached a position, or nothing is held any more.
func (l *LocalView[V]) reach(ctx context.Context, o readOptions) error {
	want, err := l.r.sequence(o.atLeast)
	if err != nil || want == 0 {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.r.cfg.Wait)
		defer cancel()
	}
	for {
		l.mu.Lock()
		if l.view.seq >= want || l.err != nil {
			l.mu.Unlock()
			return nil
		}
		if l.moved == nil {
			l.moved = make(chan struct{})
		}
		moved, cp := l.moved, l.view.cp
		l.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return l.r.stale(o.atLeast, want, cp)
		}
	}
}

// Status says what is held and how fresh it is.
func (l *LocalView[V]) Status() LocalStatus {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := LocalStatus{
		Position: l.view.at, Generation: l.view.gen, Keys: len(l.view.held), Bytes: l.view.size, Complete: l.view.complete,
		Checked: time.Unix(0, l.checked.Load()).UTC(), Connected: l.r.b.nc.IsConnected(), Err: l.err,
	}
	if l.view.cp != nil {
		s.Written = l.view.cp.Time
	}
	return s
}

// localFiller puts what a watch tells into a local view.
type localFiller[V any] struct {
	l      *LocalView[V]
	filled chan struct{}
	// next is another generation that is being read in, and then takes the place;
	// also the first one.
	next    localState[V]
	loading bool
	ready   bool
	// changes wait until they are the state of one replica, so that reads see no
	// commit halfway.
	changes []localChange[V]
	size    int
}

type localChange[V any] struct {
	key  string
	held *local[V] // nil for a deletion
}

func (f *localFiller[V]) reset(int) error {
	f.next, f.loading, f.changes, f.size = fresh[V](), true, nil, 0
	return nil
}

func (f *localFiller[V]) message(gen int, key string, at jetstream.Position, m *wire.Message) error {
	if !strings.HasPrefix(key, f.l.cfg.Prefix) {
		return nil
	}
	c := localChange[V]{key: key}
	e, err := f.l.r.entryAt(key, gen, at, m)
	if !errors.Is(err, ErrNotFound) {
		c.held = &local[V]{entry: e, err: err, size: len(key) + len(m.Data) + localOverhead}
	}
	if !f.ready || f.loading {
		f.next.apply(c, f.admit(&f.next, c))
		return nil
	}
	f.changes = append(f.changes, c)
	f.size += len(key) + len(m.Data) + localOverhead
	if f.size > f.l.cfg.MaxBytes/4 {
		// More than may wait: it is seen as it comes.
		f.l.mu.Lock()
		defer f.l.mu.Unlock()
		f.apply()
	}
	return nil
}

// admit tells whether a key may be held. One that was left out once stays left out:
// reads have asked the bucket for it, and may have seen more than the watch has.
func (f *localFiller[V]) admit(s *localState[V], c localChange[V]) bool {
	if c.held == nil {
		return false
	}
	size, keys := s.size+c.held.size, len(s.held)
	if old := s.held[c.key]; old != nil {
		size -= old.size
	} else {
		keys++
		if !s.complete || f.ready && !f.l.view.complete && f.l.view.held[c.key] == nil {
			return false
		}
	}
	return size <= f.l.cfg.MaxBytes && (f.l.cfg.MaxKeys == 0 || keys <= f.l.cfg.MaxKeys)
}

func (s *localState[V]) apply(c localChange[V], admit bool) {
	old := s.held[c.key]
	if old != nil {
		s.size -= old.size
		delete(s.held, c.key)
	}
	switch {
	case c.held == nil && old != nil && !s.complete:
		// It keeps its place, so that it is held again when it comes again.
		gone := &local[V]{err: ErrNotFound, size: len(c.key) + localOverhead}
		gone.entry.Key, gone.entry.Generation = c.key, old.entry.Generation
		s.size += gone.size
		s.held[c.key] = gone
	case admit:
		s.size += c.held.size
		s.held[c.key] = c.held
	case c.held != nil:
		s.complete = false
	}
}

// apply makes changes visible. The caller holds the lock.
func (f *localFiller[V]) apply() {
	for _, c := range f.changes {
		f.l.view.apply(c, f.admit(&f.l.view, c))
	}
	f.changes, f.size = f.changes[:0], 0
}

func (f *localFiller[V]) whole(gen int, at jetstream.Position, _ uint64, cp *checkpoint) error {
	l := f.l
	l.checked.Store(time.Now().UnixNano())
	l.mu.Lock()
	defer l.mu.Unlock()
	if !f.ready || f.loading {
		if f.ready && !l.view.complete {
			f.next.complete = false
		}
		l.view, f.next = f.next, localState[V]{}
	}
	f.apply()
	_, seq := splitPosition(at)
	if seq > l.view.seq || l.view.gen != gen {
		l.view.gen, l.view.at, l.view.seq = gen, at, seq
		l.wake()
	}
	l.view.cp = cp
	if !f.ready {
		f.ready = true
		close(f.filled)
	}
	f.loading = false
	return nil
}
