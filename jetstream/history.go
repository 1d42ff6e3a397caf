package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/rossby-go/rossby/internal/wire"
)

// How a history is read. The server stops the store's writers while it gathers a
// page, and searching costs it more than a get by sequence, so commits are got one
// by one along the chain that they form.
const (
	// windowCommits bounds what is in memory at once, windowBytes each stretch.
	windowCommits = 256
	windowBytes   = 2 << 20
	// walkers is how many stretches of a window are read at once, walkerCommits
	// what each must have to be worth a search for its end.
	walkers       = 4
	walkerCommits = 12
	// fewCommits may be of any size.
	fewCommits = 4
)

// History yields an aggregate's commits. It is complete: it ends with the commit
// that the range ends with or with an error, [ErrIncomplete] when that could not be
// reached. Each commit is checked to follow the one before; one that does not is a
// [*DamageError]. An aggregate without commits yields nothing.
//
// Memory is bounded. It costs about one get a commit, of which a few are under way
// at once; bounds by version or time cost a few gets more.
func (s *Store) History(ctx context.Context, typ, id string, r Range) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		subject, err := s.Subject(typ, id)
		if err == nil {
			err = r.validate(true)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		h := history{Store: s, subject: subject, window: windowCommits / 4}
		for c, err := range h.commits(ctx, r) {
			if err != nil {
				yield(nil, fmt.Errorf("history of %s %q: %w", typ, id, err))
				return
			}
			if r.wants(c.EventNames) && !yield(c, nil) {
				return
			}
		}
	}
}

// history is one read of an aggregate's commits.
type history struct {
	*Store

	subject string
	// window is how many commits are read at once: more as it goes on, fewer where
	// they are large.
	window uint64
}

func (h *history) commits(ctx context.Context, r Range) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		after, err := h.begin(ctx, &r)
		if err != nil {
			yield(nil, err)
			return
		}
		end, err := h.end(ctx, r)
		if to := unreadable(err, r); to > 0 {
			// Whatever lies before it is yielded nevertheless.
			h.search(ctx, after, nil, to, yield)
			return
		}
		if err == nil && end != nil && r.AfterVersion > 0 {
			after, err = h.afterVersion(ctx, end, after, r.AfterVersion)
		}
		if err == nil && (end == nil || end.Sequence <= after) && r.After > 0 {
			err = h.checkReached(ctx, r.After)
		}
		switch {
		case err != nil:
			yield(nil, err)
		case end == nil || end.Sequence <= after:
		case r.Backwards:
			h.backwards(ctx, after, end, yield)
		default:
			h.forwards(ctx, after, end, yield)
		}
	}
}

// unreadable is the sequence of an end that is not there, or is no commit, where
// what lies before it can be read.
func unreadable(err error, r Range) uint64 {
	if r.Backwards || r.AfterVersion > 0 {
		return 0
	}
	if format, ok := errors.AsType[*FormatError](err); ok {
		return format.Sequence
	}
	if errors.Is(err, ErrIncomplete) {
		return r.To
	}
	return 0
}

// backwards walks the chain from its end.
func (h *history) backwards(ctx context.Context, after uint64, c *Commit, yield func(*Commit, error) bool) {
	for {
		if !yield(c, nil) {
			return
		}
		err := h.linked(c)
		if err == nil && c.PreviousSequence <= after {
			return
		}
		var before *Commit
		if err == nil {
			before, err = h.previous(ctx, c)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		c = before
	}
}

// linked checks that a commit names the place of the one before, which the server
// has checked when it stored the commit; the first one names none.
func (h *history) linked(c *Commit) error {
	switch {
	case c.unguarded:
		return unguardedError(c, h.subject)
	case (c.Ordinal == 1) != (c.PreviousSequence == 0), c.PreviousSequence >= c.Sequence:
		return chainError(c.Sequence, h.subject, fmt.Sprintf("it has ordinal %d and says that it follows one at %d",
			c.Ordinal, c.PreviousSequence))
	}
	return nil
}

// previous is the commit before, which must be what c says it is.
func (h *history) previous(ctx context.Context, c *Commit) (*Commit, error) {
	if err := h.linked(c); err != nil {
		return nil, err
	}
	before, err := h.at(ctx, h.subject, c.PreviousSequence)
	switch {
	case errors.Is(err, ErrIncomplete):
		return nil, chainError(c.Sequence, h.subject, fmt.Sprintf("it follows commit %q at %d: %s",
			c.Previous, c.PreviousSequence, strings.TrimPrefix(err.Error(), ErrIncomplete.Error()+": ")))
	case err != nil:
		return nil, err
	}
	return before, follows(h.subject, c, before)
}

// forwards yields the commits after a sequence up to end, a window at a time. Where
// the chain does not hold, the rest is searched commit by commit.
func (h *history) forwards(ctx context.Context, after uint64, end *Commit, yield func(*Commit, error) bool) {
	lo := place{sequence: after}
	var before *Commit
	for lo.sequence < end.Sequence {
		commits, err := h.next(ctx, &lo, end)
		for _, c := range commits {
			if err == nil && (before != nil || after == 0) {
				err = follows(h.subject, c, before)
			}
			if err != nil {
				break
			}
			if !yield(c, nil) {
				return
			}
			before = c
			lo = place{sequence: c.Sequence, ordinal: c.Ordinal, known: true}
		}
		if errors.Is(err, errLarge) && h.window > fewCommits {
			h.window = max(h.window/4, fewCommits)
			continue
		}
		if errors.Is(err, errBroken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrFormat) {
			h.search(ctx, lo.sequence, before, end.Sequence, yield)
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
	}
}

var (
	// errBroken is a chain that does not lead where it has to. What is wrong with it
	// is found by searching.
	errBroken = errors.New("the chain is broken")
	// errLarge is a window that takes more memory than it may.
	errLarge = errors.New("the window is too large")
)

// place is a commit that a window begins after. The place before the first one has
// ordinal 0.
type place struct {
	sequence, ordinal uint64
	known             bool
}

// next reads the window after lo, in order.
func (h *history) next(ctx context.Context, lo *place, end *Commit) ([]*Commit, error) {
	if !lo.known && lo.sequence > 0 {
		// Mostly what lies after a sequence is little.
		commits, err := h.walk(ctx, end, lo.sequence, walkerCommits)
		if err == nil || !errors.Is(err, errBroken) && !errors.Is(err, errLarge) {
			return commits, err
		}
		m, err := h.firstFrom(ctx, h.subject, lo.sequence+1)
		if err != nil {
			return nil, err
		}
		first, err := Decode(&m)
		if err != nil {
			return nil, err
		}
		lo.ordinal = first.Ordinal - 1
	}
	lo.known = true
	hi, err := h.windowEnd(ctx, *lo, end)
	if err != nil {
		return nil, err
	}
	commits, err := h.read(ctx, *lo, hi)
	if err != nil {
		return nil, err
	}
	h.window = min(2*h.window, windowCommits)
	return commits, nil
}

// windowEnd finds a commit after lo that ends a window of about the right length.
func (h *history) windowEnd(ctx context.Context, lo place, hi *Commit) (*Commit, error) {
	for hi.Ordinal > lo.ordinal && hi.Ordinal-lo.ordinal > h.window {
		part := 0.8 * float64(h.window) / float64(hi.Ordinal-lo.ordinal)
		from := lo.sequence + max(1, uint64(part*float64(hi.Sequence-lo.sequence)))
		m, err := h.firstFrom(ctx, h.subject, from)
		if err != nil {
			return nil, err
		}
		c, err := Decode(&m)
		if err != nil {
			return nil, err
		}
		if c.Sequence >= hi.Sequence {
			// Nothing between there and hi: go to the commit before.
			if c, err = h.at(ctx, h.subject, hi.PreviousSequence); err != nil || c.Sequence <= lo.sequence {
				return nil, errBroken
			}
		}
		hi = c
	}
	if hi.Ordinal <= lo.ordinal {
		return nil, errBroken
	}
	return hi, nil
}

// read gets the commits after lo up to hi, in several stretches at once.
func (h *history) read(ctx context.Context, lo place, hi *Commit) ([]*Commit, error) {
	count := hi.Ordinal - lo.ordinal
	n := min(max(count/walkerCommits, 1), walkers)
	type stretch struct {
		commits []*Commit
		err     error
	}
	all := make([]stretch, n)
	cut := func(i uint64) uint64 { return lo.sequence + (hi.Sequence-lo.sequence)*i/n }
	var wg sync.WaitGroup
	for i := range n - 1 {
		wg.Go(func() {
			s := &all[i]
			var m wire.Message
			if m, s.err = h.firstFrom(ctx, h.subject, cut(i+1)+1); s.err != nil {
				return
			}
			var c *Commit
			if c, s.err = Decode(&m); s.err == nil {
				s.err = h.linked(c)
			}
			if s.err != nil || c.PreviousSequence <= cut(i) {
				return
			}
			if c, s.err = h.previous(ctx, c); s.err == nil {
				s.commits, s.err = h.walk(ctx, c, cut(i), count)
			}
		})
	}
	all[n-1].commits, all[n-1].err = h.walk(ctx, hi, cut(n-1), count)
	wg.Wait()
	commits := make([]*Commit, 0, count)
	for _, s := range all {
		if s.err != nil {
			return nil, s.err
		}
		commits = append(commits, s.commits...)
	}
	return commits, nil
}

// walk returns a commit and those before it down to a sequence, in order. More than
// most are errBroken.
func (h *history) walk(ctx context.Context, c *Commit, after, most uint64) ([]*Commit, error) {
	commits, size := []*Commit{c}, c.size()
	for {
		if err := h.linked(c); err != nil {
			return nil, err
		}
		if c.PreviousSequence <= after {
			break
		}
		if uint64(len(commits)) >= most {
			return nil, errBroken
		}
		if size > windowBytes && len(commits) >= fewCommits {
			return nil, errLarge
		}
		before, err := h.previous(ctx, c)
		if err != nil {
			return nil, err
		}
		commits, size = append(commits, before), size+before.size()
		c = before
	}
	slices.Reverse(commits)
	return commits, nil
}

// search yields the commits after a sequence up to another one as they are found
// on the subject, and the error that names what is wrong with them.
func (h *history) search(
	ctx context.Context, after uint64, before *Commit, to uint64, yield func(*Commit, error) bool,
) {
	for from := min(after, to) + 1; from <= to; { // after may be beyond everything
		m, err := h.firstFrom(ctx, h.subject, from)
		switch {
		case errors.Is(err, wire.ErrNotFound):
			err = fmt.Errorf("%w: nothing at or after %d, wanted up to %d", ErrIncomplete, from, to)
		case err == nil && m.Sequence > to:
			err = fmt.Errorf("%w: there is no commit at %d, the next one is at %d", ErrIncomplete, to, m.Sequence)
		}
		var c *Commit
		if err == nil {
			c, err = Decode(&m)
		}
		if err == nil && (before != nil || after == 0) {
			err = follows(h.subject, c, before)
		}
		if !yield(c, err) || err != nil {
			return
		}
		before, from = c, c.Sequence+1
	}
}

// size is about what the commit takes in memory.
func (c *Commit) size() int {
	n := 512
	for i := range c.Decisions {
		n += 256
		for j := range c.Decisions[i].Events {
			n += 128 + len(c.Decisions[i].Events[j].Data)
		}
	}
	if c.State != nil {
		n += len(c.State.Data)
	}
	return n
}

// follows checks that a commit continues the one before it, nil for none.
func follows(subject string, c, before *Commit) error {
	switch {
	case before == nil && c.unguarded:
		return unguardedError(c, subject)
	case before == nil && c.Ordinal == 1:
		return nil
	case before == nil:
		return chainError(c.Sequence, subject, fmt.Sprintf("the first commit there is has ordinal %d", c.Ordinal))
	case c.PreviousSequence != before.Sequence && !c.unguarded:
		return chainError(c.Sequence, subject, fmt.Sprintf(
			"it was stored after a commit at %d, but one at %d stands before it", c.PreviousSequence, before.Sequence))
	case c.Previous != before.CommitID || c.Ordinal != before.Ordinal+1:
		return chainError(c.Sequence, subject, fmt.Sprintf(
			"it follows %q with ordinal %d, but commit %s with ordinal %d stands before it, at %d",
			c.Previous, c.Ordinal, before.CommitID, before.Ordinal, before.Sequence))
	case c.Version != before.Version+uint64(c.Events()): //nolint:gosec // a length
		return chainError(c.Sequence, subject, fmt.Sprintf("version %d with %d events follows version %d",
			c.Version, c.Events(), before.Version))
	}
	return nil
}

func unguardedError(c *Commit, subject string) *DamageError {
	return chainError(c.Sequence, subject, "it was stored without an expectation")
}

func chainError(sequence uint64, subject, detail string) *DamageError {
	return &DamageError{
		Kind: DamageChain, Subject: subject, Sequence: sequence, Through: sequence, Detail: "the chain is broken: " + detail,
	}
}
