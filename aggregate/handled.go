package aggregate

import (
	"context"
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/jetstream"
)

// bound works out how far back a call can have been handled already.
//
//   - A trigger's effect cannot precede the event: commits after its position, or
//     after its time when it stands in another store or was copied from there.
//   - A command id of ours bears its time.
//   - Any other id leaves a receipt with the aggregate's last commit at the time.
//     In a store that was copied lately the receipts are those of the other store,
//     so commits are searched for as long as a receipt would have lived.
func (r *core) bound(ctx context.Context, id string, c *call, v *view) (bound, error) {
	switch {
	case c.trigger != nil && c.trigger.Position.IsZero() && !c.trigger.Time.IsZero():
		return bound{since: c.trigger.Time.Add(-commandSkew)}, nil
	case c.trigger != nil:
		seq, err := r.store.Sequence(c.trigger.Position)
		if err == nil {
			return bound{after: seq}, nil
		}
		var foreign *jetstream.ForeignPositionError
		if errors.As(err, &foreign) && !c.trigger.Time.IsZero() {
			return bound{since: c.trigger.Time.Add(-commandSkew)}, nil
		}
		return bound{}, err
	case c.commandID == "":
		return bound{}, nil
	}
	if at, ok := jetstream.CommandIDTime(c.commandID); ok {
		return bound{since: at.Add(-commandSkew)}, nil
	}
	if mutate.On(mutate.NoReceipt) {
		return bound{after: v.head.Sequence}, nil
	}
	after, err := r.receipts.make(ctx, r.typeName, id, c.commandID, v.head.Sequence)
	if err != nil {
		return bound{}, err
	}
	if at, ok, err := r.copied.until(ctx, r.store); err != nil {
		return bound{}, err
	} else if since := r.now().Add(-r.cfg.ReceiptTTL - commandSkew); ok && at.After(since) {
		// The receipts of what was copied stayed with the store it came from.
		return bound{since: since}, nil
	}
	return bound{after: after}, nil
}

// needsReceipt tells whether the call's id bears no time.
func (c *call) needsReceipt() bool {
	if c.trigger != nil || c.commandID == "" {
		return false
	}
	_, timed := jetstream.CommandIDTime(c.commandID)
	return !timed
}

// handled looks for what came of the call before.
func (r *core) handled(ctx context.Context, id string, c *call, v *view, b bound) (bool, Result, error) {
	k := c.key()
	if k == (key{}) || mutate.On(mutate.NoCommandDedupe) && c.trigger == nil ||
		mutate.On(mutate.NoTriggerDedupe) && c.trigger != nil {
		return false, Result{}, nil
	}
	seq, found, gaps := v.recent.find(k, b)
	if found {
		commit, err := r.store.At(ctx, r.typeName, id, seq)
		if err != nil {
			return false, Result{}, err
		}
		if i := indexOf(commit, k); i >= 0 {
			res, err := r.outcome(id, c, commit, i)
			return true, res, err
		}
		gaps = []gap{{newest: v.head.Sequence}} // another key of the same hash
	}
	if len(gaps) > 0 {
		defer func() {
			if e := r.cache.get(id); e != nil {
				r.cache.charge(id, e)
			}
		}()
	}
	for _, g := range gaps {
		commit, err := r.walk(ctx, id, k, b, g, v.recent)
		if err != nil {
			return false, Result{}, err
		}
		if commit != nil {
			res, err := r.outcome(id, c, commit, indexOf(commit, k))
			return true, res, err
		}
	}
	return false, Result{}, nil
}

// walk reads a gap backwards until it finds the key, and remembers what it read.
func (r *core) walk(ctx context.Context, id string, k key, b bound, g gap, known *recent) (*jetstream.Commit, error) {
	var walked []remembered
	defer func() { known.join(walked) }()
	for next := g.newest; next > max(g.stop, b.after); {
		commit, err := r.store.At(ctx, r.typeName, id, next)
		if err != nil {
			return nil, err
		}
		if commit.PreviousSequence >= next {
			return nil, fmt.Errorf("%s %q: the commit at %d says that it follows one at %d",
				r.typeName, id, next, commit.PreviousSequence)
		}
		if size := r.cfg.CacheBytes / 4; len(walked) < size/rememberedBytes {
			walked = append(walked, known.remember(commit))
		}
		if indexOf(commit, k) >= 0 {
			return commit, nil
		}
		if b.beyond(commit.Sequence, firstStored(commit)) {
			return nil, nil //nolint:nilnil // neither found nor failed
		}
		next = commit.PreviousSequence
	}
	return nil, nil //nolint:nilnil // neither found nor failed
}

func indexOf(c *jetstream.Commit, k key) int {
	for i := range c.Decisions {
		if keyOf(&c.Decisions[i]) == k {
			return i
		}
	}
	return -1
}

// outcome is what a recorded decision led to.
func (r *core) outcome(id string, c *call, commit *jetstream.Commit, index int) (Result, error) {
	d := &commit.Decisions[index]
	if c.differs(d.BodyHash) {
		return Result{}, r.otherPayload(id, c)
	}
	// The versions of the decision's events.
	low := commit.Version - count(commit.Decisions[index:])
	high := low + uint64(len(d.Events))
	res := Result{ID: id, Version: high, Position: r.store.Position(commit.Sequence), Duplicate: true}
	if d.Outcome == jetstream.OutcomeRejected {
		return res, r.refusalError(id, d.Code, d.Reason)
	}
	events, err := r.decoder.Events(r.store, commit)
	if err != nil {
		return Result{}, err
	}
	for _, e := range events {
		if e.Version > low && e.Version <= high {
			res.Events = append(res.Events, e)
		}
	}
	return res, nil
}

func (r *core) otherPayload(id string, c *call) error {
	return fmt.Errorf("%s %q: command id %q: %w", r.typeName, id, c.commandID, ErrOtherPayload)
}

// count is the number of the decisions' events.
func count(decisions []jetstream.Decision) uint64 {
	n := uint64(0)
	for i := range decisions {
		n += uint64(len(decisions[i].Events))
	}
	return n
}
