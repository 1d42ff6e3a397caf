package projection

import "container/list"

// entry is what the bucket holds under a key, as far as the owner knows: it is
// the only writer.
type entry struct {
	// data is the value, nil when the key is not there.
	data []byte
	// seq is the stream sequence that it reflects, 0 for a key that was never written.
	seq uint64
	// index is what the value is found by.
	index []string
}

func (e *entry) exists() bool { return e.data != nil }

// size is about what the entry takes beside its key.
func (e *entry) size() int { return len(e.data) + indexBytes(e.index) }

// entryOverhead is about what a cached key costs beside its bytes.
const entryOverhead = 160

// cache remembers entries up to a number of bytes, the least recently used ones
// go first. It is not safe for concurrent use.
type cache struct {
	limit, size int
	byKey       map[string]*list.Element
	order       list.List // front: most recently used
	// complete says that what is not in the cache is not in the bucket.
	complete bool
}

type cached struct {
	key string
	entry
}

func newCache(limit int, complete bool) *cache {
	return &cache{limit: limit, byKey: map[string]*list.Element{}, complete: complete}
}

// get returns what is known of a key; known is false when it must be read.
func (c *cache) get(key string) (e entry, known bool) {
	el := c.byKey[key]
	if el == nil {
		return entry{}, c.complete
	}
	c.order.MoveToFront(el)
	return el.Value.(*cached).entry, true //nolint:forcetypeassert // only these are stored
}

func (c *cache) put(key string, e entry) {
	if el := c.byKey[key]; el != nil {
		v := el.Value.(*cached) //nolint:forcetypeassert // only these are stored
		c.size += e.size() - v.size()
		v.entry = e
		c.order.MoveToFront(el)
	} else {
		c.byKey[key] = c.order.PushFront(&cached{key: key, entry: e})
		c.size += len(key) + e.size() + entryOverhead
	}
	for c.size > c.limit && c.order.Len() > 0 {
		el := c.order.Back()
		v := el.Value.(*cached) //nolint:forcetypeassert // only these are stored
		c.size -= len(v.key) + v.size() + entryOverhead
		c.order.Remove(el)
		delete(c.byKey, v.key)
		c.complete = false
	}
}
