package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// recover finds out what of the window is stored, and sends the rest again until
// the oldest of it is. cause is what went wrong.
func (c *copier) recover(ctx context.Context, cause error) error {
	wait, began := newBackoff(), time.Now()
	for {
		c.generation++
		for len(c.window) > 0 {
			oldest := c.window[0]
			if !oldest.stored {
				stored, err := c.look(ctx, cause, oldest)
				if err != nil {
					return err
				}
				if !stored {
					break
				}
			}
			oldest.stored = true
			c.advance()
			wait, began = newBackoff(), time.Now()
		}
		if len(c.window) == 0 {
			return nil
		}
		if err := c.pause(ctx, wait, began, cause); err != nil {
			return err
		}
		if cause = c.resend(); cause == nil {
			return nil
		}
	}
}

// resend returns an error when not even the oldest could be sent.
func (c *copier) resend() error {
	for n, i := range c.window {
		if i.stored {
			continue
		}
		if err := c.publish(i); err != nil {
			if n > 0 {
				return nil // those before it come first
			}
			return err
		}
	}
	return nil
}

// pause waits before another attempt. Without a deadline of the caller's, it gives
// up when nothing moved for the time that an append may take.
func (c *copier) pause(ctx context.Context, wait *backoff, began time.Time, cause error) error {
	if c.s.nc.IsClosed() {
		return fmt.Errorf("copy into store %q: %w: %w", c.s.name, ErrUnavailable, nats.ErrConnectionClosed)
	}
	if _, ok := ctx.Deadline(); !ok && time.Since(began) > c.s.timeout {
		return fmt.Errorf("copy into store %q: %w: copy again to go on: %w", c.s.name, ErrUnavailable, cause)
	}
	if wait.next(ctx) != nil {
		return c.ended(ctx, cause)
	}
	return nil
}

func (c *copier) ended(ctx context.Context, cause error) error {
	return fmt.Errorf("copy into store %q: stopped after %d commits, copy again to go on: %w",
		c.s.name, c.progress.Commits, errors.Join(context.Cause(ctx), cause))
}

// look finds out whether a commit, or the first of a transaction, stands in its
// place. What is found there is final. Nothing there proves nothing, but the commit
// can never stand anywhere else, so it may be sent again – unless cause, or what
// else the store holds, tells that it will never be taken.
func (c *copier) look(ctx context.Context, cause error, group ...*copied) (stored bool, err error) {
	i := group[0]
	for _, at := range []func(context.Context, *nats.Conn, string, uint64) (wire.Message, error){
		wire.DirectAt, wire.LeaderAt,
	} {
		attempt, cancel := context.WithTimeout(ctx, c.s.attempt)
		m, err := at(attempt, c.s.nc, c.s.name, i.seq)
		cancel()
		switch {
		case err != nil:
			continue
		case header(m.Header, headerCommit) == i.commit.CommitID:
			return true, nil
		}
		return false, c.fault(i, fmt.Sprintf("was to stand at %d, where somebody else has written: copy into a new store",
			i.seq), ErrNotACopy)
	}
	if ctx.Err() != nil {
		return false, c.ended(ctx, cause)
	}
	attempt, ok := errors.AsType[*attemptError](cause)
	if !ok || attempt.seq != i.seq {
		return false, nil
	}
	switch number := wire.Number(cause); {
	case number == wire.CodeWrongLastSequence:
		for _, i := range group {
			if err := c.compare(ctx, i); err != nil {
				return false, err
			}
		}
	case errors.Is(cause, nats.ErrMaxPayload), number != 0 && !c.passing(number):
		return false, &RefusedError{Type: i.commit.Type, ID: i.commit.ID, Cause: attempt.error}
	}
	return false, nil
}

// passing tells errors that a later attempt may not meet.
func (c *copier) passing(number int) bool {
	switch number {
	case wire.CodeWrongLastSequence, wire.CodeWrongLastSequenceInFlight, wire.CodeBatchIncomplete, wire.CodeBatchTooMany:
		return true
	case codeStoreFailed:
		return c.s.mayHaveReplicas()
	}
	return transient(number)
}

// compare tells whether a commit whose place is free can ever be taken.
func (c *copier) compare(ctx context.Context, i *copied) error {
	m, err := c.s.leaderLast(ctx, i.msg.Subject)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return fmt.Errorf("copy into store %q: %w", c.s.name, err)
	case m.Sequence != i.after && m.Sequence < i.seq:
		return c.fault(i, fmt.Sprintf("follows the commit at %d here, but the aggregate's last one is at %d",
			i.after, m.Sequence), ErrNotACopy)
	}
	return nil
}
