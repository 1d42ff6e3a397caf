package aggregate

import (
	"fmt"
	"sync"
	"time"
)

// task is a command in the hands of [workers].
type task interface {
	base() *job
	// enter gives the command its place among those for its aggregate, and returns
	// soon.
	enter()
	// await returns when nothing of the command runs any more.
	await()
	// answer says what came of it.
	answer()
}

// job is what workers know of a task.
type job struct {
	id    string
	since time.Time
	line  *line
	// late is called when the task is not done after patience, unless timer is
	// stopped. It is optional.
	late     func()
	patience time.Duration
	timer    *time.Timer
	// begun tells that it waits no more, prepared that others may look at what it has
	// made of itself; claimed that somebody answers it, or has.
	begun, prepared, claimed bool
}

func (j *job) base() *job { return j }

// workers run the tasks of many aggregates at once, a bounded number of them, and
// let those of one aggregate enter in the order in which they came. Once inside
// they are together: what waits there is decided and stored at once. Never more
// than a bound wait or run in all, and for one aggregate.
type workers struct {
	most, perID int

	mu     sync.Mutex
	closed bool
	// free are the aggregates that may run beside those that do; ready are those
	// that wait for others.
	free  int
	ready []*line
	lines map[string]*line
	count int
	// lately is how long tasks have taken, a moving average.
	lately time.Duration
	// open are the tasks that are not answered.
	open sync.WaitGroup

	// handOver gives a task to a goroutine that has nothing to do; resting counts
	// them. Their stacks have grown to what a command needs.
	handOver chan task
	resting  int
	over     chan struct{}
}

// line are the tasks of one aggregate.
type line struct {
	// count are those waiting and inside.
	count, inside int
	waiting       []task
	// entering tells that one is about to.
	entering bool
	// slot tells that the aggregate is one of those that may run; turn is how many
	// of its tasks have entered since.
	slot bool
	turn int
}

// turnMost is how many tasks of one aggregate may enter while others wait to be one
// of those that run: a busy one does not keep its place for ever.
const turnMost = 256

func newWorkers(parallel, most, perID int) *workers {
	return &workers{
		free: parallel, most: most, perID: perID, lines: map[string]*line{},
		handOver: make(chan task), over: make(chan struct{}),
	}
}

// submit takes a task, or returns a [*BusyError]. A task that was taken is answered
// once.
func (w *workers) submit(id string, t task) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lines[id]
	switch {
	case w.closed:
		return &BusyError{RetryAfter: retryAfterMin, Reason: "the service stops"}
	case w.count >= w.most:
		return w.busy(fmt.Sprintf("%d commands wait or run", w.count))
	case l != nil && l.count >= w.perID:
		return w.busy(fmt.Sprintf("%d commands for the aggregate wait or run", l.count))
	}
	w.count++
	w.open.Add(1)
	known := l != nil
	if !known {
		l = new(line)
		w.lines[id] = l
	}
	l.count++
	j := t.base()
	j.id, j.line, j.since = id, l, time.Now()
	l.waiting = append(l.waiting, t)
	if j.late != nil {
		j.timer = time.AfterFunc(j.patience, j.late)
	}
	switch {
	case known:
		w.next(l)
	case w.free > 0:
		w.free--
		l.slot = true
		w.next(l)
	default:
		l.entering = true // nobody, until it is its turn
		w.ready = append(w.ready, l)
	}
	return nil
}

// next lets the aggregate's next task enter, if there is one and none is about to.
func (w *workers) next(l *line) {
	if l.entering || len(l.waiting) == 0 || l.turn >= turnMost && len(w.ready) > 0 {
		return
	}
	l.turn++
	t := l.waiting[0]
	if l.waiting = l.waiting[1:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	l.entering, t.base().begun = true, true
	select {
	case w.handOver <- t:
	default:
		go w.work(t)
	}
}

// restingMost bounds the goroutines that have nothing to do.
const restingMost = 64

// work runs tasks, one after the other.
func (w *workers) work(t task) {
	for {
		w.run(t)
		if !w.rest(1) {
			return
		}
		select {
		case t = <-w.handOver:
			w.rest(-1)
		case <-w.over:
			return
		}
	}
}

func (w *workers) rest(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 && w.resting >= restingMost {
		return false
	}
	w.resting += n
	return true
}

// run sees a task through.
func (w *workers) run(t task) {
	t.enter()
	j := t.base()
	w.mu.Lock()
	j.line.entering, j.prepared = false, true
	j.line.inside++
	w.next(j.line)
	w.mu.Unlock()
	t.await()
	if w.leave(j) {
		t.answer()
		w.open.Done()
	}
}

// leave makes room, before the caller hears of its command and sends another. It
// tells whether the task is to be answered still.
func (w *workers) leave(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := j.line
	w.count--
	w.lately += (time.Since(j.since) - w.lately) / 8
	l.count--
	l.inside--
	switch {
	case l.inside > 0 || l.entering:
	case l.count == 0:
		delete(w.lines, j.id)
		w.release(l)
	default:
		// Its turn is over, and those who wait are next.
		l.turn = 0
		if len(w.ready) > 0 {
			w.release(l)
			l.entering = true // nobody, until it is its turn
			w.ready = append(w.ready, l)
		}
		w.next(l)
	}
	return j.claim()
}

// release passes an aggregate's slot on.
func (w *workers) release(l *line) {
	switch {
	case !l.slot:
	case len(w.ready) > 0:
		first := w.ready[0]
		w.ready = w.ready[1:]
		first.slot, first.entering, first.turn = true, false, 0
		w.next(first)
	default:
		w.free++
	}
	l.slot = false
}

func (j *job) claim() bool {
	first := !j.claimed
	j.claimed = true
	return first
}

// prepared lets others look at a task that is about to enter.
func (w *workers) prepared(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j.prepared = true
}

// giveUp answers a task that does not return, unless it has returned now, and lets
// another aggregate run in its place; or one that still waits, which must not begin
// any more. It counts until it returns, or it is its turn.
func (w *workers) giveUp(j *job, answer func(begun bool)) {
	w.mu.Lock()
	begun := j.begun
	if begun && !j.prepared {
		j.timer.Reset(overdueAfter)
		w.mu.Unlock()
		return
	}
	claimed := j.claim()
	if claimed && begun {
		w.release(j.line)
	}
	w.mu.Unlock()
	if claimed {
		answer(begun)
		w.open.Done()
	}
}

// Bounds of what the callers of a busy service are told.
const (
	retryAfterMin = 10 * time.Millisecond
	retryAfterMax = 2 * time.Second
)

// busy says when there may be room: when as much time has passed as commands take
// now, those that fill the queues are gone.
func (w *workers) busy(reason string) error {
	return &BusyError{
		RetryAfter: min(max(w.lately, retryAfterMin), retryAfterMax).Round(time.Millisecond), Reason: reason,
	}
}

// stop refuses new tasks and waits until those taken are answered.
func (w *workers) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.open.Wait()
	close(w.over)
}
