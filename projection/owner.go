package projection

import (
	"context"
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
	// stopped says that the last owner could not go on.
	stopped bool
	// told is what people have said, at revision toldRev.
	told    *control
	toldRev uint64
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
	var seen, builder silenceOf
	for {
		if wait, err := u.told(ctx, o, hint, &seen); err != nil {
			return nil, err
		} else if wait {
			continue
		}
		m, err := u.b.leader(ctx, u.b.checkpointSubject(o.gen))
		if errors.Is(err, wire.ErrNotFound) {
			return nil, fmt.Errorf("%w: the checkpoint of generation %d is gone", ErrBucket, o.gen)
		}
		if err == nil {
			cp, err := decodeCheckpoint(m)
			if err != nil {
				return nil, err
			}
			silent := seen.unchanged(m.Sequence)
			switch {
			case cp.State == StateSealed:
				if o.building {
					return nil, ErrSuperseded
				}
				if err := u.unseal(ctx, o, cp, m.Sequence, &builder); err != nil {
					return nil, err
				}
			case cp.Owner == "" || cp.Owner == me || silent >= u.cfg.LeaseTTL:
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
		if wire.Denied(err) || missing(err) {
			return nil, err // A bucket that was deleted is made again, from the start.
		}
		if err := u.pause(ctx, u.cfg.often(8), hint); err != nil {
			return nil, err
		}
	}
}

// told reads what people have said, and waits a while when that is to wait.
func (u *Updater) told(ctx context.Context, o *ownership, hint *hints, seen *silenceOf) (wait bool, err error) {
	told, rev, err := u.b.control(ctx)
	if err == nil && told.Pause == nil {
		o.told, o.toldRev = told, rev
		return false, nil
	}
	if err == nil {
		err = u.paused(ctx, o, told, seen)
	}
	if errors.Is(err, ErrBucket) || missing(err) {
		return false, err
	}
	return true, errors.Join(u.pause(ctx, u.cfg.often(4), hint), closedError(u.b.nc))
}

// paused says in the checkpoint that the view was told to wait, when nobody owns it,
// or nobody who lives.
func (u *Updater) paused(ctx context.Context, o *ownership, told *control, seen *silenceOf) error {
	u.set(func(s *Status) { s.State, s.Owner, s.Generation, s.Err = StatePaused, "", o.gen, nil })
	m, err := u.b.leader(ctx, u.b.checkpointSubject(o.gen))
	if err != nil {
		return err
	}
	cp, err := decodeCheckpoint(m)
	if err != nil {
		return err
	}
	u.position.Store(cp.Position)
	silent := seen.unchanged(m.Sequence)
	if cp.Owner != "" && silent < u.cfg.LeaseTTL || cp.State == StatePaused || cp.State == StateSealed {
		return nil
	}
	u.log.Warn("view is paused", "reason", told.Pause.Reason, "position", cp.Position)
	cp.Owner, cp.State, cp.Time = "", StatePaused, time.Now().UTC()
	return u.b.write(ctx, u.b.checkpointSubject(o.gen), cp, m.Sequence)
}

// take makes this instance the owner, unless somebody else was faster.
func (u *Updater) take(ctx context.Context, o *ownership, me string, cp *checkpoint, rev uint64) (bool, error) {
	next := *cp
	state := StateRunning
	if o.building {
		state = StateBuilding
	}
	next.own(me, state)
	got, err := putCheckpoint(ctx, u.b, o.gen, nil, &next, rev)
	if errors.Is(err, errLost) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o.cp, o.rev = &next, got
	o.fresh = cp.Epoch == 0
	o.stopped = cp.State == StateStopped
	return true, nil
}

// bind finds the generation that this definition writes, and makes bucket and
// generation when they are missing.
func (u *Updater) bind(ctx context.Context) (*ownership, error) {
	for wait := newBackoff(10*time.Millisecond, 500*time.Millisecond); ; {
		o, err := u.bindOnce(ctx)
		if err == nil || errors.Is(err, ErrBucket) || errors.Is(err, ErrDefinition) ||
			errors.Is(err, ErrStoreRestored) || errors.Is(err, ErrSuperseded) || wire.Denied(err) {
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
	if err := u.b.ensure(ctx, u.store.Replicas(), len(u.core.indexes) > 0); err != nil {
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
	g := p.own(u.core.version)
	if u.target > 0 {
		if g = p.find(u.target); g == nil {
			return nil, ErrSuperseded
		}
	}
	if g != nil {
		if g.Hash != hash {
			return nil, &DefinitionError{
				View: u.core.view, Version: u.core.version, Live: g.Version,
				Reason: "the view was built with other events or keys under this version",
				Advice: fmt.Sprintf("raise it with Version(%d), and the view is rebuilt", u.core.version+1),
			}
		}
		if g.State == generationOld {
			return nil, ErrSuperseded
		}
		return u.ownership(g), nil
	}
	if newest := p.newest(); newest != nil && newest.Version > u.core.version {
		return nil, &DefinitionError{
			View: u.core.view, Version: u.core.version, Live: newest.Version,
			Reason: "the view was built by a newer program", Advice: "deploy that one, or raise Version beyond it",
		}
	}
	made := generation{
		Number: p.next(), Version: u.core.version, Hash: hash, State: generationBuilding, Auto: !u.cfg.HoldSwitch,
		Made: time.Now().UTC(), Indexes: u.core.indexNames(),
	}
	if p.live() == nil {
		made.State, made.Auto, made.Served = generationLive, false, true
	}
	replaced, err := u.replace(ctx, p)
	if err != nil {
		return nil, err
	}
	p.Generations, p.Last = append(p.Generations, made), made.Number
	if err := u.b.create(ctx, p, rev, &made, u.core.kind, replaced); err != nil {
		return nil, err
	}
	return u.ownership(&made), nil
}

func (u *Updater) ownership(g *generation) *ownership {
	o := &ownership{gen: g.Number, building: g.State == generationBuilding, durable: u.core.view}
	if o.building {
		o.durable += "_build"
	}
	return o
}

// create writes the pointer and a new generation's checkpoint, or neither.
func (b *bucket) create(
	ctx context.Context, p *pointer, rev uint64, g *generation, kind string, more []*nats.Msg,
) error {
	ptr, err := b.pointerMessage(p, rev)
	if err != nil {
		return err
	}
	cp, err := b.firstCheckpoint(p.Store, g, kind)
	if err != nil {
		return err
	}
	_, err = send(ctx, b, append(more, ptr, cp))
	return err
}

// replace gives up generations that were being built: a newer definition version
// has come. Their keys stay until [Admin.Remove].
func (u *Updater) replace(ctx context.Context, p *pointer) ([]*nats.Msg, error) {
	var msgs []*nats.Msg
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.State != generationBuilding {
			continue
		}
		m, err := u.b.leader(ctx, u.b.checkpointSubject(g.Number))
		if err != nil {
			return nil, err
		}
		cp, err := decodeCheckpoint(m)
		if err != nil {
			return nil, err
		}
		g.State, g.Auto = generationOld, false
		cp.State, cp.Owner, cp.Epoch, cp.Time = StateSealed, "", cp.Epoch+1, time.Now().UTC()
		sealed, err := u.b.message(u.b.checkpointSubject(g.Number), cp, m.Sequence)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, sealed)
	}
	return msgs, nil
}

// firstCheckpoint is that of a new generation.
func (b *bucket) firstCheckpoint(store string, g *generation, kind string) (*nats.Msg, error) {
	return b.message(b.checkpointSubject(g.Number), checkpoint{
		Format: checkpointFormat, View: b.view, Kind: kind, Version: g.Version, Hash: g.Hash,
		Store: store, State: StateFree, Time: time.Now().UTC(),
	}, 0)
}

func (b *bucket) pointerMessage(p *pointer, rev uint64) (*nats.Msg, error) {
	return b.message(b.pointerSubject(), p, rev)
}
