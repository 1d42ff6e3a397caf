package aggregate

import (
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// entry is the cache's newest view of one aggregate.
type entry struct {
	mu         sync.Mutex
	view       *view
	reconnects uint64
	recent     *recent
}

// get returns the newest view, or nil when the connection was lost since: what
// was acknowledged before may not be what the next server has.
func (e *entry) get(reconnects uint64) *view {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.view == nil || e.reconnects != reconnects {
		return nil
	}
	return e.view
}

func (e *entry) recentOf() *recent {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.recent == nil {
		e.recent = new(recent)
	}
	return e.recent
}

// set takes a view unless a newer one was taken meanwhile.
func (e *entry) set(v *view, reconnects uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.view != nil && e.reconnects == reconnects && e.view.head.Sequence > v.head.Sequence {
		return
	}
	kept := *v
	kept.leader = false // true only for the request that asked
	e.view, e.reconnects = &kept, reconnects
}

// recentMax bounds the remembered commits of one aggregate.
const recentMax = 512

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

// recent remembers the latest commits of one aggregate, in order and without a
// gap, so that looking for a command or trigger reads only what this process has
// not seen. When another process's commits come between, the older stretch is
// kept until a walk backwards joins the two.
type recent struct {
	mu    sync.Mutex
	items []remembered
	older []remembered
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

// add takes a commit that is newer than all before it; others are known already.
func (r *recent) add(c *jetstream.Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := remember(c)
	switch n := len(r.items); {
	case n == 0 || r.items[n-1].sequence == m.previous:
	case r.items[n-1].sequence >= m.sequence:
		return
	default:
		if len(r.older) < n {
			r.older = r.items
		}
		r.items = nil
	}
	r.items = append(r.items, m)
	if len(r.items) > recentMax {
		r.items = append([]remembered(nil), r.items[recentMax/2:]...)
	}
}

// find looks a key up among what is remembered. When it is not there, complete
// tells whether the bound lies within; else next is the sequence of the newest
// commit that was not looked at.
func (r *recent) find(k key, b bound) (sequence uint64, found, complete bool, next uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.items) == 0 {
		return 0, false, true, 0
	}
	for i := len(r.items) - 1; i >= 0; i-- {
		m := r.items[i]
		if b.beyond(m.sequence, m.time) {
			return 0, false, true, 0
		}
		for _, have := range m.keys {
			if have == k {
				return m.sequence, true, true, 0
			}
		}
	}
	first := r.items[0]
	return 0, false, first.previous == 0 || first.previous <= b.after, first.previous
}

// extend puts an older commit in front of the remembered ones, if there is room,
// and tells whether that joined them to an older stretch, which is to be searched
// next.
func (r *recent) extend(c *jetstream.Commit) (joined bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.items) == 0 || r.items[0].previous != c.Sequence || len(r.items) >= recentMax {
		return false
	}
	if n := len(r.older); n > 0 && r.older[n-1].sequence == c.Sequence {
		r.items, r.older = append(r.older, r.items...), nil
		return true
	}
	r.items = append([]remembered{remember(c)}, r.items...)
	return false
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
