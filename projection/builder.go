package projection

import (
	"context"
	"errors"
	"time"
)

// attend builds, beside the live generation, one that [Admin.Rebuild] has asked
// for and that this definition can fold. It ends with ctx.
func (u *Updater) attend(ctx context.Context) {
	hint, err := u.hints()
	if err != nil {
		return
	}
	defer hint.close()
	for u.pause(ctx, u.cfg.LeaseTTL, hint) == nil {
		number := u.ordered(ctx)
		if number == 0 {
			continue
		}
		child := &Updater{
			source: u.source, cfg: u.cfg, target: number,
			board: board{log: u.log.With("building", number), status: Status{View: u.core.view, State: StateStarting}},
			b:     newBucket(u.b.nc, u.b.store, u.b.view),
			step:  u.step,
		}
		u.building.Store(child)
		err := child.run(ctx)
		u.building.Store(nil)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errSwitched) || errors.Is(err, ErrSuperseded):
		default:
			u.log.Error("view's new generation cannot be built", "generation", number, "error", err)
			if sleep(ctx, u.cfg.LeaseTTL) != nil {
				return
			}
		}
	}
}

// ordered is the generation that is to be built beside the live one, 0 for none.
func (u *Updater) ordered(ctx context.Context) int {
	u.mu.Lock()
	mine := u.status.Generation
	u.mu.Unlock()
	if mine == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m, err := u.b.leader(ctx, u.b.pointerSubject())
	if err != nil {
		return 0
	}
	p, err := decodePointer(m)
	if err != nil {
		return 0
	}
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.State == generationBuilding && g.Version == u.core.version && g.Hash == u.core.hash() && g.Number != mine {
			return g.Number
		}
	}
	return 0
}
