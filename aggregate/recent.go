package aggregate

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// entry is what this process remembers of one aggregate while one connection
// lasts.
type entry struct {
	// reconnects numbers the connection: what was acknowledged before may not be
	// what the next server has.
	reconnects uint64
	recent     *recent
	// charged is what the cache counts for it.
	charged int

	mu   sync.Mutex
	view *view
}

func newEntry(reconnects uint64, cacheBytes int) *entry {
	return &entry{reconnects: reconnects, recent: newRecent(cacheBytes)}
}

// size is about what the entry holds, in bytes.
func (e *entry) size() int {
	n := e.recent.size()
	if v := e.get(); v != nil {
		n += len(v.state)
	}
	return n
}

// get returns the newest view, or nil.
func (e *entry) get() *view {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.view
}

// set takes a view unless a newer one was taken meanwhile.
func (e *entry) set(v *view) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.view != nil && e.view.head.Sequence > v.head.Sequence {
		return
	}
	kept := *v
	kept.leader = false // true only for the request that asked
	e.view = &kept
}

// outdated drops the view unless it is newer than the sequence.
func (e *entry) outdated(sequence uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.view != nil && e.view.head.Sequence <= sequence {
		e.view = nil
	}
}

// What is remembered of one aggregate's commits: the newest few always; all of
// the last minutes, because ids that bear their time are searched that far; and
// as far back as a trigger was last looked for, so that a reactor that is behind
// reads its target's tail once. Never more bytes than a bound.
const (
	rememberMin    = 256
	rememberFor    = 2 * commandSkew
	rememberSurely = commandSkew + 10*time.Second
)

// key identifies a decision within an aggregate.
type key struct {
	command string
	trigger jetstream.Trigger
}

func keyOf(d *jetstream.Decision) key {
	if d.Kind == jetstream.KindTrigger {
		return key{trigger: d.Trigger}
	}
	return key{command: d.CommandID}
}

// hashed is what is remembered of a key: a busy aggregate has very many.
type hashed uint64

func (r *recent) hash(k key) hashed { return hashed(maphash.Comparable(r.seed, k)) }

// ambiguous stands in the index for keys of one hash in several commits: whoever
// looks for one of them has to read.
const ambiguous = 0

// remembered is what the search for duplicates needs of a commit.
type remembered struct {
	sequence, previous uint64
	// at is when it was first stored, in nanoseconds since 1970.
	at   int64
	keys []hashed
}

// firstStored is when a commit was stored, in the store that it was copied from if
// it was: what it holds was decided before.
func firstStored(c *jetstream.Commit) int64 {
	if c.Origin != nil {
		return c.Origin.Time.UnixNano()
	}
	return c.Time.UnixNano()
}

func (r *recent) remember(c *jetstream.Commit) remembered {
	m := remembered{sequence: c.Sequence, previous: c.PreviousSequence, at: firstStored(c)}
	for i := range c.Decisions {
		if k := keyOf(&c.Decisions[i]); k != (key{}) {
			if m.keys == nil {
				m.keys = make([]hashed, 0, len(c.Decisions)-i)
			}
			m.keys = append(m.keys, r.hash(k))
		}
	}
	return m
}

// recent remembers commits of one aggregate, so that looking for a command or a
// trigger reads only what this process has not seen.
type recent struct {
	// seed makes hashes that nobody outside can foresee.
	seed maphash.Seed

	mu sync.Mutex
	// items are the latest commits, in order and without a gap. When commits of
	// other processes come between, the stretch before is kept as older until a
	// walk backwards joins the two.
	items, older []remembered
	// index finds the commits of both by the hashes of their keys.
	index map[hashed]uint64
	// bytes is about what the commits and the index take. limit bounds it, but for
	// the newest commits, which most bounds.
	bytes, limit, most int
	// wanted is how far back a trigger was last looked for, if searched.
	wanted   uint64
	searched bool
}

// newRecent bounds what is remembered by a quarter of what the cache may hold, in
// bytes.
func newRecent(cacheBytes int) *recent {
	return &recent{seed: maphash.MakeSeed(), limit: cacheBytes / 4, most: cacheBytes}
}

// What is counted for a commit that is remembered, and for each of its keys: in
// the list, and in the index.
const (
	rememberedBytes = 72
	keyBytes        = 40
)

func (m *remembered) size() int { return rememberedBytes + keyBytes*len(m.keys) }

func (r *recent) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// add takes a commit that is newer than all before it; others are known already.
func (r *recent) add(c *jetstream.Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.remember(c)
	switch n := len(r.items); {
	case n == 0 || r.items[n-1].sequence == m.previous:
	case r.items[n-1].sequence >= m.sequence:
		return
	case len(r.older) < n:
		r.forget(r.older)
		r.older, r.items = r.items, nil
	default:
		r.forget(r.items)
		r.items = nil
	}
	r.items = append(r.items, m)
	r.note(r.items[len(r.items)-1:])
	r.trim()
}

// trim forgets the oldest commits that no search is likely to want.
func (r *recent) trim() {
	n, drop := len(r.items), 0
	newest := r.items[n-1].at
	if r.bytes > r.limit {
		r.forget(r.older)
		r.older = nil
	}
	left := r.bytes
	for ; n-drop > 1; drop++ {
		m := &r.items[drop]
		age := time.Duration(newest - m.at)
		// Every command with a time-bearing id looks a minute back: rather let all
		// else go than read that anew each time.
		limit := r.limit
		if age <= rememberSurely {
			limit = r.most
		}
		if left <= limit && (n-drop <= rememberMin || age < rememberFor || r.searched && m.sequence > r.wanted) {
			break
		}
		left -= m.size()
	}
	r.forget(r.items[:drop])
	r.items = r.items[drop:]
}

func (r *recent) note(items []remembered) {
	if r.index == nil {
		r.index = map[hashed]uint64{}
	}
	for _, m := range items {
		r.bytes += m.size()
		for _, k := range m.keys {
			if _, twice := r.index[k]; twice {
				r.index[k] = ambiguous
			} else {
				r.index[k] = m.sequence
			}
		}
	}
}

func (r *recent) forget(items []remembered) {
	for _, m := range items {
		r.bytes -= m.size()
		for _, k := range m.keys {
			if r.index[k] == m.sequence {
				delete(r.index, k)
			}
		}
	}
}

// gap is a stretch of the history that is not remembered: from the commit at
// newest backwards to the one after stop.
type gap struct{ newest, stop uint64 }

// find looks a key up among what is remembered: found is the commit that probably
// holds it. When there is none, gaps are where it may still be, newest first.
func (r *recent) find(k key, b bound) (sequence uint64, found bool, gaps []gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.since.IsZero() {
		r.wanted, r.searched = b.after, true
	}
	if seq, ok := r.index[r.hash(k)]; ok && seq != ambiguous {
		return seq, true, nil
	} else if ok {
		return 0, false, []gap{{newest: r.items[len(r.items)-1].sequence}}
	}
	if len(r.items) == 0 || b.reached(&r.items[0]) {
		return 0, false, nil
	}
	g := gap{newest: r.items[0].previous}
	if n := len(r.older); n > 0 {
		g.stop = r.older[n-1].sequence
		gaps = append(gaps, g)
		if b.reached(&r.older[0]) {
			return 0, false, gaps
		}
		g = gap{newest: r.older[0].previous}
	}
	return 0, false, append(gaps, g)
}

// join puts commits that were read, newest first, before the remembered ones,
// and the older stretch before those if that closes the gap.
func (r *recent) join(walked []remembered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.items) == 0 {
		return
	}
	size := 0
	for i := range walked {
		size += walked[i].size()
	}
	if r.bytes+size > r.limit {
		return
	}
	if len(walked) > 0 {
		if r.items[0].previous != walked[0].sequence {
			return // another search was faster, or newer commits came between
		}
		slices.Reverse(walked)
		r.note(walked)
		r.items = append(walked, r.items...)
	}
	if n := len(r.older); n > 0 && r.older[n-1].sequence == r.items[0].previous {
		r.items, r.older = append(r.older, r.items...), nil
	}
}

// bound is how far back a key can possibly be.
type bound struct {
	// after: commits up to this sequence cannot hold the key.
	after uint64
	// since: commits stored before this time cannot.
	since time.Time
}

func (b bound) beyond(sequence uint64, at int64) bool {
	return sequence <= b.after || !b.since.IsZero() && at < b.since.UnixNano()
}

// reached tells whether nothing before the commit can hold the key.
func (b bound) reached(m *remembered) bool {
	return m.previous <= b.after || b.beyond(m.sequence, m.at)
}
