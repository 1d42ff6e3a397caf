package projection

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// tailPending is the number of messages behind which a view counts as catching
// up: pages then grow to their bounds, since a key is written once per page.
const tailPending = 256

// pageAgeTail and pageAgeCatchUp bound how long a page is open.
const (
	pageAgeTail    = 50 * time.Millisecond
	pageAgeCatchUp = 10 * time.Second
)

// slot is a key of a page.
type slot struct {
	key    string
	base   entry
	value  any // *V, nil until the base was decoded
	exists bool
	gone   bool // set by a fold: delete
	seq    uint64
	// out is what will be written, index what it is found by, gained and lost how
	// that differs from the base.
	out                 []byte
	index, gained, lost []string
}

// moves tells whether the slot changes an index.
func (s *slot) moves() bool { return len(s.gained)+len(s.lost) > 0 }

// writes is the number of messages that the slot takes.
func (s *slot) writes() int { return 1 + len(s.gained) + len(s.lost) }

// parted are the slots that change no index, and those that do.
func parted(slots []*slot) (plain, moving []*slot) {
	for _, s := range slots {
		if s.moves() {
			moving = append(moving, s)
		} else {
			plain = append(plain, s)
		}
	}
	return plain, moving
}

// page is a stretch of the stream folded in memory.
type page struct {
	slots map[string]*slot
	// changed are the slots that were folded into, later those to be written.
	changed []*slot
	pos     uint64
	last    lastCommit
	events  int
	// writes is the number of messages that a lookup view's page takes.
	writes int
	// bytes is about what the page takes. heavy says that it was looked at closely
	// and is as large as it may be.
	bytes   int
	heavy   bool
	skipped uint64
	opened  time.Time
	// traced are the decisions that the page takes into the view.
	traced []traced
	// folding is how long folding it took, if that is measured.
	folding time.Duration
}

func newPage(pos uint64) *page {
	return &page{slots: map[string]*slot{}, pos: pos, opened: time.Now()}
}

// folder turns chunks into pages. It is one goroutine.
type folder struct {
	core    *core
	cfg     *UpdaterConfig
	log     *slog.Logger
	store   jetstream.Positions
	decoder *jetstream.Decoder
	b       *bucket // nil in a rehearsal
	gen     int
	epoch   uint64
	rev     *atomic.Uint64 // the checkpoint's revision as last acknowledged
	cache   *cache

	queue

	page     *page
	inflight *page
	written  uint64 // the position that is in the bucket
	// barrier is the sequence of an event that failed: what stands before it is
	// written first, then it is folded alone. skip leaves it out if it fails.
	barrier uint64
	skip    bool
	force   bool
	passed  atomic.Bool // the event at the barrier did not fail this time
	ops     []op
	// told are the events to leave out on command, left is one whose fold never
	// came back.
	told *control
	left string
	// doubt is a key whose value cannot be stored: it is looked at after each of its
	// events, so that the one is found that makes it so.
	doubt string
	// only, when set, are the keys that are folded: see [refold].
	only map[string]struct{}
	dog  watchdog
	step func(string)
	// tracer is nil without tracing.
	tracer *viewTracer
	took   viewDurations
}

// leave tells whether an event is to be left out without a look at it. eventID is
// empty for a whole commit.
func (f *folder) leave(sequence uint64, eventID string) bool {
	if len(f.told.Skips) == 0 && f.left == "" {
		return false
	}
	if !f.told.skips(sequence, eventID) && (f.left == "" || f.left != eventID) {
		return false
	}
	f.page.skipped++
	f.log.Warn("view leaves an event out, as it was told", "sequence", sequence, "event", eventID)
	return true
}

// op is one event for one key.
type op struct {
	slot *slot
	r    *route
	rec  *jetstream.Recorded
	seq  uint64
}

// run folds chunks and hands pages to the flusher, one at a time.
func (f *folder) run(ctx context.Context, in <-chan chunk, pages chan<- *page, done <-chan *page) error {
	for {
		if err := f.work(ctx); err != nil {
			return err
		}
		if f.inflight == nil && f.due(len(in)) {
			if err := f.seal(); err != nil {
				return err
			}
			f.step("folded")
			f.inflight = f.page
			f.page = newPage(f.inflight.pos)
			f.force = false
			select {
			case pages <- f.inflight:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		chunks := in
		if len(f.items) > 0 || f.full() {
			chunks = nil
		}
		var age <-chan time.Time
		if f.inflight == nil && f.page.events > 0 {
			age = time.After(pageAgeTail)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-chunks:
			f.take(&c)
		case p := <-done:
			f.landed(ctx, p)
		case <-age:
		}
	}
}

// work folds the queue as far as the page and a barrier allow.
func (f *folder) work(ctx context.Context) error {
	for len(f.items) > 0 && !f.full() {
		n := len(f.items)
		careful := false
		if f.barrier != 0 {
			for i := range f.items {
				if f.items[i].end >= f.barrier {
					n = i
					break
				}
			}
			if n == 0 {
				if f.page.events > 0 || f.inflight != nil {
					f.force = true
					return nil
				}
				careful, n = true, f.group(0)
			}
		}
		if f.core.kind == kindLookup && !careful {
			n = f.group(0)
		}
		items, began := f.items[:n], f.tracer.now()
		err := f.measured(ctx, items, careful)
		if errors.Is(err, errPageFull) {
			f.force = true
			return nil
		}
		if err != nil {
			return err
		}
		f.items = f.items[n:]
		f.page.traced = f.tracer.note(f.page.traced, items, began)
		if f.page.events == 0 {
			f.page.opened = time.Now()
		}
		f.page.events += n
		c := items[n-1].commit
		f.page.last = lastCommit{Sequence: c.Sequence, Commit: c.CommitID, Time: c.Time}
		f.page.pos = f.until
		if len(f.items) > 0 {
			f.page.pos = f.items[0].start - 1
		}
		if careful {
			f.barrier, f.skip, f.force = 0, false, true
			f.passed.Store(true)
		}
		if err := f.weigh(); err != nil {
			return err
		}
	}
	if len(f.items) == 0 && !f.full() {
		f.page.pos = max(f.page.pos, f.until)
		if f.last.Sequence <= f.page.pos && f.last.Sequence > f.page.last.Sequence {
			f.page.last = f.last
		}
	}
	return nil
}

// measured folds, and notes how long that took.
func (f *folder) measured(ctx context.Context, items []item, careful bool) error {
	if f.took.fold == nil {
		return f.fold(ctx, items, careful)
	}
	began := time.Now()
	defer func() { f.page.folding += time.Since(began) }()
	return f.fold(ctx, items, careful)
}

// weigh puts what the page's values take, by a sample of them, in the place of
// what their events took: those are gone once they are folded.
func (f *folder) weigh() error {
	p := f.page
	if f.core.kind != kindKeyed || p.bytes < f.cfg.PageBytes || p.heavy {
		return nil
	}
	const sample = 64
	step, n, sum := max(len(p.changed)/sample, 1), 0, 0
	for i := 0; i < len(p.changed); i += step {
		s := p.changed[i]
		n++
		if s.value == nil {
			continue
		}
		data, err := encodeValue(s)
		if err != nil {
			return err
		}
		sum += 2*len(data) + len(s.base.data)
	}
	p.bytes = len(p.slots) * 2 * entryOverhead
	if n > 0 {
		p.bytes += sum / n * len(p.slots)
	}
	p.heavy = p.bytes > f.cfg.PageBytes/4*3
	return nil
}

func (f *folder) full() bool {
	return f.force || f.page.heavy || f.page.bytes >= f.cfg.PageBytes || f.page.events >= f.cfg.PageEvents
}

// due tells whether the page should be written now; queued is the number of
// chunks that wait.
func (f *folder) due(queued int) bool {
	switch {
	case f.page.pos <= f.written:
		f.force = f.force && f.page.events > 0
		return false
	case f.full():
		return true
	case f.pending < tailPending:
		return queued == 0 || time.Since(f.page.opened) > pageAgeTail
	}
	return time.Since(f.page.opened) > pageAgeCatchUp
}

// errPageFull says that the page must be written before the fold can go on.
var errPageFull = errors.New("the page is full")

func (f *folder) fold(ctx context.Context, items []item, careful bool) error {
	if f.core.kind == kindLookup {
		return f.foldLookup(ctx, items, careful)
	}
	return f.foldKeyed(ctx, items, careful)
}

// events are a commit's events for the view.
func (f *folder) events(it *item) ([]jetstream.Recorded, error) {
	fail := func(err error) error {
		return &FoldError{
			View: f.core.view, Event: "?", Type: it.commit.Type, ID: it.commit.ID,
			Sequence: it.commit.Sequence, Cause: err, final: true,
		}
	}
	if len(f.told.Skips) > 0 && f.told.skips(it.commit.Sequence, "") {
		f.leave(it.commit.Sequence, "")
		return nil, nil
	}
	if it.err != nil {
		return nil, fail(it.err)
	}
	events, err := f.decoder.Events(f.store, it.commit)
	if err != nil {
		return nil, fail(err)
	}
	return events, nil
}

// load reads the bases of slots: together with the checkpoint, which proves that
// the answer is not older than what this owner has written.
func (f *folder) load(ctx context.Context, slots []*slot) error {
	for size := maxSnapshotKeys; len(slots) > 0; {
		n := min(size, len(slots))
		err := f.loadSome(ctx, slots[:n])
		if errors.Is(err, wire.ErrTooMany) && n > 1 {
			size = n / 2
			continue
		}
		if err != nil {
			return err
		}
		slots = slots[n:]
	}
	return nil
}

func (f *folder) loadSome(ctx context.Context, slots []*slot) error {
	prefix := f.b.keyPrefix(f.gen)
	subjects := make([]string, len(slots))
	for i, s := range slots {
		stored, err := encodeKey(s.key)
		if err != nil {
			return err
		}
		subjects[i] = prefix + stored
	}
	for wait := newBackoff(time.Millisecond, 500*time.Millisecond); ; {
		floor := f.rev.Load()
		snap, err := f.b.read(ctx, f.gen, subjects)
		switch {
		case errors.Is(err, wire.ErrTooMany):
			return err
		case err == nil && snap.checkpoint != nil && snap.revision >= floor:
			if snap.checkpoint.Epoch != f.epoch {
				return errLost
			}
			for i, s := range slots {
				if m := snap.messages[subjects[i]]; m != nil {
					s.base = entry{seq: reflects(m), index: m.Header[headerIndex]}
					if !deleted(m) {
						s.base.data = m.Data
						if s.base.data == nil {
							s.base.data = []byte{}
						}
					}
				}
				s.exists = s.base.exists()
			}
			return nil
		case f.b.nc.IsClosed():
			return closedError(f.b.nc)
		}
		if err := wait.next(ctx); err != nil {
			return err
		}
	}
}

// landed remembers what a written page left in the bucket.
func (f *folder) landed(ctx context.Context, p *page) {
	f.tracer.landed(p.traced)
	if p.events > 0 {
		f.took.landed(ctx, p.folding, p.last.Time)
	}
	for _, s := range p.slots {
		if s.seq == 0 {
			f.cache.put(s.key, s.base)
			continue
		}
		f.cache.put(s.key, entry{data: s.out, seq: s.seq, index: s.index})
	}
	f.written = p.pos
	f.inflight = nil
	f.force = f.force && f.page.events > 0
}
