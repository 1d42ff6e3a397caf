package aggregate

import (
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

func newEntry(reconnects uint64, limit int) *entry {
	return &entry{reconnects: reconnects, recent: newRecent(limit)}
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
// reads its target's tail once. Never more than a bound.
const (
	rememberMin = 256
	rememberMax = 1 << 16
	rememberFor = 2 * commandSkew
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

// remembered is what the search for duplicates needs of a commit.
type remembered struct {
	sequence, previous uint64
	time               time.Time
	keys               []key
}

func remember(c *jetstream.Commit) remembered {
	m := remembered{sequence: c.Sequence, previous: c.PreviousSequence, time: c.Time}
	for i := range c.Decisions {
		if k := keyOf(&c.Decisions[i]); k != (key{}) {
			m.keys = append(m.keys, k)
		}
	}
	return m
}

// recent remembers commits of one aggregate, so that looking for a command or a
// trigger reads only what this process has not seen.
type recent struct {
	mu sync.Mutex
	// items are the latest commits, in order and without a gap. When commits of
	// other processes come between, the stretch before is kept as older until a
	// walk backwards joins the two.
	items, older []remembered
	// index finds the commits of both by their keys.
	index map[key]uint64
	// bytes is about what the commits and the index take; limit, unless 0, bounds
	// it.
	bytes, limit int
	// wanted is how far back a trigger was last looked for, if searched.
	wanted   uint64
	searched bool
}

func newRecent(limit int) *recent { return &recent{limit: limit} }

// What is counted for a commit that is remembered, and for each of its keys: in
// the list, and in the index.
const (
	rememberedBytes = 72
	keyBytes        = 64 + 112
)

func (m *remembered) size() int {
	n := rememberedBytes
	for _, k := range m.keys {
		n += keyBytes + len(k.command) + len(k.trigger.Subscriber) + len(k.trigger.EventID) + len(k.trigger.Step)
	}
	return n
}

func (r *recent) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// add takes a commit that is newer than all before it; others are known already.
func (r *recent) add(c *jetstream.Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := remember(c)
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
	newest := r.items[n-1].time
	if r.limit > 0 && r.bytes > r.limit {
		r.forget(r.older)
		r.older = nil
	}
	left := r.bytes
	for ; n-drop > 1; drop++ {
		m := &r.items[drop]
		if r.limit == 0 || left <= r.limit {
			wanted := newest.Sub(m.time) < rememberFor || r.searched && m.sequence > r.wanted
			if n-drop <= rememberMin || n-drop <= rememberMax && wanted {
				break
			}
		}
		left -= m.size()
	}
	r.forget(r.items[:drop])
	r.items = r.items[drop:]
}

func (r *recent) note(items []remembered) {
	if r.index == nil {
		r.index = map[key]uint64{}
	}
	for _, m := range items {
		r.bytes += m.size()
		for _, k := range m.keys {
			r.index[k] = m.sequence
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

// find looks a key up among what is remembered. When it is not there, gaps are
// where it may still be, newest first.
func (r *recent) find(k key, b bound) (sequence uint64, found bool, gaps []gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.since.IsZero() {
		r.wanted, r.searched = b.after, true
	}
	if seq, ok := r.index[k]; ok {
		return seq, true, nil
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
	if len(r.items) == 0 || len(r.items)+len(walked)+len(r.older) > rememberMax {
		return
	}
	size := 0
	for i := range walked {
		size += walked[i].size()
	}
	if r.limit > 0 && r.bytes+size > r.limit {
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

func (b bound) beyond(sequence uint64, stored time.Time) bool {
	return sequence <= b.after || stored.Before(b.since)
}

// reached tells whether nothing before the commit can hold the key.
func (b bound) reached(m *remembered) bool {
	return m.previous <= b.after || b.beyond(m.sequence, m.time)
}
