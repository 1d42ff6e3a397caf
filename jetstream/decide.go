package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// wentBackAfter is how many answers below the expected sequence, of a leader that the
// other replicas follow, make a store that went back: one that was just replaced, and
// has not been told so, is long before.
const wentBackAfter = 12

// askAfter is how many incomplete batches in a row make the next one be answered
// message by message: what was refused may be one of them.
const askAfter = 4

// decide sends the messages until their outcome is known. What proves what is
// worked out in the design: an acknowledgement proves that they are stored; the
// first commit on a subject after the expected one proves it either way, for all
// of a transaction; an error proves that they are not stored only as long as no
// earlier attempt is open, and no other server can have taken the attempt.
func (s *Store) decide(ctx context.Context, p *pending, open bool) error {
	wait := newBackoff()
	a := s.attempts(open)
	began := time.Now()
	_, bounded := ctx.Deadline()
	for {
		// An attempt that cannot be made must not count as one that was.
		if stop := context.Cause(ctx); stop != nil || s.nc.IsClosed() {
			if stop == nil {
				stop = nats.ErrConnectionClosed
			}
			return p.undecided(a.open || a.doubtful, stop)
		}
		err := s.publish(ctx, p, a.incomplete >= askAfter)
		if err == nil {
			return nil
		}
		if mutate.On(mutate.BlindRetry) && p.follow(err) {
			continue
		}
		if final := a.failed(p, err); final != nil {
			return final
		}
		if decided, err := p.mutated(&a, err); decided {
			return err
		}
		if wire.Denied(err) {
			// Nobody gives the permission while we wait. An earlier attempt, or one of
			// another commit on the subject, may have come before it was taken away.
			if done, found := s.settledSince(ctx, p, a.before); done {
				return found
			}
			return p.undecided(a.open, err)
		}
		// The first attempt has a bound of its own, and nearly always decides.
		if !bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, began.Add(s.timeout)) //nolint:fatcontext // once
			defer cancel()
			bounded = true
		}
		if a.open || a.doubtful || wire.IsWrongLastSequence(err) {
			if done, err := s.settledSince(ctx, p, a.before); done {
				return err
			}
		}
		if lost := s.lost(ctx, p, &a, err); lost != nil {
			return lost
		}
		if stop := wait.next(ctx); stop != nil {
			return p.undecided(a.open || a.doubtful, errors.Join(stop, err))
		}
	}
}

// attempts is what those made so far have shown.
type attempts struct {
	// open: one of them may be stored, or be stored yet.
	open bool
	// doubtful: one was answered with an error by one server, and another may have
	// stored it. A publish reaches every server that takes itself for the stream's
	// leader: one that was cut off, and does not know yet that it was replaced, answers
	// out of what it knew, beside the new one and perhaps before it.
	doubtful bool
	// before is what had been seen of the store when the first one was made, 0 when that
	// is not known.
	before uint64
	// below: the store was behind of the last one's expectation. behind counts those
	// where its leader surely was the leader.
	below  bool
	behind int
	// incomplete counts those in a row that ended with an incomplete batch.
	incomplete int
}

// attempts begins anew, or goes on with what was sent before.
func (s *Store) attempts(open bool) attempts {
	a := attempts{open: open}
	if !open {
		a.before = s.horizon.last.Load()
	}
	return a
}

// failed takes in an attempt's error. It returns what is final.
func (a *attempts) failed(p *pending, err error) error {
	number := wire.Number(err)
	a.doubtful = a.doubtful || number != 0 && p.store.mayHaveReplicas()
	before := a.incomplete
	a.incomplete, a.below = 0, false
	switch {
	case number == wire.CodeBatchIncomplete, number == wire.CodeBatchTooMany:
		a.incomplete = before + 1
	case number == wire.CodeWrongLastSequence && len(p.msgs) == 1:
		expected, actual := p.commits[0].PreviousSequence, actualSequence(err)
		if actual > expected && !a.open && !p.store.mayHaveReplicas() {
			return p.conflict(0, actual)
		}
		// What is found may be ours: see doubtful.
		a.below = actual < expected
	case number == wire.CodeWrongLastSequence:
		// Whose sequence it is, the server does not say.
		a.below = true
	case number == wire.CodeWrongLastSequenceInFlight:
	case number == codeStoreFailed && p.store.mayHaveReplicas():
		// One replica failed to store what its peers may have stored.
		a.open = true
	case wire.Denied(err) && !wire.DeniedSurely(err):
		a.open = true
	case refusal(err):
		// What one leader will not have, no other has taken.
		if !a.open {
			return &RefusedError{Type: p.main().Type, ID: p.main().ID, Cause: err}
		}
	case unsent(err):
	default:
		a.open = true
	}
	return nil
}

// mayHaveReplicas tells whether the stream may have several by now: a store that
// was opened when it had one is not told of others.
func (s *Store) mayHaveReplicas() bool { return s.replicas > 1 || s.nc.ConnectedClusterName() != "" }

// main is the commit that errors name: the first of the caller's.
func (p *pending) main() *Commit { return p.commits[p.first] }

// undecided is the error of an append that has to give up.
func (p *pending) undecided(open bool, cause error) error {
	c := p.main()
	if open {
		return &UnknownError{Type: c.Type, ID: c.ID, CommitID: c.CommitID, Cause: cause, pending: p}
	}
	return fmt.Errorf("%s %q: %w: the commit was not stored: %w", c.Type, c.ID, ErrUnavailable, cause)
}

// conflict is the error of an append whose i-th commit another one came before.
func (p *pending) conflict(i int, actual uint64) error {
	c := p.commits[i]
	return &ConflictError{Type: c.Type, ID: c.ID, Expected: c.PreviousSequence, Actual: actual}
}

// publish makes one attempt. With ask, each message of a transaction is answered.
func (s *Store) publish(ctx context.Context, p *pending, ask bool) error {
	if len(p.msgs) > 1 {
		select {
		case s.batches <- struct{}{}:
			defer func() { <-s.batches }()
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", wire.ErrNotSent, context.Cause(ctx))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, min(s.attempt, s.timeout))
	defer cancel()
	before := s.horizon.last.Load()
	var ack wire.Ack
	var err error
	switch {
	case len(p.msgs) == 1:
		ack, err = wire.Publish(ctx, s.nc, p.msgs[0])
	case mutate.On(mutate.SplitTransaction):
		ack, err = p.oneByOne(ctx)
	case ask:
		ack, err = wire.PublishBatchAsking(ctx, s.nc, p.msgs)
	default:
		ack, err = wire.PublishBatch(ctx, s.nc, p.msgs)
	}
	switch {
	case err != nil:
		return err
	case ack.Stream != s.name:
		return fmt.Errorf("%w: stream %q answered for store %q", wire.ErrProtocol, ack.Stream, s.name)
	case len(p.msgs) > 1 && ack.Count != len(p.msgs):
		return fmt.Errorf("%w: %d messages acknowledged for a batch of %d", wire.ErrProtocol, ack.Count, len(p.msgs))
	}
	p.stored(ack.Sequence)
	s.horizon.acked(before, p.commits[0].Sequence)
	s.horizon.see(ack.Sequence)
	return nil
}

// settledSince is settled for messages of which none was sent before the store had
// been seen up to a sequence.
func (s *Store) settledSince(ctx context.Context, p *pending, before uint64) (done bool, err error) {
	done, err = s.settled(ctx, p)
	if done && err == nil {
		s.horizon.acked(before, p.commits[0].Sequence)
	}
	return done, err
}

// settled looks for the first commit after the expected one, on any replica and
// then on the leader. What is found is final, for all commits of a transaction;
// nothing found proves nothing.
func (s *Store) settled(ctx context.Context, p *pending) (done bool, err error) {
	if len(p.msgs) > 1 {
		return s.settledBatch(ctx, p)
	}
	if mutate.On(mutate.NoResolver) {
		return true, p.conflict(0, p.commits[0].PreviousSequence)
	}
	for _, next := range []nextFunc{wire.DirectNext, wire.LeaderNext} {
		if m, err := s.next(ctx, next, p.msgs[0].Subject, p.commits[0].PreviousSequence+1); err == nil {
			return true, p.found(0, &m)
		}
	}
	return false, nil
}

// found decides by the first message after the expected one on the i-th subject.
func (p *pending) found(i int, m *wire.Message) error {
	if header(m.Header, headerCommit) != p.commits[i].CommitID {
		return p.conflict(i, m.Sequence)
	}
	p.stored(m.Sequence + uint64(len(p.commits)-1-i)) //nolint:gosec // an index is below the length
	return nil
}

// settledBatch is settled for a transaction. The last messages of all subjects
// are one request; only where one lies behind the expected commit is more to see.
func (s *Store) settledBatch(ctx context.Context, p *pending) (done bool, err error) {
	subjects := make([]string, len(p.msgs))
	place := make(map[string]int, len(p.msgs))
	for i, m := range p.msgs {
		subjects[i], place[m.Subject] = m.Subject, i
	}
	attempt, cancel := context.WithTimeout(ctx, s.attempt)
	page, err := wire.MultiLast(attempt, s.nc, s.name, subjects...)
	cancel()
	if err == nil {
		// From the end: the caller's conflicts count before those of keys.
		newer := make(map[int]wire.Message)
		for _, m := range page.Messages {
			if i, ok := place[m.Subject]; ok && m.Sequence > p.commits[i].PreviousSequence {
				newer[i] = m
			}
		}
		for i, c := range slices.Backward(p.commits) {
			last, ok := newer[i]
			if !ok {
				continue
			}
			if header(last.Header, headerCommit) == c.CommitID {
				return true, p.found(i, &last)
			}
			for _, next := range []nextFunc{wire.DirectNext, wire.LeaderNext} {
				if m, err := s.next(ctx, next, subjects[i], c.PreviousSequence+1); err == nil {
					return true, p.found(i, &m)
				}
			}
		}
	}
	// That replica may lag.
	for i, c := range slices.Backward(p.commits) {
		m, err := s.next(ctx, wire.LeaderNext, subjects[i], c.PreviousSequence+1)
		if err == nil {
			return true, p.found(i, &m)
		}
		if !errors.Is(err, wire.ErrNotFound) {
			break
		}
	}
	return false, nil
}

// lost counts the answers of a leader that surely is it, and does not have what is
// expected: enough of them are a store that went back.
func (s *Store) lost(ctx context.Context, p *pending, a *attempts, cause error) error {
	if !a.below || a.open || !s.followed(ctx) {
		return nil
	}
	if a.behind++; a.behind < wentBackAfter {
		return nil
	}
	a.behind = 0
	return s.wentBack(ctx, p, cause)
}

// wentBack asks the leader which subject ends before the commit that is expected
// there; nil when none does.
func (s *Store) wentBack(ctx context.Context, p *pending, cause error) error {
	for i, c := range p.commits {
		if c.PreviousSequence == 0 {
			continue
		}
		actual := actualSequence(cause)
		if len(p.commits) > 1 {
			attempt, cancel := context.WithTimeout(ctx, s.attempt)
			m, err := wire.LeaderLast(attempt, s.nc, s.name, p.msgs[i].Subject)
			cancel()
			if err != nil && !errors.Is(err, wire.ErrNotFound) {
				return nil // not known now
			}
			actual = m.Sequence
		}
		if actual < c.PreviousSequence {
			return fmt.Errorf("%s %q: %w: its last sequence is %d where %d was acknowledged",
				c.Type, c.ID, ErrStoreWentBack, actual, c.PreviousSequence)
		}
	}
	return nil
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

// refusal tells errors that no later attempt will mend.
func refusal(err error) bool {
	if number := wire.Number(err); number != 0 {
		return !transient(number)
	}
	return wire.Denied(err) || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) ||
		errors.Is(err, nats.ErrHeadersNotSupported)
}

// unsent tells errors that prove that the server never took the message.
func unsent(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrConnectionDraining) ||
		errors.Is(err, nats.ErrInvalidConnection) || errors.Is(err, wire.ErrNotSent)
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
