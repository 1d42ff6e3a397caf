package projection

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

const (
	// watchPoll is how often a watch looks even when nothing calls it.
	watchPoll = 500 * time.Millisecond
	// watchFault is the longest wait after a fault.
	watchFault = 500 * time.Millisecond
)

// follow reads what changes in a view's bucket, in the order of revisions, and tells
// it. It never goes back, so nothing is told twice.
//
// A page comes from any replica, and replicas are prefixes of the leader. One page
// that reaches the end of its replica leaves nothing out. When several pages are
// needed, a key that one of them no longer had, since it was written again, may not
// be there yet on the replica of the next. What was told is then the state of no
// replica, until a page ends where the leader was after the last of them.
type follow[V any] struct {
	r   *Reader[V]
	key string // the only key to follow, or ""
	to  follower

	gen     int
	made    time.Time
	began   bool
	pointed uint64 // the pointer's revision
	after   uint64 // everything up to there was told
	edge    uint64 // what a page must reach, 0 while the leader was not asked
	one     bool   // what was told is the state of one replica
	told    bool   // a page was told before, so a key may come again
	// cp is the newest checkpoint that was seen, of revision rev.
	cp  *checkpoint
	rev uint64
	at  jetstream.Position // of the last state of one replica
	// looked is when the generation was last looked at, floor where the revisions of
	// its bucket are remembered.
	looked time.Time
	floor  *atomic.Uint64
}

// follower is told what happens; an error ends it.
type follower interface {
	// reset says that everything comes again, from another generation.
	reset(gen int) error
	message(gen int, key string, at jetstream.Position, m *wire.Message) error
	// whole says that what was told is all that one replica had at a position.
	whole(gen int, at jetstream.Position, after uint64, cp *checkpoint) error
}

// run follows until ctx ends or an error that waiting does not mend.
func (f *follow[V]) run(ctx context.Context) error {
	b := f.r.b
	wake := make(chan struct{}, 1)
	sub, err := b.nc.Subscribe(b.prefix+"_rossby.>", func(*nats.Msg) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	poll, fault := watchPoll, newBackoff(5*time.Millisecond, watchFault)
	for {
		more, err := f.step(ctx)
		if stop := errors.Join(context.Cause(ctx), closedError(b.nc)); stop != nil {
			return stop
		}
		switch {
		case passing(err):
			_ = fault.next(ctx)
			continue
		case err != nil:
			return err
		case more:
			continue
		}
		fault = newBackoff(5*time.Millisecond, watchFault)
		t := time.NewTimer(poll)
		select {
		case <-ctx.Done():
		case <-wake:
			// The write is seen before it is stored: look again soon, then less often.
			poll = time.Millisecond
		case <-t.C:
			poll = min(2*poll, watchPoll)
		}
		t.Stop()
	}
}

// passing tells faults that are waited out.
func passing(err error) bool {
	return (errors.Is(err, ErrUnavailable) || errors.Is(err, errOld)) && !wire.Denied(err)
}

// step tells what has changed; more says that there is more to read now.
func (f *follow[V]) step(ctx context.Context) (more bool, err error) {
	if !f.began || f.key != "" || time.Since(f.looked) >= watchPoll {
		if err := f.look(ctx); err != nil || f.key != "" {
			return false, err
		}
	}
	page, err := f.r.b.page(ctx, f.after)
	if err != nil {
		return false, errors.Join(ErrUnavailable, err)
	}
	end := f.after
	if n := len(page.Messages); n > 0 {
		end = page.Messages[n-1].Sequence
	}
	whole := page.Pending == 0
	if whole && !f.one {
		if f.edge == 0 {
			if f.edge, err = f.r.b.end(ctx, f.gen); err != nil {
				return false, errors.Join(ErrUnavailable, err)
			}
		}
		whole = end >= f.edge
	}
	if err := f.checkpoints(page.Messages); err != nil {
		return false, err
	}
	if whole && f.cp != nil && f.rev <= end {
		f.at = makePosition(f.r.store, f.cp.Position)
	}
	gen := f.gen
	for i := range page.Messages {
		if err := f.message(&page.Messages[i]); err != nil {
			return false, err
		}
		if f.gen != gen {
			return true, nil // All of it is read again.
		}
	}
	f.told = true
	switch {
	case whole:
		f.one, f.edge = true, 0
		return false, f.to.whole(f.gen, f.at, f.after, f.cp)
	case page.Pending > 0:
		f.one, f.edge = false, 0
		return true, nil
	}
	return false, errOld
}

// look finds the generation, and notices when it is another one, or the bucket is.
// With only one key to follow, it reads that, too.
func (f *follow[V]) look(ctx context.Context) error {
	if !f.began && f.after > 0 {
		// Whoever gave the token out may have seen a newer replica.
		if err := f.r.raise(ctx, f.gen); err != nil && !errors.Is(err, ErrTokenExpired) {
			return err
		}
	}
	stored := ""
	if f.key != "" {
		var err error
		if stored, err = encodeKey(f.key); err != nil {
			return err
		}
	}
	gen, snap, err := f.r.snapshot(ctx, readOptions{}, func(gen int) []string {
		if stored == "" {
			return nil
		}
		return []string{f.r.b.keyPrefix(gen) + stored}
	})
	if err != nil {
		return err
	}
	f.looked, f.floor = time.Now(), snap.floor
	g := snap.pointer.find(gen)
	switch {
	case !f.began && (f.gen == 0 || f.gen == gen && f.after <= snap.upTo):
		f.began, f.gen, f.made = true, gen, g.Made
	case !f.began || f.gen != gen || !f.made.Equal(g.Made):
		if err := f.begin(g); err != nil {
			return err
		}
	}
	f.r.served(snap, nil)
	f.pointed = max(f.pointed, snap.pointed)
	if snap.revision > f.rev {
		f.cp, f.rev = snap.checkpoint, snap.revision
	}
	if stored == "" {
		return nil
	}
	f.at = makePosition(f.r.store, snap.checkpoint.Position)
	if m := snap.messages[f.r.b.keyPrefix(gen)+stored]; m != nil && m.Sequence > f.after {
		if err := f.tell(f.key, m); err != nil {
			return err
		}
	}
	return f.to.whole(f.gen, f.at, f.after, snap.checkpoint)
}

// begin goes over to another generation.
func (f *follow[V]) begin(g *generation) error {
	f.began, f.gen, f.made = true, g.Number, g.Made
	f.after, f.edge, f.one, f.told, f.at = 0, 0, false, false, jetstream.Position{}
	f.cp, f.rev, f.pointed = nil, 0, 0
	return f.to.reset(g.Number)
}

// checkpoints finds the newest checkpoint of the generation in a page.
func (f *follow[V]) checkpoints(page []wire.Message) error {
	subject := f.r.b.checkpointSubject(f.gen)
	for i := len(page) - 1; i >= 0; i-- {
		m := &page[i]
		if m.Subject != subject || m.Sequence <= f.rev || deleted(m) {
			continue
		}
		cp, err := decodeCheckpoint(m)
		if err != nil {
			return err
		}
		f.cp, f.rev = cp, m.Sequence
		break
	}
	return nil
}

// message takes one message of the bucket.
func (f *follow[V]) message(m *wire.Message) error {
	if key, ok := keyOf(m.Subject, f.r.b.keyPrefix(f.gen)); ok {
		return f.tell(key, m)
	}
	f.after = m.Sequence
	if m.Subject != f.r.b.pointerSubject() || m.Sequence <= f.pointed {
		return nil
	}
	p, err := decodePointer(m)
	if err != nil {
		return err
	}
	f.pointed = m.Sequence
	g := p.pick(f.r.cfg.Version)
	if g == nil {
		return f.r.lacks(p)
	}
	if g.Number != f.gen {
		pointed := f.pointed
		err = f.begin(g)
		f.pointed = pointed
	}
	return err
}

func (f *follow[V]) tell(key string, m *wire.Message) error {
	f.after = m.Sequence
	f.r.served(&snapshot{floor: f.floor}, m)
	return f.to.message(f.gen, key, f.at, m)
}
