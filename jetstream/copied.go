package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/internal/wire"
)

// LastCopied is the newest commit that was copied from another store. In a store
// that is a copy, everything up to it is copied and nothing after it. It is
// [ErrNotFound] for any other store. It costs two gets, or about twenty when the
// copy has been written to.
func (s *Store) LastCopied(ctx context.Context) (*Commit, error) {
	c, err := s.lastCopied(ctx, func(*Origin) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("last copied commit of store %q: %w", s.name, err)
	}
	return c, nil
}

// CopyOf is the position in this store, a copy, of what stood at a position of the
// store it was copied from: that of the newest commit copied from there at or
// before it. A position of this store is returned as it is. In a copy of a copy it
// knows the positions of the store where everything began, and of the one that was
// copied last. Returns a [*ForeignPositionError] for those of any other.
func (s *Store) CopyOf(ctx context.Context, p Position) (Position, error) {
	if p.IsZero() || p.store == s.id {
		return p, nil
	}
	// What came from a store stands together: first of all, or last.
	for _, matches := range []func(*Origin) bool{
		func(o *Origin) bool { return o.Store == p.store && o.Sequence <= p.sequence },
		func(o *Origin) bool { return o.Store != p.store || o.Sequence <= p.sequence },
	} {
		c, err := s.lastCopied(ctx, matches)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Position{}, fmt.Errorf("copy of position %q in store %q: %w", p, s.name, err)
		}
		if err == nil && c.Origin.Store == p.store {
			return s.Position(c.Sequence), nil
		}
	}
	return Position{}, &ForeignPositionError{Position: p, Store: s.name}
}

// lastCopied finds the last of the copied commits that match: the first ones, up to
// some commit. Copies are in the order of their source, and written before all
// else, so that is where to search.
func (s *Store) lastCopied(ctx context.Context, matches func(*Origin) bool) (*Commit, error) {
	copied := func(m *Message) (*Commit, error) {
		if IsGenesis(m) {
			return nil, nil //nolint:nilnil // no commit, and that is no error
		}
		c, err := Decode(m)
		if err != nil || c.Origin == nil || !matches(c.Origin) {
			return nil, err
		}
		return c, nil
	}
	last, err := s.leaderLast(ctx, wire.Everything)
	if err != nil {
		return nil, err
	}
	if c, err := copied(&last); c != nil || err != nil {
		return c, err
	}
	// The first commit stands after the genesis.
	first, err := s.firstFrom(ctx, wire.Everything, 2)
	if err == nil && IsGenesis(&first) {
		first, err = s.firstFrom(ctx, wire.Everything, first.Sequence+1)
	}
	if errors.Is(err, wire.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	found, err := copied(&first)
	if err != nil || found == nil {
		return nil, cmp.Or(err, ErrNotFound)
	}
	for low, high := first.Sequence, last.Sequence; high-low > 1; {
		middle := low + (high-low)/2
		m, err := s.message(ctx, middle)
		if err != nil {
			return nil, err
		}
		c, err := copied(&m)
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			found, low = c, middle
		default:
			high = middle
		}
	}
	return found, nil
}
