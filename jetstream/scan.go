package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/internal/wire"
)

// Pages of scans, whose messages lie side by side.
const (
	pageScan      = 256
	pageScanBytes = 4 << 20
)

// A stretch of more than pullFrom sequences is worth a consumer. How many may fail:
// a server that does not let this program make any, or has as many as it may.
const (
	pullFrom  = 4096
	pullTries = 3
)

// staleReads is how many replicas may answer short before the leader is asked.
const staleReads = 3

// own begins the names of the aggregate types that are Rossby's own: unique keys, and
// the store's description.
const own = "_"

// Scan yields every commit of the store, or every commit of one aggregate type. It
// is complete as [Store.History] is. A scan of the whole store meets every message,
// so it finds holes: a [*DamageError]. Whether each commit follows the one before
// is not checked: see [Store.Verify]. What Rossby keeps in the store for itself is left
// out: see [Store.Messages].
func (s *Store) Scan(ctx context.Context, typ string, r Range) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		err := r.validate(false)
		if typ != "" {
			err = errors.Join(ValidateName("aggregate type", typ), err)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for m, err := range s.scanned(ctx, typ, r) {
			if err != nil {
				yield(nil, fmt.Errorf("scan of store %q: %w", s.name, err))
				return
			}
			if strings.HasPrefix(m.Subject, s.prefix+own) || !r.wantsMessage(&m) {
				continue
			}
			c, err := Decode(&m)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (r *Range) wantsMessage(m *Message) bool { return len(r.Events) == 0 || r.wants(EventNames(m)) }

// scanned yields the messages that a scan meets.
func (s *Store) scanned(ctx context.Context, typ string, r Range) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		filter := wire.Everything
		if typ != "" {
			filter = s.SubjectFilter(typ)
		}
		b, err := s.span(ctx, filter, &r)
		switch {
		case err != nil:
			yield(Message{}, err)
		case b.end <= b.after:
		case r.Backwards:
			s.scanBack(ctx, filter, b, yield)
		default:
			s.messages(ctx, filter, b, yield)
		}
	}
}

// span is what a scan reads: the matching messages after a sequence up to another.
// The read is complete once it has come to the fence, which is a matching message.
type span struct {
	after, end, fence uint64
	// exact tells that the fence is the end, which must be there.
	exact bool
}

func (s *Store) span(ctx context.Context, filter string, r *Range) (b span, err error) {
	if b.after, err = s.begin(ctx, r); err != nil {
		return b, err
	}
	if r.To > 0 {
		b.end, b.fence, b.exact = r.To, r.To, true
		return b, nil
	}
	if !r.AsOf.IsZero() {
		if b.end, err = s.asOf(ctx, r.AsOf); err != nil || b.end <= b.after {
			return b, err
		}
		if b.end < math.MaxUint64 {
			// A message beyond the end proves that there are no more before it.
			m, err := s.firstFrom(ctx, filter, b.end+1)
			if err == nil || !errors.Is(err, wire.ErrNotFound) {
				b.fence = m.Sequence
				return b, err
			}
		}
	}
	m, err := s.last(ctx, filter, r.From)
	if errors.Is(err, wire.ErrNotFound) {
		b.end = 0
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if b.end == 0 || m.Sequence < b.end {
		b.end = m.Sequence
	}
	b.fence = m.Sequence
	if b.end <= b.after && b.after == r.After && r.After > 0 {
		err = s.checkReached(ctx, r.After)
	}
	return b, err
}

// messages yields the messages of a span. A page that ends too early, because its
// replica lags, is asked for again, in the end one message at a time from the
// leader.
func (s *Store) messages(ctx context.Context, filter string, b span, yield func(Message, error) bool) {
	pages := pages{Store: s, filter: filter, one: !strings.HasSuffix(filter, wire.Everything)}
	if b.fence-b.after > pullFrom && !pages.one {
		pages.pulls = pullTries
	}
	defer pages.close()
	short, wait := 0, newBackoff()
	for from := b.after + 1; from <= b.fence; {
		page, err := pages.read(ctx, from, short >= staleReads)
		if err != nil {
			yield(Message{}, err)
			return
		}
		short++
		for _, m := range page {
			if m.Sequence > b.fence && b.exact {
				yield(Message{}, fmt.Errorf("%w: there is no commit at %d, the next one is at %d",
					ErrIncomplete, b.end, m.Sequence))
				return
			}
			if filter == wire.Everything && m.Sequence > from {
				// Nothing is ever deleted. What the leader lacks is gone.
				err := s.hole(ctx, from, min(m.Sequence, b.end+1))
				if err != nil {
					yield(Message{}, err)
					return
				}
				break
			}
			short = 0
			if m.Sequence > b.end || !yield(m, nil) || m.Sequence >= b.fence {
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
			yield(Message{}, errors.Join(
				fmt.Errorf("%w: nothing at or after %d, wanted up to %d", ErrIncomplete, from, b.end), stop))
			return
		}
	}
}

// hole tells whether the leader, too, lacks what lies before a message.
func (s *Store) hole(ctx context.Context, first, next uint64) error {
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.LeaderNext(ctx, s.nc, s.name, wire.Everything, first)
	})
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return err
	}
	if err == nil && m.Sequence == first {
		return nil
	}
	if err == nil {
		next = m.Sequence
	}
	return &DamageError{
		Kind: DamageMissing, Sequence: first, Through: next - 1,
		Detail: "nothing is there, though Rossby deletes nothing",
	}
}

// scanBack yields the messages of a span from its end, which it reads a page at a
// time, whatever their subjects: what is there is proved by what lies beside it.
func (s *Store) scanBack(ctx context.Context, filter string, b span, yield func(Message, error) bool) {
	prefix := strings.TrimSuffix(filter, wire.Everything)
	first := true
	for end := b.end; end > b.after; {
		begin := max(b.after, end-min(end, pageScan))
		page := make([]Message, 0, end-begin)
		var fault error
		s.messages(ctx, wire.Everything, span{after: begin, end: end, fence: end, exact: true},
			func(m Message, err error) bool {
				if fault = err; err == nil {
					page = append(page, m)
				}
				return err == nil
			})
		if fault != nil {
			yield(Message{}, fault)
			return
		}
		slices.Reverse(page)
		for _, m := range page {
			matches := strings.HasPrefix(m.Subject, prefix)
			if first && b.exact && !matches {
				yield(Message{}, fmt.Errorf("%w: the message at %d is on %q", ErrIncomplete, m.Sequence, m.Subject))
				return
			}
			first = false
			if matches && !yield(m, nil) {
				return
			}
		}
		end = begin
	}
}

// pages reads messages in order and without gaps: long stretches through a consumer
// of its own, as long as there is no trouble with that, others by direct gets.
type pages struct {
	*Store

	filter string
	// one tells that the filter is one aggregate's subject, whose messages lie far
	// apart: they are got one by one.
	one bool
	// pulls is how many more times a puller may be opened.
	pulls  int
	puller *wire.Puller
	page   []Message
}

// read returns messages from a sequence on, which are valid until the next call.
func (p *pages) read(ctx context.Context, from uint64, leader bool) ([]Message, error) {
	if leader || p.one {
		next := wire.DirectNext
		if leader {
			next = wire.LeaderNext
		}
		m, err := retried(ctx, p.Store, func(ctx context.Context) (wire.Message, error) {
			return next(ctx, p.nc, p.name, p.filter, from)
		})
		if errors.Is(err, wire.ErrNotFound) {
			return nil, nil
		}
		return []Message{m}, err
	}
	if p.puller != nil && p.puller.Next() != from {
		p.close()
	}
	if p.puller != nil || p.pulls > 0 {
		page, err := p.pull(ctx, from)
		if err == nil || context.Cause(ctx) != nil {
			return page, err
		}
		if wire.Denied(err) {
			p.pulls = 0 // who may not make consumers reads page by page
		}
		p.close()
	}
	page, err := retried(ctx, p.Store, func(ctx context.Context) (wire.Page, error) {
		page, err := wire.Batch(ctx, p.nc, p.name, p.filter, from, pageScan, pageScanBytes)
		if errors.Is(err, wire.ErrGap) {
			err = nil // as good as none: the leader is asked in the end
		}
		return page, err
	})
	return page.Messages, err
}

// pull takes what has arrived, and waits for something. Whatever goes wrong, direct
// gets take over, and say what it is.
func (p *pages) pull(ctx context.Context, from uint64) (_ []Message, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.attempt)
	defer cancel()
	if p.puller == nil {
		p.pulls--
		if p.puller, err = wire.OpenPuller(ctx, p.nc, p.name, p.filter, from); err != nil {
			return nil, err
		}
	}
	p.page, err = p.puller.Take(ctx, p.page[:0], pageScan)
	if len(p.page) > 0 {
		err = nil // What comes after it, if anything, comes again.
	}
	return p.page, err
}

func (p *pages) close() {
	if p.puller != nil {
		p.puller.Close()
		p.puller = nil
	}
}
