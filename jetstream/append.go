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
//   - [ErrStoreWentBack]: not stored, the store's last sequence stays below After's,
//     or an earlier append got a sequence that this store had seen before.
//   - [*InvalidError]: the write was malformed and never sent.
//
// It costs one publish. A context without a deadline is bounded by
// [Config.AppendTimeout].
func (s *Store) Append(ctx context.Context, w Write) (Head, error) {
	subject, err := s.Subject(w.Type, w.ID)
	if err != nil {
		return Head{}, err
	}
	if err := w.validate(); err != nil {
		return Head{}, err
	}
	if s.horizon.back.Load() {
		return Head{}, fmt.Errorf("%s %q: %w: it gave out sequences a second time; find out what is lost, then open it anew",
			w.Type, w.ID, ErrStoreWentBack)
	}
	names := eventNames(w.Decisions)
	c := &Commit{
		Type: w.Type, ID: w.ID, Previous: w.After.CommitID, PreviousSequence: w.After.Sequence,
		EventNames: names, TraceParent: w.TraceParent, Origin: w.Origin, Decisions: w.Decisions, State: w.State,
		Head: Head{CommitID: newCommitID(), Ordinal: w.After.Ordinal + 1, Version: w.After.Version + uint64(len(names))},
	}
	c.Sequence, err = s.encodeAndDecide(ctx, subject, c)
	if c.State != nil && tooLarge(err) {
		// The state is a convenience, the events are not: give it up. What is
		// refused has never been on its way, so the commit may change.
		c.State = nil
		c.Sequence, err = s.encodeAndDecide(ctx, subject, c)
	}
	if err != nil {
		return Head{}, err
	}
	return c.Head, nil
}

func (s *Store) encodeAndDecide(ctx context.Context, subject string, c *Commit) (uint64, error) {
	msg, err := encodeCommit(subject, c, s.codec)
	if err != nil {
		return 0, err
	}
	return s.decide(ctx, msg, c)
}

// tooLarge tells refusals that a smaller commit would not meet: by this client,
// or by a stream with a limit of its own.
func tooLarge(err error) bool {
	refused, ok := errors.AsType[*RefusedError](err)
	return ok && (errors.Is(refused.Cause, nats.ErrMaxPayload) || wire.Number(refused.Cause) == codeMessageTooLarge)
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
	began := time.Now()
	_, bounded := ctx.Deadline()
	for {
		// An attempt that cannot be made must not count as one that was.
		if stop := context.Cause(ctx); stop != nil || s.nc.IsClosed() {
			if stop == nil {
				stop = nats.ErrConnectionClosed
			}
			return 0, s.undecided(c, open, stop)
		}
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
		case number == codeStoreFailed && s.replicas > 1:
			// One replica failed to store what its peers may have stored.
			open = true
		case number != 0 && !transient(number),
			errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrHeadersNotSupported):
			if !open {
				return 0, &RefusedError{Type: c.Type, ID: c.ID, Cause: err}
			}
		case unsent(err):
		default:
			open = true
		}
		// The first attempt has a bound of its own, and nearly always decides.
		if !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, began.Add(s.timeout)) //nolint:fatcontext // once
			defer cancel()
			bounded = true
		}
		if open || wire.IsWrongLastSequence(err) {
			if seq, done, err := s.settled(ctx, msg.Subject, c); done {
				return seq, err
			}
		}
		if stop := wait.next(ctx); stop != nil {
			return 0, s.undecided(c, open, errors.Join(stop, err, denied(s.nc, msg.Subject)))
		}
	}
}

// undecided is the error of an append that has to give up.
func (s *Store) undecided(c *Commit, open bool, cause error) error {
	if open {
		return &UnknownError{Type: c.Type, ID: c.ID, CommitID: c.CommitID, Cause: cause}
	}
	return fmt.Errorf("%s %q: %w: the commit was not stored: %w", c.Type, c.ID, ErrUnavailable, cause)
}

// denied is the server's last complaint when it was about publishing to the
// subject. It arrives beside the attempts, so it explains a timeout and proves
// nothing about any of them.
func denied(nc *nats.Conn, subject string) error {
	err := nc.LastError()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), strconv.Quote(subject)) {
		return err
	}
	return nil
}

func (s *Store) publish(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, min(s.attempt, s.timeout))
	defer cancel()
	before := s.horizon.last.Load()
	ack, err := wire.Publish(ctx, s.nc, msg)
	if err == nil && ack.Stream != s.name {
		return 0, fmt.Errorf("%w: stream %q answered for store %q", wire.ErrProtocol, ack.Stream, s.name)
	}
	if err == nil {
		s.horizon.acked(before, ack.Sequence)
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

// Error codes of publishes that internal/wire has no use for.
const (
	codeMessageTooLarge = 10054
	codeStoreFailed     = 10077
)

// transient tells errors that a later attempt may not meet: no leader (10008,
// 10009), no resources for now (10023, 10047), too many requests (10167), a
// stream that its server has not started (10118, 10194).
func transient(number int) bool {
	switch number {
	case 10008, 10009, 10023, 10047, 10118, 10167, 10194:
		return true
	}
	return false
}

// unsent tells errors that prove that the server never took the message.
func unsent(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrConnectionDraining) ||
		errors.Is(err, nats.ErrInvalidConnection)
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
