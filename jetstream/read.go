package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"

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

// pageHistory is the page size for one aggregate's history: its commits lie far
// apart, and the server stops the store's writers while it gathers a page.
const pageHistory = 4

// Pages of whole-store scans, whose messages lie side by side.
const (
	pageScan      = 256
	pageScanBytes = 4 << 20
)

// staleReads is how many replicas may answer short before the leader is asked.
const staleReads = 3

// Last returns the aggregate's last commit in one direct get, whatever the length
// of its history. An aggregate without commits is [ErrNotFound]; from a replica
// that proves nothing.
func (s *Store) Last(ctx context.Context, typ, id string, from Source) (*Commit, error) {
	subject, err := s.Subject(typ, id)
	if err != nil {
		return nil, err
	}
	get := wire.LeaderLast
	if from == Replica {
		get = wire.DirectLast
	}
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) { return get(ctx, s.nc, s.name, subject) })
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
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	for wait := newBackoff(); ; {
		attempt, cancel := context.WithTimeout(ctx, s.attempt)
		v, err := read(attempt)
		cancel()
		if err == nil || errors.Is(err, wire.ErrNotFound) || errors.Is(err, wire.ErrTooMany) ||
			errors.Is(err, nats.ErrConnectionClosed) {
			return v, err
		}
		if number := wire.Number(err); number != 0 && !transient(number) {
			return v, err
		}
		if stop := wait.next(ctx); stop != nil {
			return v, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(stop, err))
		}
	}
}

// Range bounds a read by stream sequences.
type Range struct {
	// After is where to begin: at the first commit beyond it.
	After uint64
	// To is the sequence of the last commit wanted, which must be there. Defaults
	// to 0, the last commit that the leader has when the read begins.
	To uint64
}

// History yields an aggregate's commits in order. It is complete: it ends with
// the commit at r.To or with an error, [ErrIncomplete] when that commit could not
// be reached. Each commit is checked to follow the one before; one that does not
// is a [*FormatError]. An aggregate
// without commits yields nothing.
//
// It reads a few commits at a time, so memory is bounded; each page costs a round
// trip and the disk blocks that its commits lie in.
func (s *Store) History(ctx context.Context, typ, id string, r Range) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		subject, err := s.Subject(typ, id)
		if err != nil {
			yield(nil, err)
			return
		}
		var before *Commit
		for m, err := range s.messages(ctx, subject, r, pageHistory, 1<<20) {
			if err != nil {
				yield(nil, fmt.Errorf("history of %s %q: %w", typ, id, err))
				return
			}
			c, err := Decode(&m)
			if err == nil {
				err = follows(&m, c, before, r.After)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(c, nil) {
				return
			}
			before = c
		}
	}
}

// follows checks that a commit continues the one before it in a history that
// began after a sequence.
func follows(m *wire.Message, c, before *Commit, after uint64) error {
	switch {
	case before == nil && after > 0, before == nil && c.Ordinal == 1:
		return nil
	case before == nil:
		return formatError(m, fmt.Sprintf("the chain is broken: the first commit there is has ordinal %d", c.Ordinal), nil)
	case c.Previous != before.CommitID || c.Ordinal != before.Ordinal+1:
		return formatError(m, fmt.Sprintf(
			"the chain is broken: it follows %q with ordinal %d, but commit %s with ordinal %d stands before it",
			c.Previous, c.Ordinal, before.CommitID, before.Ordinal), nil)
	case c.Version != before.Version+uint64(c.Events()): //nolint:gosec // a length
		return formatError(m, fmt.Sprintf("the chain is broken: version %d with %d events follows version %d",
			c.Version, c.Events(), before.Version), nil)
	}
	return nil
}

// Scan yields every commit of the store in order, or every commit of one
// aggregate type. It is complete as [Store.History] is.
func (s *Store) Scan(ctx context.Context, typ string, r Range) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		if typ != "" {
			if err := ValidateName("aggregate type", typ); err != nil {
				yield(nil, err)
				return
			}
		}
		for m, err := range s.messages(ctx, s.SubjectFilter(typ), r, pageScan, pageScanBytes) {
			if err != nil {
				yield(nil, fmt.Errorf("scan of store %q: %w", s.name, err))
				return
			}
			if IsGenesis(&m) {
				continue
			}
			c, err := Decode(&m)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// messages yields the messages of a range. A page that ends too early, because
// its replica lags, is asked for again, in the end one message at a time from the
// leader.
func (s *Store) messages(
	ctx context.Context, subject string, r Range, limit, bytes int,
) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		if r.To == 0 {
			last, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
				return wire.LeaderLast(ctx, s.nc, s.name, subject)
			})
			if errors.Is(err, wire.ErrNotFound) {
				return
			}
			if err != nil {
				yield(wire.Message{}, err)
				return
			}
			r.To = last.Sequence
		}
		short, wait := 0, newBackoff()
		for from := r.After + 1; from <= r.To; {
			page, err := s.page(ctx, subject, from, limit, bytes, short >= staleReads)
			if err != nil {
				yield(wire.Message{}, err)
				return
			}
			short++
			for _, m := range page {
				if m.Sequence > r.To {
					yield(wire.Message{}, fmt.Errorf("%w: there is no commit at %d, the next one is at %d",
						ErrIncomplete, r.To, m.Sequence))
					return
				}
				short = 0
				if !yield(m, nil) || m.Sequence == r.To {
					return
				}
				from = m.Sequence + 1
			}
			if short == 0 {
				wait = newBackoff()
				continue
			}
			stop := wait.next(ctx)
			if stop != nil || short > 2*staleReads {
				yield(wire.Message{}, errors.Join(
					fmt.Errorf("%w: nothing at or after %d, wanted up to %d", ErrIncomplete, from, r.To), stop))
				return
			}
		}
	}
}

func (s *Store) page(
	ctx context.Context, subject string, from uint64, limit, bytes int, leader bool,
) ([]wire.Message, error) {
	if leader {
		m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
			return wire.LeaderNext(ctx, s.nc, s.name, subject, from)
		})
		if errors.Is(err, wire.ErrNotFound) {
			return nil, nil
		}
		return []wire.Message{m}, err
	}
	p, err := retried(ctx, s, func(ctx context.Context) (wire.Page, error) {
		return wire.Batch(ctx, s.nc, s.name, subject, from, limit, bytes)
	})
	return contiguous(p.Messages), err
}

// contiguous cuts a page where a message of it got lost on its way: an answer of
// several messages may cross a connection between servers that breaks.
func contiguous(page []wire.Message) []wire.Message {
	before := "0"
	for i := range page {
		if header(page[i].Header, headerBefore) != before {
			return page[:i]
		}
		before = header(page[i].Header, nats.JSSequence)
	}
	return page
}

// headerBefore is the sequence of the message before in an answer of several.
const headerBefore = "Nats-Last-Sequence"

// LastSequence is the sequence of the store's last commit, as the leader has it.
func (s *Store) LastSequence(ctx context.Context) (uint64, error) {
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.LeaderLast(ctx, s.nc, s.name, s.SubjectFilter(""))
	})
	if err != nil {
		return 0, fmt.Errorf("head of store %q: %w", s.name, err)
	}
	return m.Sequence, nil
}

// LastPosition is the position of the store's last commit, as the leader has it.
func (s *Store) LastPosition(ctx context.Context) (Position, error) {
	seq, err := s.LastSequence(ctx)
	return s.Position(seq), err
}
