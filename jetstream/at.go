package jetstream

import (
	"context"
	"fmt"

	"github.com/rossby-go/rossby/internal/wire"
)

// At returns the aggregate's commit at a sequence that is known to hold one, such
// as a commit's PreviousSequence: it walks a history backwards, one get a step.
// A replica that lacks the commit is lagging, so the leader is asked then;
// [ErrIncomplete] when it has none either.
func (s *Store) At(ctx context.Context, typ, id string, sequence uint64) (*Commit, error) {
	subject, err := s.Subject(typ, id)
	if err != nil {
		return nil, err
	}
	for _, next := range []nextFunc{wire.DirectNext, wire.LeaderNext} {
		m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
			return next(ctx, s.nc, s.name, subject, sequence)
		})
		if err == nil && m.Sequence == sequence {
			return Decode(&m)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s %q: commit at %d: %w", typ, id, sequence, err)
		}
	}
	return nil, fmt.Errorf("%s %q: %w: no commit at %d", typ, id, ErrIncomplete, sequence)
}
