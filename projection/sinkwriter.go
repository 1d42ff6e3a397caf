package projection

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// sinkWriter writes pages into the sink, and the lease when there are none. It is
// one goroutine.
type sinkWriter struct {
	queue

	u *SinkUpdater
	// cp is the record as last written, at rev.
	cp    sinkCheckpoint
	rev   uint64
	wrote time.Time
	// measured and from are where the rate was measured last.
	measured time.Time
	from     uint64
	// barrier is the sequence of an event that failed: what stands before it is
	// written first, then its transaction alone. skip leaves it out if it fails,
	// left without a call.
	barrier uint64
	skip    bool
	left    string
	told    *control
	passed  atomic.Bool // the event at the barrier did not fail this time
	dog     watchdog
	tracer  *viewTracer // nil without tracing
}

// sinkOp is one event to be written.
type sinkOp struct {
	rec *jetstream.Recorded
	r   *route
	seq uint64
}

// errCommit says that the sink refuses the transaction, but no handler failed.
var errCommit = errors.New("the database refuses the transaction")

// run writes what was read, as much at once as has come meanwhile.
func (w *sinkWriter) run(ctx context.Context, in <-chan chunk) error {
	tick := time.NewTicker(max(w.u.cfg.LeaseTTL/12, 20*time.Millisecond))
	defer tick.Stop()
	for {
		full := w.full()
		if len(w.items) > 0 && (full || len(in) == 0) {
			if err := w.write(ctx); err != nil {
				return err
			}
			continue
		}
		// What the view does not follow moves its position, though not each by itself.
		var age <-chan time.Time
		if len(w.items) == 0 && w.until > w.cp.Position {
			if since := time.Since(w.wrote); since < pageAgeTail {
				age = time.After(pageAgeTail - since)
			} else if err := w.put(ctx, w.next(nil), nil); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-in:
			w.take(&c)
		case <-age:
		case <-tick.C:
			if time.Since(w.wrote) >= w.u.cfg.LeaseTTL/4 {
				if err := w.put(ctx, w.cp, nil); err != nil {
					return err
				}
			}
		}
	}
}

func (w *sinkWriter) full() bool {
	if len(w.items) >= w.u.cfg.PageEvents {
		return true
	}
	size := 0
	for i := range w.items {
		size += w.items[i].bytes
	}
	return size >= w.u.cfg.PageBytes
}

// cut is the number of items, whole transactions, that is at most n, or those of
// the first transaction.
func (w *sinkWriter) cut(n int) int {
	end := w.group(0)
	for end < n && end < len(w.items) {
		next := w.group(end)
		if next > n {
			break
		}
		end = next
	}
	return end
}

// write writes one page of what waits.
func (w *sinkWriter) write(ctx context.Context) error {
	n, careful := w.cut(w.u.cfg.PageEvents), false
	if w.barrier != 0 {
		before := 0
		for before < len(w.items) && w.items[before].end < w.barrier {
			before++
		}
		if before > 0 {
			n = min(n, before)
		} else {
			n, careful = w.group(0), true
		}
	}
	took := &w.u.took
	measured := took.fold.Now()
	for began := w.tracer.now(); ; {
		err := w.page(ctx, n, careful)
		if err == nil {
			w.tracer.landed(w.tracer.note(nil, w.items[:n], began))
			if !measured.IsZero() {
				took.landed(ctx, time.Since(measured), w.cp.Last.Time)
			}
			break
		}
		if !errors.Is(err, errCommit) || n <= w.group(0) {
			return err
		}
		n = w.cut(n / 2) // Find out which one it is.
	}
	if careful {
		w.barrier, w.skip, w.left = 0, false, ""
		w.passed.Store(true)
	}
	w.items = w.items[n:]
	return nil
}

// next is the record after the first n items have been written, nil for all.
func (w *sinkWriter) next(items []item) sinkCheckpoint {
	next := w.cp
	if len(items) < len(w.items) {
		next.Position = w.items[len(items)].start - 1
	} else {
		next.Position = w.until
		if w.last.Sequence <= w.until && w.last.Sequence > next.Last.Sequence {
			next.Last = w.last
		}
	}
	if n := len(items); n > 0 && items[n-1].err == nil {
		if c := items[n-1].commit; c.Sequence > next.Last.Sequence {
			next.Last = lastCommit{Sequence: c.Sequence, Commit: c.CommitID, Time: c.Time}
		}
	}
	return next
}

// page writes the first n items in one transaction. Carefully, with skip, events
// that fail are left out.
func (w *sinkWriter) page(ctx context.Context, n int, careful bool) error {
	next := w.next(w.items[:n])
	ops, err := w.decode(w.items[:n], &next)
	if err != nil {
		return err
	}
	for {
		err := w.put(ctx, next, ops)
		if errors.Is(err, errCommit) && n <= w.group(0) && len(ops) > 0 {
			op := &ops[len(ops)-1]
			err = w.failure(op, err)
		}
		fold, ok := errors.AsType[*FoldError](err)
		if !ok || !careful || !w.skip {
			return err
		}
		w.u.log.Error("view leaves an event out", "error", err)
		next.leave(fold)
		rest := ops[:0:0]
		for i := range ops {
			if ops[i].rec.EventID != fold.EventID {
				rest = append(rest, ops[i])
			}
		}
		ops = rest
	}
}

// decode gives the events of items that the view handles.
func (w *sinkWriter) decode(items []item, next *sinkCheckpoint) ([]sinkOp, error) {
	var ops []sinkOp
	for i := range items {
		it := &items[i]
		if w.told.skips(it.commit.Sequence, "") {
			w.leave(it.commit.Sequence, "", next)
			continue
		}
		var events []jetstream.Recorded
		err := it.err
		if err == nil {
			events, err = w.u.decoder.Events(w.u.store, it.commit)
		}
		if err != nil {
			return nil, &FoldError{
				View: w.u.core.view, Event: "?", Type: it.commit.Type, ID: it.commit.ID,
				Sequence: it.commit.Sequence, Cause: err, final: true,
			}
		}
		for j := range events {
			rec := &events[j]
			r := w.u.core.routeOf(rec.Event)
			switch {
			case r == nil:
			case w.told.skips(it.commit.Sequence, rec.EventID):
				w.leave(it.commit.Sequence, rec.EventID, next)
			case w.left != "" && w.left == rec.EventID:
				err := fmt.Errorf("%w: more than %v", ErrFoldTimeout, w.u.cfg.FoldTimeout)
				fold := w.fold(&sinkOp{rec: rec, seq: it.commit.Sequence}, err)
				w.u.log.Error("view leaves an event out", "error", fold)
				next.leave(fold)
			default:
				ops = append(ops, sinkOp{rec: rec, r: r, seq: it.commit.Sequence})
			}
		}
	}
	return ops, nil
}

// leave leaves out what people have said to.
func (w *sinkWriter) leave(sequence uint64, eventID string, next *sinkCheckpoint) {
	next.Skipped++
	w.u.log.Warn("view leaves an event out, as it was told", "sequence", sequence, "event", eventID)
}

// put writes events and a record in one transaction. When it is not known what
// became of that, the session ends: who takes the view then, this instance again or
// another, writes the record first, and so finds out or prevents it.
func (w *sinkWriter) put(ctx context.Context, next sinkCheckpoint, ops []sinkOp) error {
	now := time.Now()
	next.Flush, next.Time = w.cp.Flush+1, now.UTC()
	next.passed()
	if took := now.Sub(w.measured); took > 2*time.Second {
		if !w.measured.IsZero() {
			next.Rate = float64(next.Position-w.from) / took.Seconds()
		}
		w.measured, w.from = now, next.Position
	}
	w.u.done("put")
	late := time.AfterFunc(sinkPatience, func() {
		w.u.trouble(fmt.Errorf("%w: for %v it has not answered", ErrNotTaken, sinkPatience))
	})
	defer func() {
		if !late.Stop() && w.cp.Flush == next.Flush {
			w.u.trouble(nil) // It has answered.
		}
	}()
	var failed error
	err := w.u.put(ctx, w.rev, &next, func(tx any) error {
		failed = nil
		for i := range ops {
			if err := w.call(ctx, tx, &ops[i]); err != nil {
				failed = w.failure(&ops[i], err)
				return failed
			}
		}
		w.u.done("applied")
		// A handler that came back too late must not be committed.
		return context.Cause(ctx)
	})
	switch {
	case err == nil && failed != nil:
		return fmt.Errorf("%w: it committed although the handlers failed: %w", ErrSink, failed)
	case err == nil:
		w.u.done("stored")
		w.cp, w.rev, w.wrote = next, w.rev+1, time.Now()
		w.u.position.Store(next.Position)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrSinkConflict):
		return errLost
	case failed != nil:
		return failed
	case w.u.sink.transient(err):
		return err
	case len(ops) == 0:
		return w.u.fault(err)
	}
	return fmt.Errorf("%w: %w", errCommit, err)
}

// call runs the user's handler.
func (w *sinkWriter) call(ctx context.Context, tx any, o *sinkOp) (err error) {
	w.dog.begin(o.rec, nil)
	defer func() {
		w.dog.end()
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
		}
	}()
	return o.r.sink(ctx, tx, o.rec.Event, &o.rec.Meta)
}

// failure is what an error means for the event that it came with: nothing, when it
// may pass by itself.
func (w *sinkWriter) failure(o *sinkOp, err error) error {
	if w.u.sink.transient(err) {
		return err
	}
	return w.fold(o, err)
}

func (w *sinkWriter) fold(o *sinkOp, err error) *FoldError {
	return &FoldError{
		View: w.u.core.view, Event: o.rec.Name, Type: o.rec.Type, ID: o.rec.ID, EventID: o.rec.EventID,
		Sequence: o.seq, Cause: err,
	}
}
