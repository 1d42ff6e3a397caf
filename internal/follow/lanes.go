package follow

import (
	"container/heap"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

const (
	// laneQueueMax bounds the events a lane holds in memory, laneQueueFull those
	// it may hold while the window is more than half full.
	laneQueueMax  = 64
	laneQueueFull = 4
	// laneTriesKept is the number of attempts after which a lane gives its
	// events' memory back.
	laneTriesKept = 3
	// laneWaitKept is the longest wait for which a lane keeps its events.
	laneWaitKept = 250 * time.Millisecond
)

// laneState tells where a lane is; it is always in exactly one place.
type laneState int

const (
	laneReady   laneState = iota // in table.ready
	laneRunning                  // with a worker
	laneWaiting                  // in table.due
	laneParked                   // nowhere: waits for Resume
)

// lane is an order of events of which some in [from, to] are not done. It is
// dropped as soon as all are.
type lane struct {
	key       string
	from, to  uint64
	tries     int
	since     time.Time // of the first failure of the event at from
	step      int       // parts of the event at from that are done
	notBefore time.Time
	postponed bool // notBefore is this owner's affair, not the event's
	err       string
	state     laneState
	index     int // in table.due

	// queue holds the next events. With hole, later ones are missing behind it and
	// have to be read from the stream; none is added until they were.
	queue []wire.Message
	hole  bool
	// page is the size of the next read, misses the reads in a row that found
	// less than there must be.
	page, misses int
}

// blocked tells whether the lane waits for more than a free worker.
func (l *lane) blocked() bool {
	return l.state == laneParked || l.tries > 0 || l.misses > missesQuiet || l.state == laneWaiting && l.err != ""
}

// table holds the lanes. Its owner guards it with one mutex: position and lanes
// change together.
type table struct {
	window   int
	position uint64
	lanes    map[string]*lane
	ready    []*lane
	due      dueHeap
	queued   int // events in memory
	bytes    int // of the lanes in the encoded record
	dirty    bool
}

func newTable(window int, r record, now time.Time) *table {
	t := &table{window: window, position: r.Position, lanes: lanesOf(r, now)}
	for key, l := range t.lanes {
		t.bytes += laneBytes(key)
		switch l.state {
		case laneReady:
			t.ready = append(t.ready, l)
		case laneWaiting:
			heap.Push(&t.due, l)
		case laneRunning, laneParked:
			// Parked lanes are nowhere; none runs yet.
		}
	}
	return t
}

// accept takes the next event from the cursor and tells whether a lane became
// ready.
func (t *table) accept(m *wire.Message, key string, skip bool) bool {
	if m.Sequence <= t.position {
		return false
	}
	t.position, t.dirty = m.Sequence, true
	if skip {
		return false
	}
	l, known := t.lanes[key]
	if !known {
		l = &lane{key: key, from: m.Sequence}
		t.lanes[key] = l
		t.bytes += laneBytes(key)
		t.ready = append(t.ready, l)
	}
	l.to = m.Sequence
	if t.keeps(l) {
		l.queue = append(l.queue, *m)
		t.queued++
	} else {
		l.hole = true
	}
	return !known
}

// keeps tells whether the lane may hold one more event in memory.
func (t *table) keeps(l *lane) bool {
	n := len(l.queue)
	switch {
	case l.hole, l.state == laneParked, l.tries >= laneTriesKept:
		return false
	case n < laneQueueFull:
		return true
	default:
		return n < laneQueueMax && t.queued < t.window/2
	}
}

// take removes the next ready lane; nil when there is none.
func (t *table) take() *lane {
	if len(t.ready) == 0 {
		return nil
	}
	l := t.ready[0]
	t.ready[0] = nil
	t.ready = t.ready[1:]
	l.state = laneRunning
	return l
}

// again makes a running or waiting lane ready, behind the others.
func (t *table) again(l *lane) {
	l.state = laneReady
	t.ready = append(t.ready, l)
}

// done moves a running lane behind seq.
func (t *table) done(l *lane, seq uint64) {
	l.from, l.tries, l.misses, l.err, l.since = seq+1, 0, 0, "", time.Time{}
	l.step = 0
	t.dirty = true
	if len(l.queue) > 0 {
		l.queue[0] = wire.Message{}
		l.queue = l.queue[1:]
		t.queued--
	}
	if l.from > l.to {
		t.drop(l)
		return
	}
	t.again(l)
}

// drop forgets a lane that has nothing left to do.
func (t *table) drop(l *lane) {
	t.forget(l)
	delete(t.lanes, l.key)
	t.bytes -= laneBytes(l.key)
	t.dirty = true
}

// forget gives the memory of a lane's events back.
func (t *table) forget(l *lane) {
	t.queued -= len(l.queue)
	l.queue, l.hole = nil, true
}

// fill gives a running lane events that were read from the stream.
func (t *table) fill(l *lane, msgs []wire.Message) {
	l.queue, l.misses = msgs, 0
	t.queued += len(msgs)
	l.hole = msgs[len(msgs)-1].Sequence < l.to
}

// wait makes a running lane wait.
func (t *table) wait(l *lane, now time.Time, d time.Duration) {
	if d > laneWaitKept || l.tries >= laneTriesKept {
		t.forget(l)
	}
	l.state, l.notBefore, l.postponed = laneWaiting, now.Add(d), false
	heap.Push(&t.due, l)
	t.dirty = true
}

// park makes a running lane wait for a person.
func (t *table) park(l *lane) {
	t.forget(l)
	l.state = laneParked
	t.dirty = true
}

// wake makes the lanes ready whose time has come, and returns how many and when
// the next is due.
func (t *table) wake(now time.Time) (int, time.Time) {
	n := 0
	for len(t.due) > 0 {
		if t.due[0].notBefore.After(now) {
			return n, t.due[0].notBefore
		}
		t.again(heap.Pop(&t.due).(*lane)) //nolint:forcetypeassert // the heap holds nothing else
		n++
	}
	return n, time.Time{}
}

// resume makes a blocked lane ready at once with its attempts forgotten, and
// tells whether it was blocked.
func (t *table) resume(l *lane) bool {
	switch l.state {
	case laneParked:
	case laneWaiting:
		heap.Remove(&t.due, l.index)
	default:
		return false
	}
	l.tries, l.misses, l.since = 0, 0, time.Time{}
	t.dirty = true
	t.again(l)
	return true
}

// discard gives up what a blocked lane waits for, a part of the event or all of it,
// and makes the lane go on behind it.
func (t *table) discard(l *lane, whole bool) {
	if l.state == laneWaiting {
		heap.Remove(&t.due, l.index)
	}
	t.forget(l)
	l.tries, l.misses, l.since, l.err = 0, 0, time.Time{}, ""
	l.step++
	t.dirty = true
	if whole {
		l.from, l.step = l.from+1, 0
	}
	if l.from > l.to {
		t.drop(l)
		return
	}
	t.again(l)
}

// dueHeap orders the waiting lanes by time.
type dueHeap []*lane

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].notBefore.Before(h[j].notBefore) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *dueHeap) Push(x any) {
	l := x.(*lane) //nolint:forcetypeassert // the heap holds nothing else
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop implements [heap.Interface].
func (h *dueHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}
