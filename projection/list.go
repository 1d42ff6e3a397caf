package projection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// ListOptions bounds a list. The zero value lists everything.
type ListOptions struct {
	// Prefix is what the keys begin with. A prefix that ends with a dot is
	// narrowed down by the server.
	Prefix string
	// After is the [Entry.Token] to go on after.
	After string
	// Limit bounds the number of entries. Defaults to 0, no bound.
	Limit int
	// AtLeast is a position that the view must have reached.
	AtLeast jetstream.Position
}

// List yields the view's entries in the order of their last change. It reads them
// page by page: an entry that changes meanwhile may come twice, none is missed. A
// list goes on after an entry with its [Entry.Token], also in another process.
//
// A view, or a prefix, of at most 1024 keys costs one request. Errors are those
// of [Reader.Get], and [ErrTokenExpired].
func (r *Reader[V]) List(ctx context.Context, o ListOptions) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		left, big := o.Limit, false
		for {
			entries, next, err := r.page(ctx, o, &big)
			if err != nil {
				yield(Entry[V]{}, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if next == "" {
				return
			}
			o.After, o.Limit = next, max(left, 0)
		}
	}
}

// page reads one page of a list; next is the token to go on with, "" at the end.
// It finds out and remembers whether the view is too big for one request.
func (r *Reader[V]) page(ctx context.Context, o ListOptions, big *bool) (entries []Entry[V], next string, err error) {
	gen, after, err := parseToken(o.After)
	if err != nil {
		return nil, "", err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.cfg.Wait)
		defer cancel()
	}
	if o.After != "" {
		// Whoever gave the token out may have seen a newer replica: only the leader
		// knows how far all of them have been.
		if err := r.raised(ctx, gen); err != nil {
			return nil, "", err
		}
		if after > r.floor.Load() {
			return nil, "", ErrTokenExpired // The bucket was made anew.
		}
	}
	if *big {
		return r.bigPage(ctx, gen, after, o)
	}
	filters := func(g int) []string { return r.b.filters(g, o.Prefix) }
	now, snap, err := r.snapshot(ctx, readOptions{atLeast: o.AtLeast}, filters)
	switch {
	case err == nil && o.After != "" && now != gen:
		return nil, "", ErrTokenExpired
	case err == nil:
		entries, err = r.pick(now, snap, after, o)
		if o.Limit > 0 && len(entries) > o.Limit {
			entries = entries[:o.Limit]
			next = entries[o.Limit-1].Token()
		}
		return entries, next, err
	case !errors.Is(err, wire.ErrTooMany):
		return nil, "", err
	}
	*big = true
	return r.bigPage(ctx, gen, after, o)
}

// pick turns a snapshot into entries, in the order of their last change.
func (r *Reader[V]) pick(gen int, snap *snapshot, after uint64, o ListOptions) ([]Entry[V], error) {
	var found []*wire.Message
	for _, m := range snap.messages {
		if m.Sequence > after && !deleted(m) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(x, y *wire.Message) int { return cmp.Compare(x.Sequence, y.Sequence) })
	var entries []Entry[V]
	for _, m := range found {
		key, ok := keyOf(m.Subject, r.b.keyPrefix(gen))
		if !ok || !strings.HasPrefix(key, o.Prefix) {
			continue
		}
		e, err := r.entry(key, gen, snap, m)
		if err != nil {
			return nil, err
		}
		r.served(snap, m)
		entries = append(entries, e)
		if o.Limit > 0 && len(entries) > o.Limit {
			break // One more than wanted: there is a next page.
		}
	}
	r.served(snap, nil)
	return entries, nil
}

// bigPage reads a page of a view that is too large for one consistent read. A
// stretch of the bucket tells which keys come next, on a replica that may be
// behind; then these keys are read together as they are now.
func (r *Reader[V]) bigPage(ctx context.Context, gen int, after uint64, o ListOptions) ([]Entry[V], string, error) {
	wait := newBackoff(time.Millisecond, 50*time.Millisecond)
	if !o.AtLeast.IsZero() {
		// Before a page is read: what it does not hold is told by no entry.
		if _, err := r.Position(ctx, AtLeast(o.AtLeast)); err != nil {
			return nil, "", err
		}
	}
	var far uint64 // the revision that the leader had, once it was asked
	for {
		page, err := r.b.page(ctx, after)
		if err == nil && page.Pending == 0 {
			// The end is believed only from a replica that is as far as every one that
			// an earlier page may have come from. What the leader had when this was
			// first asked is enough: a view that is written all the time is never as
			// far as the leader is afterwards.
			end := after
			if n := len(page.Messages); n > 0 {
				end = page.Messages[n-1].Sequence
			}
			if far == 0 {
				if err = r.raise(ctx, gen); err == nil {
					far = r.floor.Load()
				}
			}
			if err == nil && end < far {
				err = errOld
			}
		}
		if err != nil {
			if errors.Is(err, ErrTokenExpired) || wire.Denied(err) {
				return nil, "", err
			}
			if stop := errors.Join(wait.next(ctx), closedError(r.b.nc)); stop != nil {
				return nil, "", fmt.Errorf("list of view %q: %w: %w", r.b.view, ErrUnavailable, errors.Join(err, stop))
			}
			continue
		}
		entries, end, err := r.current(ctx, gen, page.Messages, after, o)
		if err != nil {
			return nil, "", err
		}
		if n := len(page.Messages); page.Pending == 0 && (n == 0 || page.Messages[n-1].Sequence == end) {
			return entries, "", nil
		}
		if len(entries) > 0 {
			g := r.number()
			return entries, (&Entry[V]{Generation: g, Revision: end}).Token(), nil
		}
		after = end
	}
}

// current reads the live keys of a stretch anew, in one snapshot. End is the
// revision up to which the stretch is covered by what is returned.
func (r *Reader[V]) current(
	ctx context.Context, gen int, stretch []wire.Message, after uint64, o ListOptions,
) ([]Entry[V], uint64, error) {
	g := gen
	if g == 0 {
		g = r.number()
	}
	var subjects []string
	var places []uint64
	end := after
	for i := range stretch {
		m := &stretch[i]
		if o.Limit > 0 && len(subjects) >= o.Limit {
			break
		}
		end = m.Sequence
		if key, ok := keyOf(m.Subject, r.b.keyPrefix(g)); ok && !deleted(m) && strings.HasPrefix(key, o.Prefix) {
			subjects, places = append(subjects, m.Subject), append(places, m.Sequence)
		}
	}
	if len(subjects) == 0 {
		return nil, end, nil
	}
	now, snap, err := r.snapshot(ctx, readOptions{atLeast: o.AtLeast}, func(int) []string { return subjects })
	if errors.Is(err, wire.ErrTooMany) && len(stretch) > 1 {
		return r.current(ctx, gen, stretch[:len(stretch)/2], after, o) // The rest comes with the next page.
	}
	if err != nil {
		return nil, 0, err
	}
	if now != g {
		return nil, 0, ErrTokenExpired
	}
	var entries []Entry[V]
	for i, subject := range subjects {
		m := snap.messages[subject]
		if m == nil || deleted(m) {
			continue
		}
		key, _ := keyOf(subject, r.b.keyPrefix(g))
		e, err := r.entry(key, g, snap, m)
		if err != nil {
			return nil, 0, err
		}
		r.served(snap, m)
		e.place = places[i] // When it changed since, it comes again further on.
		entries = append(entries, e)
	}
	return entries, end, nil
}

// raised is raise, asked again until ctx ends: an election says nothing of the view.
func (r *Reader[V]) raised(ctx context.Context, gen int) error {
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		err := r.raise(ctx, gen)
		if err == nil || errors.Is(err, ErrTokenExpired) || wire.Denied(err) {
			return err
		}
		if stop := errors.Join(wait.next(ctx), closedError(r.b.nc)); stop != nil {
			return errors.Join(err, stop)
		}
	}
}

// raise makes the reader refuse replicas that are behind the leader as it is now:
// behind all that it has stored, not only behind the checkpoint, which is written
// after the keys.
func (r *Reader[V]) raise(ctx context.Context, gen int) error {
	if gen == 0 {
		gen = r.number()
	}
	at := r.floor.now.Load()
	_, err := r.b.leader(ctx, r.b.checkpointSubject(gen))
	if errors.Is(err, wire.ErrNotFound) {
		return ErrTokenExpired
	}
	if err == nil {
		var end uint64
		if end, err = r.b.end(ctx, gen); err == nil {
			r.served(&snapshot{floor: at, revision: end}, nil)
			return nil
		}
	}
	return fmt.Errorf("view %q: %w: %w", r.b.view, ErrUnavailable, err)
}
