package projection

// queue holds what was read and is to be folded, whole transactions only.
type queue struct {
	items []item
	// until is the sequence up to which the items go, last the last commit that was
	// read, and pending the number of messages that the server had after it.
	until   uint64
	last    lastCommit
	pending uint64
	// carry is the begin of a transaction of which more is to come.
	carry []item
}

// take queues a chunk's items, but for a transaction of which more is to come.
func (q *queue) take(c *chunk) {
	q.pending, q.last = c.pending, c.last
	items := c.items
	if len(q.carry) > 0 {
		items = append(q.carry, items...)
		q.carry = nil
	}
	q.until = c.bound
	if n := len(items); n > 0 && items[n-1].end > c.pos {
		i := n - 1
		for i > 0 && items[i-1].start == items[n-1].start {
			i--
		}
		q.carry = append([]item(nil), items[i:]...)
		q.until = items[i].start - 1
		items = items[:i]
	}
	if len(q.items) > 0 {
		items = append(q.items, items...)
	}
	q.items = items
}

// group is the end of the transaction that begins at i.
func (q *queue) group(i int) int {
	n := i + 1
	for n < len(q.items) && q.items[n].start == q.items[i].start && q.items[n].end == q.items[i].end {
		n++
	}
	return n
}
