package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// Write is a commit to append.
type Write struct {
	Type, ID string
	// After is the aggregate's last commit as the writer knows it: the expectation
	// that guards the append. The zero Head is an aggregate without commits.
	After Head
	// Decisions must not be empty. They are not changed.
	Decisions []Decision
	// State is the aggregate's state after the decisions, nil to leave it out.
	State *State
	// TraceParent is the W3C trace context of the first decision.
	TraceParent string
	// Origin says where a copied commit was stored first.
	Origin *Origin
}

// Append stores a commit and returns it, with its sequence, as the aggregate's
// new head. It is sent again unchanged until its outcome is known:
//
//   - nil: stored, exactly once.
//   - [*ConflictError]: not stored and never will be.
//   - [*RefusedError]: not stored, the server will not have it.
//   - [ErrUnavailable]: not stored, NATS did not take it before ctx ended.
//   - [*UnknownError]: ctx ended while it may have been on its way.
//   - [ErrStoreWentBack]: the store's last sequence stays below After's.
//   - [*InvalidError]: the write was malformed and never sent.
//
// It costs one publish. A context without a deadline is bounded by
// [Config.AppendTimeout].
func (s *Store) Append(ctx context.Context, w Write) (Head, error) {
	subject, err := s.Subject(w.Type, w.ID)
	if err != nil {
		return Head{}, err
	}
	if len(w.Decisions) == 0 {
		return Head{}, &InvalidError{Field: "decisions", Value: "", Reason: "are none: a commit holds at least one"}
	}
	names := eventNames(w.Decisions)
	c := &Commit{
		Type: w.Type, ID: w.ID, Previous: w.After.CommitID, PreviousSequence: w.After.Sequence,
		EventNames: names, TraceParent: w.TraceParent, Origin: w.Origin, Decisions: w.Decisions, State: w.State,
		Head: Head{CommitID: NewID(), Ordinal: w.After.Ordinal + 1, Version: w.After.Version + uint64(len(names))},
	}
	msg, err := encodeCommit(subject, c, s.codec)
	if err != nil {
		return Head{}, err
	}
	if limit := s.nc.MaxPayload(); limit > 0 && int64(msg.Size()) > limit && c.State != nil {
		// The state is a convenience, the events are not: give it up first.
		c.State = nil
		if msg, err = encodeCommit(subject, c, s.codec); err != nil {
			return Head{}, err
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	c.Sequence, err = s.decide(ctx, msg, c)
	if err != nil {
		return Head{}, err
	}
	return c.Head, nil
}

// wentBackAfter is how many answers below the expected sequence, in a row, make
// a store that went back: a replica that lags catches up long before.
const wentBackAfter = 12

// decide sends the message until its outcome is known. What proves what is
// worked out in the design: an acknowledgement proves that it is stored; the
// first commit on the subject after the expected one proves it either way; an
// error proves that it is not stored only as long as no earlier attempt is open.
func (s *Store) decide(ctx context.Context, msg *nats.Msg, c *Commit) (uint64, error) {
	wait := newBackoff()
	open, behind := false, 0
	for {
		seq, err := s.publish(ctx, msg)
		switch number := wire.Number(err); {
		case err == nil:
			return seq, nil
		case number == wire.CodeWrongLastSequence:
			actual := actualSequence(err)
			if actual > c.PreviousSequence && !open {
				return 0, &ConflictError{Type: c.Type, ID: c.ID, Expected: c.PreviousSequence, Actual: actual}
			}
			if actual < c.PreviousSequence {
				behind++
			}
			if behind >= wentBackAfter && !open {
				return 0, fmt.Errorf("%s %q: %w: its last sequence is %d where %d was acknowledged",
					c.Type, c.ID, ErrStoreWentBack, actual, c.PreviousSequence)
			}
		case number == wire.CodeWrongLastSequenceInFlight:
		case number != 0 && !transient(number):
			if !open {
				return 0, &RefusedError{Type: c.Type, ID: c.ID, Cause: err}
			}
		case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrHeadersNotSupported):
			return 0, &RefusedError{Type: c.Type, ID: c.ID, Cause: err}
		case unsent(err):
		default:
			open = true
		}
		if open || wire.IsWrongLastSequence(err) {
			if seq, done, err := s.settled(ctx, msg.Subject, c); done {
				return seq, err
			}
		}
		if stop := wait.next(ctx); stop != nil || s.nc.IsClosed() {
			if open {
				return 0, &UnknownError{Type: c.Type, ID: c.ID, CommitID: c.CommitID, Cause: errors.Join(stop, err)}
			}
			return 0, fmt.Errorf("%s %q: %w: the commit was not stored: %w", c.Type, c.ID, ErrUnavailable, errors.Join(stop, err))
		}
	}
}

func (s *Store) publish(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.attempt)
	defer cancel()
	ack, err := wire.Publish(ctx, s.nc, msg)
	if err == nil && ack.Stream != s.name {
		return 0, fmt.Errorf("%w: stream %q answered for store %q", wire.ErrProtocol, ack.Stream, s.name)
	}
	return ack.Sequence, err
}

// settled looks for the first commit after the expected one, on any replica and
// then on the leader. What is found is final; nothing found proves nothing.
func (s *Store) settled(ctx context.Context, subject string, c *Commit) (seq uint64, done bool, err error) {
	for _, next := range []nextFunc{wire.DirectNext, wire.LeaderNext} {
		m, err := s.next(ctx, next, subject, c.PreviousSequence+1)
		if err != nil {
			continue
		}
		if header(m.Header, headerCommit) == c.CommitID {
			return m.Sequence, true, nil
		}
		return 0, true, &ConflictError{Type: c.Type, ID: c.ID, Expected: c.PreviousSequence, Actual: m.Sequence}
	}
	return 0, false, nil
}

// transient tells errors that a later attempt may not meet: no leader, too many
// requests, no resources for now.
func transient(number int) bool {
	switch number {
	case 10008, 10009, 10023, 10047, 10065, 10167, 10194:
		return true
	}
	return false
}

// unsent tells errors that prove that the server never took the message.
func unsent(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrInvalidConnection)
}

// actualSequence reads N from "wrong last sequence: N".
func actualSequence(err error) uint64 {
	api, ok := errors.AsType[*wire.APIError](err)
	if !ok {
		return 0
	}
	_, text, _ := strings.Cut(api.Description, ": ")
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

type nextFunc func(ctx context.Context, nc *nats.Conn, stream, subject string, from uint64) (wire.Message, error)

func (s *Store) next(ctx context.Context, next nextFunc, subject string, from uint64) (wire.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, s.attempt)
	defer cancel()
	return next(ctx, s.nc, s.name, subject, from)
}

// MicroTime rounds a time as it will be stored: UTC, to the microsecond.
func MicroTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
