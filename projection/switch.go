package projection

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// errSwitched ends the session of a generation that went live: whoever follows
// the live one goes on with it.
var errSwitched = errors.New("the generation is live now")

// flipEvery bounds how often a generation that is built looks whether it can go
// live.
const flipEvery = 20 * time.Millisecond

// flip makes the generation that was built the one that is read. Nobody sees an
// older answer than before: first the old one is sealed where it is, which fences
// its updater; when the new one has got there, one batch moves the pointer. The
// batch expects that the old one is still sealed, since its updater takes the
// seal back when the new one's is gone: see [Updater.unseal].
func (u *Updater) flip(ctx context.Context, o *ownership, fl *flusher, cur *cursor) error {
	if u.pending.Load() > tailPending || fl.cp.Position == 0 {
		return nil
	}
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return nil // the next look will do
	}
	p, err := decodePointer(m)
	if err != nil {
		return err
	}
	me, live := p.find(o.gen), p.live()
	switch {
	case me == nil || live == nil:
		return ErrSuperseded // Removed.
	case me.State == generationLive:
		return errAgain
	case !me.Auto:
		return nil
	}
	seal, err := u.seal(ctx, live.Number, fl.cp.Position)
	if err != nil || seal == nil {
		return err
	}
	live.State, live.Auto = generationOld, false
	me.State, me.Auto, me.Served = generationLive, false, true
	ptr, err := u.b.pointerMessage(p, m.Sequence)
	if err != nil {
		return err
	}
	next := fl.cp
	next.State = StateRunning
	if err := u.putFlip(ctx, fl, []*nats.Msg{seal, ptr}, next); err != nil {
		return err
	}
	u.log.Info("view's new generation is live", "generation", o.gen, "version", u.core.version)
	rctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	_ = cur.remove(rctx)
	u.b.wake()
	if u.target > 0 {
		return errSwitched
	}
	return errAgain
}

// seal sees to it that the live generation is sealed at a position that has been
// reached, and returns the message that keeps it so. It returns nil until then.
func (u *Updater) seal(ctx context.Context, live int, reached uint64) (*nats.Msg, error) {
	subject := u.b.checkpointSubject(live)
	for range 10 {
		old, err := u.b.leader(ctx, subject)
		if err != nil {
			return nil, nil //nolint:nilerr,nilnil // the next look will do
		}
		cp, err := decodeCheckpoint(old)
		if err != nil {
			return nil, err
		}
		if cp.State == StateSealed {
			// Keys may be ahead of the position, and may have been read so: of events that
			// were in the store when the seal fenced the last writer.
			if u.sealed.rev != old.Sequence {
				head, err := u.b.head(ctx)
				if err != nil {
					return nil, nil //nolint:nilerr,nilnil // the next look will do
				}
				u.sealed.rev, u.sealed.head = old.Sequence, max(head, cp.Position)
			}
			if u.sealed.head > reached {
				return nil, nil //nolint:nilnil // soon
			}
			return u.b.message(subject, cp, old.Sequence)
		}
		if cp.Position > reached+tailPending {
			return nil, nil //nolint:nilnil // not yet
		}
		cp.State, cp.Owner, cp.Epoch, cp.Time = StateSealed, "", cp.Epoch+1, time.Now().UTC()
		switch err := u.b.write(ctx, subject, cp, old.Sequence); {
		case err == nil:
			u.done("sealed")
		case !wire.IsWrongLastSequence(err):
			return nil, nil //nolint:nilnil // the next look will do
		}
	}
	return nil, nil //nolint:nilnil // its updater was faster each time
}

// unseal takes back the seal of a live generation when the one that was to take
// its place has no owner any more. It tells whether the view may be taken.
func (u *Updater) unseal(ctx context.Context, o *ownership, cp *checkpoint, rev uint64, quiet *silenceOf) error {
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return nil //nolint:nilerr // the next look will do
	}
	p, err := decodePointer(m)
	if err != nil {
		return err
	}
	if g := p.find(o.gen); g == nil || g.State != generationLive {
		return ErrSuperseded
	}
	var revs uint64
	for i := range p.Generations {
		if g := &p.Generations[i]; g.State == generationBuilding && g.Auto {
			if b, err := u.b.leader(ctx, u.b.checkpointSubject(g.Number)); err == nil {
				revs += b.Sequence
			}
		}
	}
	if quiet.unchanged(revs) < 2*u.cfg.LeaseTTL {
		return nil
	}
	next := *cp
	next.State, next.Epoch, next.Time = StateFree, cp.Epoch+1, time.Now().UTC()
	if err := u.b.write(ctx, u.b.checkpointSubject(o.gen), &next, rev); err == nil {
		u.log.Warn("view goes on with the generation that was to be replaced", "generation", o.gen)
	}
	return nil
}

// silenceOf tells for how long a number has not changed.
type silenceOf struct {
	value uint64
	since time.Time
}

func (s *silenceOf) unchanged(value uint64) time.Duration {
	if s.since.IsZero() || value != s.value {
		s.value, s.since = value, time.Now()
	}
	return time.Since(s.since)
}

// putFlip is one attempt: when the old owner or another program was faster, the
// session begins again and so does the flip.
func (u *Updater) putFlip(ctx context.Context, fl *flusher, msgs []*nats.Msg, cp checkpoint) error {
	cp.Flush, cp.Time = fl.cp.Flush+1, time.Now().UTC()
	m, err := u.b.message(u.b.checkpointSubject(fl.gen), cp, fl.rev)
	if err != nil {
		return err
	}
	rev, err := send(ctx, u.b, append(msgs, m))
	if err != nil {
		fl.undecided = true
		return errors.Join(errAgain, err)
	}
	fl.cp, fl.rev = cp, rev
	return nil
}
