package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/internal/once"
	"github.com/rossby-go/rossby/jetstream"
)

// copied knows whether the store is a copy. Once somebody has written to it, that
// does not change any more.
type copied struct {
	known once.Once
	is    bool
	at    time.Time
}

// errMayChange is of an answer that holds for now.
var errMayChange = errors.New("it may change")

// until is when the newest commit that was copied was first stored, if any was.
func (c *copied) until(ctx context.Context, store copyInfo) (at time.Time, is bool, err error) {
	err = c.known.Do(ctx, func(ctx context.Context) error {
		last, err := store.LastSequence(ctx)
		if err != nil {
			return err
		}
		written := last > 1 // beyond the genesis
		commit, err := store.LastCopied(ctx)
		switch {
		case err == nil:
			at, is, written = time.Unix(0, firstStored(commit)), true, last > commit.Sequence
		case !errors.Is(err, jetstream.ErrNotFound):
			return fmt.Errorf("is the store a copy: %w", err)
		}
		if !written {
			return errMayChange
		}
		c.at, c.is = at, is
		return nil
	})
	switch {
	case err == nil:
		return c.at, c.is, nil
	case errors.Is(err, errMayChange):
		return at, is, nil
	}
	return time.Time{}, false, err
}
