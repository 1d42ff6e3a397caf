package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// Source is which server answers a read.
type Source uint8

// The sources.
const (
	// Leader is the stream's leader: it has every acknowledged commit.
	Leader Source = iota
	// Replica is any server that keeps the stream: load is spread, but on a
	// replicated stream the answer may be old.
	Replica
)

// Last returns the aggregate's last commit in one direct get, whatever the length
// of its history. An aggregate without commits is [ErrNotFound]; from a replica
// that proves nothing.
func (s *Store) Last(ctx context.Context, typ, id string, from Source) (*Commit, error) {
	subject, err := s.Subject(typ, id)
	if err != nil {
		return nil, err
	}
	m, err := s.last(ctx, subject, from)
	if errors.Is(err, wire.ErrNotFound) {
		return nil, fmt.Errorf("%s %q: %w", typ, id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: last commit: %w", typ, id, err)
	}
	return Decode(&m)
}

// retried repeats a read that the network or a leader change failed, until ctx
// ends or [Config.AppendTimeout] is over. Reads change nothing, so all of them
// may be repeated.
func retried[T any](ctx context.Context, s *Store, read func(context.Context) (T, error)) (T, error) {
	began, wait := time.Now(), backoff{wait: backoffFirst}
	_, bounded := ctx.Deadline()
	for {
		attempt, cancel := context.WithTimeout(ctx, min(s.attempt, s.timeout))
		v, err := read(attempt)
		cancel()
		if err == nil || errors.Is(err, wire.ErrNotFound) || errors.Is(err, wire.ErrTooMany) ||
			errors.Is(err, nats.ErrConnectionClosed) || wire.Denied(err) {
			return v, err
		}
		if number := wire.Number(err); number != 0 && !transient(number) {
			return v, err
		}
		// The first attempt has a bound of its own, and nearly always answers.
		if !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, began.Add(s.timeout)) //nolint:fatcontext // once
			defer cancel()
			bounded = true
		}
		if stop := wait.next(ctx); stop != nil {
			return v, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(stop, err))
		}
	}
}

// LastSequence is the sequence of the store's last commit, as the leader has it.
// Returns [ErrStoreWentBack] when that stays below what this store has seen, and
// [ErrUnavailable] when it does and the leader may have been replaced.
func (s *Store) LastSequence(ctx context.Context) (uint64, error) {
	seq, err := s.head(ctx, s.horizon.last.Load())
	if err != nil {
		return 0, fmt.Errorf("head of store %q: %w", s.name, err)
	}
	s.horizon.see(seq)
	return seq, nil
}

// LastPosition is the position of the store's last commit, as the leader has it.
func (s *Store) LastPosition(ctx context.Context) (Position, error) {
	seq, err := s.LastSequence(ctx)
	return s.Position(seq), err
}

// CheckPosition tells whether the store still has what a position stands for, which
// a program kept from an earlier run. Returns [ErrStoreWentBack] when the store ends
// before it, a [*ForeignPositionError] when it is another store's, [ErrUnavailable] when
// nobody is there to tell but a leader that may have been replaced.
func (s *Store) CheckPosition(ctx context.Context, p Position) error {
	seq, err := s.Sequence(p)
	if err != nil {
		return err
	}
	return s.checkReached(ctx, seq)
}

func (s *Store) checkReached(ctx context.Context, sequence uint64) error {
	if _, err := s.head(ctx, max(sequence, s.horizon.last.Load())); err != nil {
		return fmt.Errorf("store %q: %w", s.name, err)
	}
	return nil
}

// head is the sequence of the last message, which is at least known. A leader that
// was deposed and has not noticed may be behind for a while.
func (s *Store) head(ctx context.Context, known uint64) (uint64, error) {
	bounded, cancel := ctx, context.CancelFunc(nil)
	for behind, wait := 0, newBackoff(); ; {
		m, err := s.last(bounded, wire.Everything, Leader)
		if err != nil {
			return 0, err
		}
		if m.Sequence >= known {
			return m.Sequence, nil
		}
		if cancel == nil {
			bounded, cancel = s.bounded(ctx) //nolint:fatcontext // once
			defer cancel()
		}
		if s.followed(bounded) {
			behind++
		}
		if behind >= wentBackAfter {
			return 0, fmt.Errorf("%w: its last sequence is %d where %d was known", ErrStoreWentBack, m.Sequence, known)
		}
		if stop := wait.next(bounded); stop != nil {
			return 0, fmt.Errorf("%w: a leader that may have been replaced ends at %d where %d was known: %w",
				ErrUnavailable, m.Sequence, known, stop)
		}
	}
}

// followed tells whether who answers as the stream's leader surely is it: what it does
// not have is lost then. A stream on one server has no other.
func (s *Store) followed(ctx context.Context) bool {
	if !s.mayHaveReplicas() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, s.attempt)
	defer cancel()
	followed, err := wire.LeaderFollowed(ctx, s.nc, s.name)
	return err == nil && followed
}

// horizon is what a program has seen of a store: the newest sequence, which the
// store must never fall behind.
type horizon struct {
	last atomic.Uint64
	// back tells that the store gave out a sequence a second time.
	back atomic.Bool
}

func (h *horizon) see(sequence uint64) {
	for {
		last := h.last.Load()
		if sequence <= last || h.last.CompareAndSwap(last, sequence) {
			return
		}
	}
}

// acked is told what had been seen before a commit was sent and the sequence that
// it got.
func (h *horizon) acked(before, sequence uint64) {
	if sequence <= before {
		h.back.Store(true)
	}
	h.see(sequence)
}
