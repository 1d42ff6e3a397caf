package aggregate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rossby-go/rossby/jetstream"
)

// lanes line up the commands of this process on one aggregate, in the order they
// came. Whoever finds the aggregate free works on its own command; those who come
// meanwhile wait, and are decided together.
type lanes struct {
	mu sync.Mutex
	// waiting holds an entry, empty perhaps, for each aggregate being worked on.
	waiting map[string][]*ticket
}

// ticket is a command's place in line.
type ticket struct {
	ctx context.Context //nolint:containedctx // of one call, which somebody else may work on
	req request
	// bound is how far back the command can have been handled already.
	bound   bound
	bounded bool
	// taken, unless nil, refuses the command, which was decided upon takenAt: a key
	// that it reserves is another's.
	taken   error
	takenAt jetstream.Head
	// alone tells that nobody else is there to work on the command, nor to wait
	// for it.
	alone bool
	stage atomic.Uint32
	// done is closed when res and err are set.
	done chan struct{}
	over bool
	res  Result
	err  error
}

// The stages of a ticket that somebody else works on.
const (
	// stageOpen: nothing of the command is on its way to the store.
	stageOpen uint32 = iota
	// stageSent: an append with its events is, or may be.
	stageSent
	// stageGone: the caller has left before that.
	stageGone
)

// enter takes a place in line.
func (l *lanes) enter(ctx context.Context, id string, req request) *ticket {
	t := &ticket{ctx: ctx, req: req}
	l.mu.Lock()
	defer l.mu.Unlock()
	queue, busy := l.waiting[id]
	if !busy {
		if l.waiting == nil {
			l.waiting = map[string][]*ticket{}
		}
		l.waiting[id] = nil
		t.alone = true
		return t
	}
	t.done = make(chan struct{})
	l.waiting[id] = append(queue, t)
	return t
}

// next returns who comes next, a bounded number. When nobody waits, the aggregate
// is free again.
func (l *lanes) next(id string, most int) []*ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.waiting[id]
	if len(queue) == 0 {
		delete(l.waiting, id)
		return nil
	}
	n := min(most, len(queue))
	if n == len(queue) {
		l.waiting[id] = nil
	} else {
		l.waiting[id] = queue[n:]
	}
	return queue[:n:n]
}

// back puts tickets at the head of the line again.
func (l *lanes) back(id string, tickets []*ticket) {
	if len(tickets) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[id] = append(tickets, l.waiting[id]...)
}

// length is how many wait, for all aggregates.
func (l *lanes) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, queue := range l.waiting {
		n += len(queue)
	}
	return n
}

// finish sets what came of the command.
func (t *ticket) finish(res Result, err error) {
	if t.over {
		return
	}
	t.over, t.res, t.err = true, res, err
	if t.done != nil {
		close(t.done)
	}
}

// sent marks that the command may be stored from now on. False tells that its
// caller has left: then it must not be.
func (t *ticket) sent() bool {
	return t.alone || t.stage.CompareAndSwap(stageOpen, stageSent) || t.stage.Load() == stageSent
}

// open marks that nothing of the command is on its way any more.
func (t *ticket) open() { t.stage.CompareAndSwap(stageSent, stageOpen) }

// left tells that nobody waits for the command, and nothing of it is on its way.
func (t *ticket) left() bool { return t.over || t.stage.Load() == stageGone }

// wait returns what came of the command. When the caller's context ends before,
// that is known to be nothing as long as nothing was sent: then it has left.
func (t *ticket) wait(typ, id string) (res Result, left bool, err error) {
	select {
	case <-t.done:
		return t.res, false, t.err
	case <-t.ctx.Done():
	}
	cause := context.Cause(t.ctx)
	if t.stage.CompareAndSwap(stageOpen, stageGone) {
		err = fmt.Errorf("%s %q: %w: the command waited for others: %w", typ, id, jetstream.ErrUnavailable, cause)
		return Result{}, true, err
	}
	select {
	case <-t.done:
		return t.res, false, t.err
	default:
		return Result{}, false, &jetstream.UnknownError{Type: typ, ID: id, Cause: cause}
	}
}

// together is the context of several commands: that of the first, but it ends
// only when all of theirs have, and at the last of their deadlines.
func together(tickets []*ticket) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(tickets[0].ctx))
	last, bounded := tickets[0].ctx.Deadline()
	for _, t := range tickets[1:] {
		at, ok := t.ctx.Deadline()
		bounded = bounded && ok
		if at.After(last) {
			last = at
		}
	}
	drop := func() {}
	if bounded {
		ctx, drop = context.WithDeadline(ctx, last)
	}
	remaining := new(atomic.Int64)
	remaining.Store(int64(len(tickets)))
	stops := make([]func() bool, len(tickets))
	for i, t := range tickets {
		stops[i] = context.AfterFunc(t.ctx, func() {
			if remaining.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		drop()
		cancel()
	}
}
