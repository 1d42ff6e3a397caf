package jetstream

import (
	"context"
	"errors"
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
	c, err := s.at(ctx, subject, sequence)
	if err != nil {
		return nil, fmt.Errorf("%s %q: commit at %d: %w", typ, id, sequence, err)
	}
	return c, nil
}

func (s *Store) at(ctx context.Context, subject string, sequence uint64) (*Commit, error) {
	m, err := s.message(ctx, sequence)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return nil, fmt.Errorf("%w: there is no message at %d", ErrIncomplete, sequence)
	case err != nil:
		return nil, err
	case m.Subject != subject:
		return nil, fmt.Errorf("%w: the message at %d is on %q", ErrIncomplete, sequence, m.Subject)
	}
	return Decode(&m)
}
