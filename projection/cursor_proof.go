package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// What a consumer says of its place proves nothing by itself, for anybody may reset
// it: here the store's leader is asked.

// nothingBefore makes sure that nothing to follow lies between pos and seq. Another
// owner, or one that was, may reset the consumer right after this one: its
// deliveries are then counted anew, and what was jumped over would go unseen. It
// costs a read of the leader each time that the cursor is opened.
func (c *cursor) nothingBefore(ctx context.Context, pos, seq uint64) error {
	if seq <= pos+1 || mutate.On(mutate.ViewIgnoresGaps) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, silence/2)
	defer cancel()
	filter := c.filter
	if filter == "" {
		filter = wire.Everything
	}
	m, err := wire.LeaderNext(ctx, c.nc, c.store.Name(), filter, pos+1)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return nil
	case err != nil:
		return err
	case m.Sequence < seq:
		return &gapError{
			reason: fmt.Sprintf("the cursor was moved to %d, sequence %d is next after %d", seq, m.Sequence, pos),
		}
	}
	return nil
}

// covered makes sure that the store has reached seq: what is not there yet cannot
// have been looked at. A consumer may be reset beyond the end.
func (c *cursor) covered(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, silence/2)
	defer cancel()
	m, err := wire.LeaderLast(ctx, c.nc, c.store.Name(), wire.Everything)
	if err != nil {
		return err
	}
	if m.Sequence < seq {
		return &gapError{reason: fmt.Sprintf("the cursor was moved to %d, beyond the end at %d", seq, m.Sequence)}
	}
	return nil
}

// inside tells whether a sequence stands in a transaction that goes on behind it.
// What cannot be read now counts as inside: the next heartbeat comes soon.
func (c *cursor) inside(ctx context.Context, seq uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, silence/2)
	defer cancel()
	m, err := wire.LeaderNext(ctx, c.nc, c.store.Name(), wire.Everything, seq)
	if err != nil {
		return !errors.Is(err, wire.ErrNotFound)
	}
	index, count := wire.TxPlace(m.Header)
	return m.Sequence == seq && index < count
}
