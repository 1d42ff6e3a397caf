package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// ownership is a view's generation that this instance may write.
type ownership struct {
	gen      int
	building bool
	durable  string
	cp       *checkpoint
	rev      uint64
	// fresh says that the generation was made just now: it holds no key.
	fresh bool
}

// hints wakes a standby when an owner leaves.
type hints struct {
	sub *nats.Subscription
	ch  chan struct{}
}

func (u *Updater) hints() (*hints, error) {
	h := &hints{ch: make(chan struct{}, 1)}
	var err error
	h.sub, err = u.b.nc.Subscribe(u.b.hintSubject(), func(*nats.Msg) {
		select {
		case h.ch <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("view %q: %w", u.core.view, err)
	}
	return h, nil
}

func (h *hints) close() { _ = h.sub.Unsubscribe() }

// acquire makes sure that bucket and generation are there, and waits until this
// instance may own the view.
func (u *Updater) acquire(ctx context.Context, me string, hint *hints) (*ownership, error) {
	bind, cancel := context.WithTimeout(ctx, 5*attemptTimeout)
	o, err := u.bind(bind)
	cancel()
	if err != nil {
		return nil, err
	}
	var seen time.Time
	var seenRev uint64
	for {
		m, err := u.b.leader(ctx, u.b.checkpointSubject(o.gen))
		if errors.Is(err, wire.ErrNotFound) {
			return nil, fmt.Errorf("%w: the checkpoint of generation %d is gone", ErrBucket, o.gen)
		}
		if err == nil {
			cp, err := decodeCheckpoint(m)
			if err != nil {
				return nil, err
			}
			if cp.State == StateSealed {
				return nil, ErrSuperseded
			}
			if m.Sequence != seenRev {
				seen, seenRev = time.Now(), m.Sequence
			}
			if cp.Owner == "" || cp.Owner == me || time.Since(seen) >= u.cfg.LeaseTTL {
				won, err := u.take(ctx, o, me, cp, m.Sequence)
				if err != nil || won {
					return o, err
				}
				continue
			}
			u.set(func(s *Status) { s.State, s.Owner, s.Epoch, s.Generation = StateStandby, cp.Owner, cp.Epoch, o.gen })
			u.position.Store(cp.Position)
		}
		if u.b.nc.IsClosed() {
			return nil, closedError(u.b.nc)
		}
		t := time.NewTimer(u.cfg.LeaseTTL / 8)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-hint.ch:
			t.Stop()
		case <-t.C:
		}
	}
}

// take makes this instance the owner, unless somebody else was faster.
func (u *Updater) take(ctx context.Context, o *ownership, me string, cp *checkpoint, rev uint64) (bool, error) {
	next := *cp
	next.Owner, next.Epoch, next.Flush, next.Error = me, cp.Epoch+1, 0, ""
	next.State = StateRunning
	if o.building {
		next.State = StateBuilding
	}
	next.Time = time.Now().UTC()
	got, err := putCheckpoint(ctx, u.b, o.gen, nil, &next, rev)
	if errors.Is(err, errLost) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o.cp, o.rev = &next, got
	o.fresh = cp.Epoch == 0
	return true, nil
}

// bind finds the generation that this definition writes, and makes bucket and
// generation when they are missing.
func (u *Updater) bind(ctx context.Context) (*ownership, error) {
	for wait := newBackoff(10*time.Millisecond, 500*time.Millisecond); ; {
		o, err := u.bindOnce(ctx)
		if err == nil || errors.Is(err, ErrBucket) || errors.Is(err, ErrDefinition) || errors.Is(err, ErrStoreRestored) {
			if errors.Is(err, ErrStoreRestored) {
				err = &StoppedError{View: u.core.view, Cause: err}
			}
			return o, err
		}
		if stop := errors.Join(wait.next(ctx), closedError(u.b.nc)); stop != nil {
			return nil, errors.Join(err, stop)
		}
	}
}

func (u *Updater) bindOnce(ctx context.Context) (*ownership, error) {
	if err := u.b.ensure(ctx, u.store.Replicas()); err != nil {
		return nil, err
	}
	p, rev := &pointer{Format: checkpointFormat, Store: u.store.ID()}, uint64(0)
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	switch {
	case err == nil:
		if p, err = decodePointer(m); err != nil {
			return nil, err
		}
		rev = m.Sequence
	case !errors.Is(err, wire.ErrNotFound):
		return nil, err
	}
	if p.Store != u.store.ID() {
		return nil, fmt.Errorf("%w: made from the store with id %s, this one's is %s; delete the bucket %s to build it anew",
			ErrStoreRestored, p.Store, u.store.ID(), u.b.name)
	}
	hash := u.core.hash()
	number := 1
	for i := range p.Generations {
		g := &p.Generations[i]
		number = max(number, g.Number+1)
		if g.Version != u.core.version {
			continue
		}
		if g.Hash != hash {
			return nil, &DefinitionError{
				View: u.core.view, Version: u.core.version, Live: g.Version,
				Reason: "the view was built with other events or keys under this version",
				Advice: fmt.Sprintf("raise it with Version(%d), and the view is rebuilt", u.core.version+1),
			}
		}
		return u.ownership(g), nil
	}
	if newest := p.newest(); newest != nil && newest.Version > u.core.version {
		return nil, &DefinitionError{
			View: u.core.view, Version: u.core.version, Live: newest.Version,
			Reason: "the view was built by a newer program", Advice: "deploy that one, or raise Version beyond it",
		}
	}
	g := generation{Number: number, Version: u.core.version, Hash: hash, State: generationBuilding}
	if len(p.Generations) == 0 {
		g.State = generationLive
	}
	p.Generations = append(p.Generations, g)
	if err := u.create(ctx, p, rev, &g); err != nil {
		return nil, err
	}
	return u.ownership(&g), nil
}

func (u *Updater) ownership(g *generation) *ownership {
	o := &ownership{gen: g.Number, building: g.State == generationBuilding, durable: u.core.view}
	if o.building {
		o.durable += "_build"
	}
	return o
}

// create writes the pointer and a new generation's checkpoint, or neither.
func (u *Updater) create(ctx context.Context, p *pointer, rev uint64, g *generation) error {
	ptr, err := u.pointerMessage(p, rev)
	if err != nil {
		return err
	}
	body, err := json.Marshal(checkpoint{
		Format: checkpointFormat, View: u.core.view, Kind: u.core.kind, Version: g.Version, Hash: g.Hash,
		Store: u.store.ID(), State: StateFree, Time: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	cp := wire.Expect(nats.NewMsg(u.b.checkpointSubject(g.Number)), 0)
	cp.Data = body
	_, err = send(ctx, u.b, []*nats.Msg{ptr, cp})
	return err
}

func (u *Updater) pointerMessage(p *pointer, rev uint64) (*nats.Msg, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	m := wire.Expect(nats.NewMsg(u.b.pointerSubject()), rev)
	m.Data = body
	return m, nil
}

// flip makes the generation that was built the one that is read, in one batch
// that seals the old one: nobody sees an older answer than before. It does
// nothing until the new generation is as far as the old one and has caught up.
func (u *Updater) flip(ctx context.Context, o *ownership, fl *flusher, cur *cursor) error {
	if u.pending.Load() > 0 || fl.cp.Position == 0 || u.read.Load() > fl.cp.Position {
		return nil
	}
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return nil
	}
	p, err := decodePointer(m)
	if err != nil {
		return err
	}
	var msgs []*nats.Msg
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.Number == o.gen {
			g.State = generationLive
			continue
		}
		if g.State != generationLive {
			continue
		}
		g.State = generationOld
		old, err := u.b.leader(ctx, u.b.checkpointSubject(g.Number))
		if err != nil {
			return nil
		}
		cp, err := decodeCheckpoint(old)
		if err != nil {
			return err
		}
		if cp.Position > fl.cp.Position {
			return nil
		}
		cp.State, cp.Owner, cp.Epoch, cp.Time = StateSealed, "", cp.Epoch+1, time.Now().UTC()
		body, err := json.Marshal(cp)
		if err != nil {
			return err
		}
		seal := wire.Expect(nats.NewMsg(u.b.checkpointSubject(g.Number)), old.Sequence)
		seal.Data = body
		msgs = append(msgs, seal)
	}
	ptr, err := u.pointerMessage(p, m.Sequence)
	if err != nil {
		return err
	}
	msgs = append(msgs, ptr)
	next := fl.cp
	next.State = StateRunning
	if err := u.putFlip(ctx, fl, msgs, next); err != nil {
		return err
	}
	u.log.Info("view's new generation is live", "generation", o.gen, "version", u.core.version)
	rctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	_ = cur.remove(rctx)
	return errAgain
}

// putFlip is one attempt: when the old owner or another program was faster, the
// session begins again and so does the flip.
func (u *Updater) putFlip(ctx context.Context, fl *flusher, msgs []*nats.Msg, cp checkpoint) error {
	cp.Flush, cp.Time = fl.cp.Flush+1, time.Now().UTC()
	body, err := json.Marshal(cp)
	if err != nil {
		return err
	}
	m := wire.Expect(nats.NewMsg(u.b.checkpointSubject(fl.gen)), fl.rev)
	m.Data = body
	rev, err := send(ctx, u.b, append(msgs, m))
	if err != nil {
		return errors.Join(errAgain, err)
	}
	fl.cp, fl.rev = cp, rev
	return nil
}
