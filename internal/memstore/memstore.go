// Package memstore is an event store in memory, for tests of what stands on a
// store: it keeps commits as they would be stored and has the same expectations,
// but nothing of the wire.
package memstore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// Store keeps commits in memory. It is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	ahead   time.Duration // of the machine's clock
	frozen  time.Time     // in its place
	commits []*jetstream.Commit
	byID    map[aggregate][]*jetstream.Commit
	keys    map[jetstream.Key]jetstream.Owner
	timers  map[string]Timer
	answer  func(Effect) (bool, error)
}

type aggregate struct{ typ, id string }

// name is the store's, and the beginning of its positions.
const name = "memory"

// first is the sequence before the first commit: that of the genesis.
const first = 1

// New makes an empty store.
func New() *Store {
	return &Store{
		byID: map[aggregate][]*jetstream.Commit{}, timers: map[string]Timer{}, keys: map[jetstream.Key]jetstream.Owner{},
	}
}

// Name is the store's name.
func (*Store) Name() string { return name }

// Conn is nil: there is none.
func (*Store) Conn() *nats.Conn { return nil }

// Codec is that of events and states.
func (*Store) Codec() jetstream.Codec { return jetstream.Msgpack }

// Replicas is 1.
func (*Store) Replicas() int { return 1 }

// Now is the machine's time, and what was added to it.
func (s *Store) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

func (s *Store) now() time.Time {
	if !s.frozen.IsZero() {
		return s.frozen.Add(s.ahead)
	}
	return time.Now().Add(s.ahead).UTC()
}

// Freeze stops the clock: only [Store.Advance] moves it.
func (s *Store) Freeze(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen, s.ahead = at.UTC(), 0
}

// Advance moves the store's clock.
func (s *Store) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// Append stores a commit if After is the aggregate's last; else it returns a
// [*jetstream.ConflictError].
func (s *Store) Append(ctx context.Context, w jetstream.Write) (jetstream.Head, error) {
	if ctx.Err() != nil {
		return jetstream.Head{}, fmt.Errorf("%s %q: %w: %w", w.Type, w.ID, jetstream.ErrUnavailable, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := aggregate{w.Type, w.ID}
	last := uint64(0)
	if known := s.byID[k]; len(known) > 0 {
		last = known[len(known)-1].Sequence
	}
	if last != w.After.Sequence {
		return jetstream.Head{}, &jetstream.ConflictError{Type: w.Type, ID: w.ID, Expected: w.After.Sequence, Actual: last}
	}
	if err := s.keysFree(&w); err != nil {
		return jetstream.Head{}, err
	}
	var names []string
	for i := range w.Decisions {
		for _, e := range w.Decisions[i].Events {
			names = append(names, e.Name)
		}
	}
	c := &jetstream.Commit{
		Head: jetstream.Head{
			Sequence: uint64(len(s.commits)) + first + 1, CommitID: jetstream.NewID(),
			Ordinal: w.After.Ordinal + 1, Version: w.After.Version + uint64(len(names)),
		},
		Type: w.Type, ID: w.ID, Previous: w.After.CommitID, PreviousSequence: w.After.Sequence, Time: s.now(),
		EventNames: names, TraceParent: w.TraceParent, Origin: w.Origin, Decisions: w.Decisions, State: w.State,
	}
	s.commits = append(s.commits, c)
	s.byID[k] = append(s.byID[k], c)
	for _, k := range w.Release {
		delete(s.keys, k)
	}
	for _, k := range w.Reserve {
		s.keys[k] = jetstream.Owner{Type: w.Type, ID: w.ID, Position: s.Position(c.Sequence)}
	}
	return c.Head, nil
}

// keysFree wants the write's keys to be nobody else's.
func (s *Store) keysFree(w *jetstream.Write) error {
	for _, k := range slices.Concat(w.Release, w.Reserve) {
		if owner, ok := s.keys[k]; ok && (owner.Type != w.Type || owner.ID != w.ID) {
			return &jetstream.KeyTakenError{Type: w.Type, ID: w.ID, Key: k.Name, Owner: owner}
		}
	}
	return nil
}

// Last is the aggregate's last commit, or [jetstream.ErrNotFound].
func (s *Store) Last(_ context.Context, typ, id string, _ jetstream.Source) (*jetstream.Commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.byID[aggregate{typ, id}]
	if len(known) == 0 {
		return nil, fmt.Errorf("%s %q: %w", typ, id, jetstream.ErrNotFound)
	}
	return known[len(known)-1], nil
}

// LastSequence is the sequence of the last commit.
func (s *Store) LastSequence(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return first + uint64(len(s.commits)), nil
}

// LastCopied is [jetstream.ErrNotFound]: nothing is copied into memory.
func (s *Store) LastCopied(context.Context) (*jetstream.Commit, error) {
	return nil, jetstream.ErrNotFound
}

// At is the aggregate's commit at a sequence, or [jetstream.ErrIncomplete].
func (s *Store) At(_ context.Context, typ, id string, sequence uint64) (*jetstream.Commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := sequence - first - 1; sequence > first && i < uint64(len(s.commits)) {
		if c := s.commits[i]; c.Type == typ && c.ID == id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s %q: %w: no commit at %d", typ, id, jetstream.ErrIncomplete, sequence)
}

// History yields the aggregate's commits in the range. A version beyond the last is
// [jetstream.ErrIncomplete].
func (s *Store) History(
	_ context.Context, typ, id string, r jetstream.Range,
) iter.Seq2[*jetstream.Commit, error] {
	return func(yield func(*jetstream.Commit, error) bool) {
		s.mu.Lock()
		known := slices.Clone(s.byID[aggregate{typ, id}])
		s.mu.Unlock()
		if n := len(known); r.UpToVersion > 0 && (n == 0 || known[n-1].Version < r.UpToVersion) {
			yield(nil, fmt.Errorf("%s %q: %w: there is no version %d", typ, id, jetstream.ErrIncomplete, r.UpToVersion))
			return
		}
		if r.Backwards {
			slices.Reverse(known)
		}
		for _, c := range known {
			if within(c, &r) && !yield(c, nil) {
				return
			}
		}
	}
}

func within(c *jetstream.Commit, r *jetstream.Range) bool {
	first := c.Version - uint64(c.Events()) //nolint:gosec // a length
	return c.Sequence > r.After && !c.Time.Before(r.Since) && (r.AfterVersion == 0 || c.Version > r.AfterVersion) &&
		(r.To == 0 || c.Sequence <= r.To) && (r.AsOf.IsZero() || !c.Time.After(r.AsOf)) &&
		(r.UpToVersion == 0 || first < r.UpToVersion && (first > 0 || c.Version > 0)) &&
		(len(r.Events) == 0 || slices.ContainsFunc(c.EventNames, func(n string) bool { return slices.Contains(r.Events, n) }))
}

// Commits are those after a sequence, in order.
func (s *Store) Commits(after uint64) []*jetstream.Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := min(max(after, first)-first, uint64(len(s.commits)))
	return s.commits[i:len(s.commits):len(s.commits)]
}

// Position is the place of a sequence.
func (*Store) Position(sequence uint64) jetstream.Position {
	if sequence == 0 {
		return jetstream.Position{}
	}
	p, err := jetstream.ParsePosition(name + "-" + strconv.FormatUint(sequence, 36))
	if err != nil {
		return jetstream.Position{} // cannot be: the text is well formed
	}
	return p
}

// Sequence is what Position was given.
func (*Store) Sequence(p jetstream.Position) (uint64, error) {
	if p.IsZero() {
		return 0, nil
	}
	store, number, _ := strings.Cut(p.String(), "-")
	if store != name {
		return 0, &jetstream.ForeignPositionError{Position: p, Store: name}
	}
	return strconv.ParseUint(number, 36, 64)
}

// Replay is a store with the same commits without their states, so that whoever
// loads from it applies the events.
func (s *Store) Replay() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := New()
	out.ahead, out.frozen = s.ahead, s.frozen
	for _, c := range s.commits {
		bare := *c
		bare.State = nil
		k := aggregate{c.Type, c.ID}
		out.commits = append(out.commits, &bare)
		out.byID[k] = append(out.byID[k], &bare)
	}
	return out
}
