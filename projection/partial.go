package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nuid"

	"github.com/rossby-go/rossby/jetstream"
)

// Bounds of partial rebuilds.
const (
	// maxRebuildKeys is how many keys one aggregate may have touched.
	maxRebuildKeys = 10_000
	// maxRebuilds is how many are kept with their outcome, maxWaiting how many of
	// them may wait.
	maxRebuilds = 100
	maxWaiting  = 20
)

// AggregateRebuild is a partial rebuild: of the keys that one aggregate's events
// have touched. See [Admin.RebuildAggregate].
type AggregateRebuild struct {
	// Type and ID are the aggregate's, Reason is for people.
	Type   string `json:"type"`
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"`
	// Asked is when it was asked for, Done when it ended, zero while it goes on.
	Asked time.Time `json:"asked"`
	Done  time.Time `json:"done,omitzero"`
	// Keys is how many keys the aggregate's events have touched, Changed how many of
	// them the view did not hold as they must be.
	Keys    int `json:"keys"`
	Changed int `json:"changed"`
	// Error says why nothing was changed.
	Error string `json:"error,omitempty"`
}

// rebuild is a partial rebuild as the updaters are told.
type rebuild struct {
	Number string `json:"number"`
	AggregateRebuild
}

// waiting is the first partial rebuild that was asked for and not done.
func (c *control) waiting() *rebuild {
	for i := range c.Rebuilds {
		if c.Rebuilds[i].Done.IsZero() {
			return &c.Rebuilds[i]
		}
	}
	return nil
}

func (c *control) rebuild(number string) *rebuild {
	for i := range c.Rebuilds {
		if c.Rebuilds[i].Number == number {
			return &c.Rebuilds[i]
		}
	}
	return nil
}

// RebuildAggregate computes anew, from the store, every key that the events of one
// aggregate have touched, and stores those that the live generation does not hold
// as they must be: after somebody wrote into the bucket, say. The view's updater
// does it while it goes on; readers see each key change at once, and never an
// older value. It waits until that is done.
//
// A key is folded from all events that touch it, those of other aggregates, too:
// where a definition has [Keys] that takes a scan of the store's followed events,
// otherwise the histories of the aggregates with the key's id. Which keys the
// aggregate has touched is seen at the view's position when the updater begins.
//
// Returns [*PartialError], which matches [ErrPartial], when it cannot be done: the
// view is a lookup view, whose folds may read any key, so that only
// [Admin.Rebuild] is exact; the view does not follow the type; there is no such
// aggregate in the view; its events have touched more than 10,000 keys; or an
// event of the keys cannot be folded. Nothing is changed then. Returns ctx's error
// when it takes longer, after which it still takes place: see
// [Admin.AggregateRebuilds].
func (a *Admin) RebuildAggregate(ctx context.Context, typ, id, reason string) (AggregateRebuild, error) {
	asked := rebuild{
		Number: nuid.Next(), AggregateRebuild: AggregateRebuild{Type: typ, ID: id, Reason: reason, Asked: time.Now().UTC()},
	}
	p, _, err := a.pointer(ctx)
	if err != nil {
		return asked.AggregateRebuild, err
	}
	live := p.live()
	if live == nil {
		return asked.AggregateRebuild, a.b.absent()
	}
	cp, _, err := a.checkpoint(ctx, live.Number)
	if err != nil {
		return asked.AggregateRebuild, err
	}
	if cp.Kind != kindKeyed {
		return asked.AggregateRebuild, asked.refusal(a.b.view, lookupWhole)
	}
	if err := errors.Join(jetstream.ValidateName("aggregate type", typ), validateID(id)); err != nil {
		return asked.AggregateRebuild, err
	}
	err = a.b.change(ctx, func(c *control) error {
		if c.rebuild(asked.Number) != nil {
			return nil // An earlier attempt was stored.
		}
		wait := 0
		for i := range c.Rebuilds {
			if c.Rebuilds[i].Done.IsZero() {
				wait++
			}
		}
		if wait >= maxWaiting {
			return asked.refusal(a.b.view, fmt.Sprintf("%d others wait for the view's updater", wait))
		}
		c.Rebuilds = append(c.Rebuilds, asked)
		for len(c.Rebuilds) > maxRebuilds {
			i := slices.IndexFunc(c.Rebuilds, func(r rebuild) bool { return !r.Done.IsZero() })
			c.Rebuilds = slices.Delete(c.Rebuilds, i, i+1)
		}
		return nil
	})
	if err != nil {
		return asked.AggregateRebuild, err
	}
	return a.await(ctx, &asked)
}

// await waits until a partial rebuild has ended.
func (a *Admin) await(ctx context.Context, asked *rebuild) (AggregateRebuild, error) {
	for wait := newBackoff(10*time.Millisecond, 500*time.Millisecond); ; {
		c, _, err := a.b.control(ctx)
		if err == nil {
			now := c.rebuild(asked.Number)
			switch {
			case now == nil:
				return asked.AggregateRebuild, fmt.Errorf("%w: the record of the rebuild is gone", ErrBucket)
			case now.Error != "":
				return now.AggregateRebuild, now.refusal(a.b.view, now.Error)
			case !now.Done.IsZero():
				return now.AggregateRebuild, nil
			}
		}
		if missing(err) {
			return asked.AggregateRebuild, a.b.absent()
		}
		if stop := errors.Join(wait.next(ctx), closedError(a.b.nc)); stop != nil {
			return asked.AggregateRebuild, fmt.Errorf("the keys of %s %q are not rebuilt yet: %w",
				asked.Type, asked.ID, errors.Join(err, stop))
		}
	}
}

// AggregateRebuilds lists the last hundred partial rebuilds that were asked for,
// the oldest first. Returns [ErrViewNotFound] and [ErrUnavailable].
func (a *Admin) AggregateRebuilds(ctx context.Context) ([]AggregateRebuild, error) {
	c, err := a.said(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]AggregateRebuild, len(c.Rebuilds))
	for i := range c.Rebuilds {
		out[i] = c.Rebuilds[i].AggregateRebuild
	}
	return out, nil
}

// lookupWhole is why a lookup view is rebuilt as a whole.
const lookupWhole = "folds of a lookup view may read any key, so no key can be rebuilt alone: " +
	"rebuild the view with Admin.Rebuild"

func (r *rebuild) refusal(view, reason string) error {
	return &PartialError{View: view, Type: r.Type, ID: r.ID, Reason: reason}
}

func validateID(id string) error {
	if id == "" {
		return &jetstream.InvalidError{Field: "aggregate id", Value: id, Reason: "is empty"}
	}
	return nil
}
