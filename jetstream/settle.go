package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Settle goes on with an append whose outcome is unknown, sending the same commit
// again until it is decided, and returns what [Store.Append] or [Store.AppendAll]
// would have returned, the new heads in the order of the writes: nil when it is
// stored, exactly once; a [*ConflictError] or [*KeyTakenError] when it never will
// be; an [*UnknownError] when ctx ended first, with which it may be called again.
//
// Expectations and keys are not read anew: it is decided as it was sent. The error
// must be one that this process got from a store of the same id, else Settle
// returns an [*InvalidError]: an outcome that came over the wire is settled by
// sending the command again with its id.
func (s *Store) Settle(ctx context.Context, unknown *UnknownError) ([]Head, error) {
	p, err := s.claim(unknown)
	if err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	if err := s.decide(ctx, p, true); err != nil {
		return nil, s.explained(ctx, p, err)
	}
	return p.heads(), nil
}

// Abandon decides an append whose outcome is unknown without storing it, unless it
// is stored already: it puts a commit without events in its place, after which the
// first one can never be stored. The results are those of [Store.Settle]. Nil
// means that it is stored after all; a [*ConflictError] that it is not and never
// will be; an [*UnknownError] that ctx ended first, and either may be called again.
//
// The aggregate's version stays what it was.
func (s *Store) Abandon(ctx context.Context, unknown *UnknownError) ([]Head, error) {
	p, err := s.claim(unknown)
	if err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	c := p.main()
	w := Write{
		Type: c.Type, ID: c.ID,
		After: Head{
			Sequence: c.PreviousSequence, CommitID: c.Previous, Ordinal: c.Ordinal - 1,
			Version: c.Version - uint64(c.Events()), //nolint:gosec // a length
		},
		Decisions: []Decision{{Outcome: OutcomeNone, Time: MicroTime(time.Now()), Causation: c.CommitID}},
	}
	if c.PreviousSequence > 0 {
		// The state stays what it was, too; without it loads only take longer.
		if before, err := s.At(ctx, c.Type, c.ID, c.PreviousSequence); err == nil {
			w.State = before.State
		}
	}
	instead, err := s.single(p.msgs[p.first].Subject, &w)
	if err != nil {
		return nil, err
	}
	err = s.decideStateless(ctx, instead)
	if err == nil {
		return nil, p.conflict(p.first, instead.commits[0].Sequence)
	}
	if _, conflict := errors.AsType[*ConflictError](err); !conflict {
		return nil, p.undecided(true, fmt.Errorf("abandon: %w", err))
	}
	// Something stands there: it decides.
	for wait := newBackoff(); ; {
		if done, err := s.settled(ctx, p); done {
			if err != nil {
				return nil, err
			}
			return p.heads(), nil
		}
		if stop := wait.next(ctx); stop != nil {
			return nil, p.undecided(true, stop)
		}
	}
}

// claim locks the pending commits of an unknown outcome.
func (s *Store) claim(unknown *UnknownError) (*pending, error) {
	invalid := func(id, reason string) error {
		return &InvalidError{Field: "unknown outcome", Value: id, Reason: reason}
	}
	if unknown == nil {
		return nil, invalid("", "is nil")
	}
	switch p := unknown.pending; {
	case p == nil:
		return nil, invalid(unknown.CommitID,
			"was not returned by an append of this process: send the command again with its id")
	case p.store.id != s.id:
		return nil, invalid(unknown.CommitID, fmt.Sprintf("is of store %q, this is %q", p.store.name, s.name))
	default:
		p.mu.Lock()
		return p, nil
	}
}
