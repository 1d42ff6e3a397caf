package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	// Expect is for writers that have not loaded the aggregate: it takes the place
	// of After and costs a read of the leader. Defaults to After.
	Expect Expectation
	// Decisions must not be empty. They are not changed.
	Decisions []Decision
	// State is the aggregate's state after the decisions, nil to leave it out. It
	// cannot stand beside [Any] and [Exists], which do not say what it follows.
	State *State
	// TraceParent is the W3C trace context of the first decision.
	TraceParent string
	// Origin says where a copied commit was stored first.
	Origin *Origin
	// Reserve are unique keys that the aggregate takes with this commit, Release
	// those that it gives up: all of it is stored, or nothing. With any, the append
	// is a transaction, see [Store.AppendAll].
	Reserve, Release []Key
}

// Append stores a commit and returns it, with its sequence, as the aggregate's
// new head. It is sent again unchanged until its outcome is known:
//
//   - nil: stored, exactly once.
//   - [*ConflictError]: not stored and never will be.
//   - [*KeyTakenError]: likewise, since another aggregate has a key.
//   - [*RefusedError]: not stored, the server will not have it.
//   - [ErrUnavailable]: not stored, NATS did not take it before ctx ended.
//   - [*UnknownError]: ctx ended while it may have been on its way. See
//     [Store.Settle] and [Store.Abandon].
//   - [ErrStoreWentBack]: not stored, the store's last sequence stays below After's,
//     or an earlier append got a sequence that this store had seen before.
//   - [*InvalidError]: the write was malformed and never sent.
//
// It costs one publish; with Expect, a read before it; with unique keys, a read of
// each and a transaction. A context without a deadline is bounded by
// [Config.AppendTimeout].
func (s *Store) Append(ctx context.Context, w Write) (Head, error) {
	subject, err := s.Subject(w.Type, w.ID)
	if err != nil {
		return Head{}, err
	}
	if err := w.validate(); err != nil {
		return Head{}, err
	}
	if w.Expect.kind != expectAfter || len(w.Reserve)+len(w.Release) > 0 {
		heads, err := s.appendAll(ctx, []Write{w})
		if err != nil {
			return Head{}, err
		}
		return heads[0], nil
	}
	if err := s.ahead(&w); err != nil {
		return Head{}, err
	}
	p, err := s.single(subject, &w)
	if err != nil {
		return Head{}, err
	}
	if err := s.decideStateless(ctx, p); err != nil {
		return Head{}, err
	}
	return p.commits[0].Head, nil
}

// ahead refuses to write to a store that went back.
func (s *Store) ahead(w *Write) error {
	if !s.horizon.back.Load() {
		return nil
	}
	return fmt.Errorf("%s %q: %w: it gave out sequences a second time; find out what is lost, then open it anew",
		w.Type, w.ID, ErrStoreWentBack)
}

// pending is a commit, or the commits of a transaction, on the way to the server:
// the messages are sent unchanged until they are decided.
type pending struct {
	mu      sync.Mutex // held by who goes on with an unknown outcome
	store   *Store
	msgs    []*nats.Msg
	commits []*Commit
	// first is the index of the caller's first commit; those of keys stand before.
	first int
	// keys are the names of the keys.
	keys []string
}

// single is the pending commit of one write, in one piece of memory.
func (s *Store) single(subject string, w *Write) (*pending, error) {
	c := s.commit(w, w.After)
	msg, err := encodeCommit(subject, c, s.codec)
	if err != nil {
		return nil, err
	}
	one := &struct {
		pending
		msg    [1]*nats.Msg
		commit [1]*Commit
	}{msg: [1]*nats.Msg{msg}, commit: [1]*Commit{c}}
	one.store, one.msgs, one.commits = s, one.msg[:], one.commit[:]
	return &one.pending, nil
}

// commit is the write's commit after a head.
func (s *Store) commit(w *Write, after Head) *Commit {
	names := eventNames(w.Decisions)
	return &Commit{
		Type: w.Type, ID: w.ID, Previous: after.CommitID, PreviousSequence: after.Sequence,
		EventNames: names, TraceParent: w.TraceParent, Origin: w.Origin, Decisions: w.Decisions, State: w.State,
		Head: Head{CommitID: newCommitID(), Ordinal: after.Ordinal + 1, Version: after.Version + uint64(len(names))},
	}
}

// stored notes the sequences of commits of which the last stands at last.
func (p *pending) stored(last uint64) {
	for i, c := range p.commits {
		c.Sequence = last - uint64(len(p.commits)-1-i) //nolint:gosec // an index is below the length
	}
}

// heads are the aggregates' new heads.
func (p *pending) heads() []Head {
	heads := make([]Head, 0, len(p.commits)-p.first)
	for _, c := range p.commits[p.first:] {
		heads = append(heads, c.Head)
	}
	return heads
}

// decideStateless decides, and gives the states up when the server finds a
// message too large: they are a convenience, the events are not. What is refused
// has never been on its way, so the commits may change.
func (s *Store) decideStateless(ctx context.Context, p *pending) error {
	err := s.decide(ctx, p, false)
	if !tooLarge(err) || !p.dropStates() {
		return err
	}
	for i, c := range p.commits {
		if p.msgs[i], err = encodeCommit(p.msgs[i].Subject, c, s.codec); err != nil {
			return err
		}
	}
	return s.decide(ctx, p, false)
}

// dropStates tells whether there were any.
func (p *pending) dropStates() bool {
	dropped := false
	for _, c := range p.commits {
		dropped = dropped || c.State != nil
		c.State = nil
	}
	return dropped
}

// tooLarge tells refusals that a smaller commit would not meet: by this client,
// or by a stream with a limit of its own.
func tooLarge(err error) bool {
	refused, ok := errors.AsType[*RefusedError](err)
	return ok && (errors.Is(refused.Cause, nats.ErrMaxPayload) || wire.Number(refused.Cause) == codeMessageTooLarge)
}

// bounded is ctx with the deadline that appends without one have.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.timeout)
}

// again waits before a write whose expectation has to be read anew. The error says
// what came before when ctx ends first: nothing is on its way.
func again(ctx context.Context, wait *backoff, conflict error) error {
	if stop := wait.next(ctx); stop != nil {
		return fmt.Errorf("%w: gave up: %w", conflict, stop)
	}
	return nil
}

// MicroTime rounds a time as it will be stored: UTC, to the microsecond.
func MicroTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
