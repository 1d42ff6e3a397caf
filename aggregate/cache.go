package aggregate

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache keeps what this process remembers of aggregates, the least recently used
// out first, by bytes: aggregates differ too much in size to be counted. The one
// used last stays, whatever it takes.
type cache struct {
	most int

	mu      sync.Mutex
	lru     *simplelru.LRU[string, *entry]
	bytes   int
	evicted uint64
}

// entryOverhead is about what an entry takes beside its state and the commits it
// remembers: itself, its places in the list and the map, its view.
const entryOverhead = 800

func newCache(most int) (*cache, error) {
	const unbounded = 1 << 30 // bytes bound it
	lru, err := simplelru.NewLRU[string, *entry](unbounded, nil)
	return &cache{most: most, lru: lru}, err
}

func (c *cache) get(id string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, _ := c.lru.Get(id)
	return e
}

// keep returns the entry of the connection, or puts e in its place.
func (c *cache) keep(id string, e *entry) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.lru.Get(id); ok {
		if old.reconnects >= e.reconnects {
			if old.reconnects == e.reconnects {
				return old
			}
			return e // of a connection that is over: for this request only
		}
		c.bytes -= old.charged
	}
	e.charged = len(id) + entryOverhead
	c.bytes += e.charged
	c.lru.Add(id, e)
	return e
}

func (c *cache) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.lru.Peek(id); ok {
		c.bytes -= e.charged
		c.lru.Remove(id)
	}
}

// charge counts what an entry takes by now, and makes room.
func (c *cache) charge(id string, e *entry) {
	size := len(id) + entryOverhead + e.size()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.lru.Peek(id); !ok || now != e {
		return
	}
	c.bytes += size - e.charged
	e.charged = size
	for c.bytes > c.most && c.lru.Len() > 1 {
		_, old, _ := c.lru.RemoveOldest()
		c.bytes -= old.charged
		c.evicted++
	}
}

// figures are for [Stats].
func (c *cache) figures() (entries, bytes int, evicted uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len(), c.bytes, c.evicted
}
