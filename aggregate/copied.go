package aggregate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// copied knows whether the store is a copy. Once somebody has written to it, that
// does not change any more.
type copied struct {
	mu    sync.Mutex
	known bool
	is    bool
	at    time.Time
}

// until is when the newest commit that was copied was first stored, if any was.
func (c *copied) until(ctx context.Context, store copyInfo) (at time.Time, is bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		return c.at, c.is, nil
	}
	last, err := store.LastSequence(ctx)
	if err != nil {
		return at, false, err
	}
	commit, err := store.LastCopied(ctx)
	switch {
	case errors.Is(err, jetstream.ErrNotFound):
		c.known = last > 1 // beyond the genesis
		return at, false, nil
	case err != nil:
		return at, false, fmt.Errorf("is the store a copy: %w", err)
	}
	c.known, c.is, c.at = last > commit.Sequence, true, time.Unix(0, firstStored(commit))
	return c.at, true, nil
}
