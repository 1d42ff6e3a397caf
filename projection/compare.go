package projection

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// compareKeys is how many keys are compared by one read.
const compareKeys = 500

// CompareOptions are for [Admin.Compare].
type CompareOptions struct {
	// Keys are the keys to compare. Defaults to all.
	Keys []string
	// OneIn compares about one key in so many, the same ones each time. Defaults to
	// 1, every key.
	OneIn int
	// Wait bounds how long a comparison waits for a generation that is behind.
	// Defaults to [ReadWaitDefault].
	Wait time.Duration
}

// Difference is a key whose values in two generations differ, although both hold
// every event that either has seen of it.
type Difference struct {
	Key string
	// A and B are the values, nil where there is none. They may be the same: then it
	// is what an index finds them by that differs.
	A, B []byte
	// SequenceA and SequenceB are the stream sequences of the events that changed
	// them last.
	SequenceA, SequenceB uint64
}

// Compared counts what a comparison has looked at.
type Compared struct {
	Keys, Differences int
}

// Compare looks for keys that differ between two generations, while both go on.
// It yields each difference, and ends with the first error. Every comparison is
// of one snapshot that holds both, not older than when Compare began; where one
// generation is behind the other it waits. counts, unless nil, is kept up to date.
//
// Returns [ErrGeneration] when one of them does not exist, [ErrStale] when one
// stays behind, and [ErrUnavailable].
func (a *Admin) Compare(
	ctx context.Context, first, second int, opts CompareOptions, counts *Compared,
) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		opts.Wait, opts.OneIn = cmp.Or(opts.Wait, ReadWaitDefault), max(opts.OneIn, 1)
		if counts == nil {
			counts = new(Compared)
		}
		c, err := a.comparison(ctx, first, second)
		if err != nil {
			yield(Difference{}, err)
			return
		}
		for keys, err := range a.keys(ctx, first, second, opts) {
			var found []Difference
			if err == nil {
				found, err = c.compare(ctx, keys, opts.Wait)
			}
			if err != nil {
				yield(Difference{}, err)
				return
			}
			counts.Keys += len(keys)
			for _, d := range found {
				counts.Differences++
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// comparison is of two generations.
type comparison struct {
	b             *bucket
	first, second int
	// indexes tells whether both have the same ones.
	indexes bool
	// since is how far the bucket was: what replicas that are behind say is of no use.
	since uint64
}

func (a *Admin) comparison(ctx context.Context, first, second int) (*comparison, error) {
	p, _, err := a.pointer(ctx)
	if err != nil {
		return nil, err
	}
	one, two := p.find(first), p.find(second)
	if one == nil || two == nil {
		return nil, fmt.Errorf("%w: there are no numbers %d and %d", ErrGeneration, first, second)
	}
	c := &comparison{b: a.b, first: first, second: second, indexes: slices.Equal(one.Indexes, two.Indexes)}
	for _, gen := range []int{first, second} {
		end, err := again(ctx, a.b, func() (uint64, error) { return a.b.end(ctx, gen) })
		if err != nil {
			return nil, fmt.Errorf("view %q: %w: %w", a.b.view, ErrUnavailable, err)
		}
		c.since = max(c.since, end)
	}
	return c, nil
}

// keys yields the keys to compare, some at a time: those of the first generation,
// then those that only the second has.
func (a *Admin) keys(ctx context.Context, first, second int, opts CompareOptions) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if opts.Keys != nil {
			for some := range slices.Chunk(opts.Keys, compareKeys) {
				if !yield(some, nil) {
					return
				}
			}
			return
		}
		seen := map[uint64]struct{}{} // a key costs its hash
		for _, gen := range []int{first, second} {
			for some, err := range a.b.keysOf(ctx, gen) {
				fresh := some[:0]
				for _, key := range some {
					h := fnv.New64a()
					_, _ = h.Write([]byte(key))
					sum := h.Sum64()
					if _, again := seen[sum]; !again && sum%uint64(opts.OneIn) == 0 { //nolint:gosec // positive
						seen[sum] = struct{}{}
						fresh = append(fresh, key)
					}
				}
				if err == nil && len(fresh) == 0 {
					continue
				}
				if !yield(fresh, err) || err != nil {
					return
				}
			}
		}
	}
}

// keysOf yields the keys of a generation, deleted ones too, some at a time.
func (b *bucket) keysOf(ctx context.Context, gen int) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		prefix := b.keyPrefix(gen)
		for some, err := range b.every(ctx, prefix+">", compareKeys) {
			keys := make([]string, 0, len(some))
			for i := range some {
				if key, ok := keyOf(some[i].Subject, prefix); ok {
					keys = append(keys, key)
				}
			}
			if !yield(keys, err) {
				return
			}
		}
	}
}

// compare looks at some keys until both generations hold the same events of each.
func (c *comparison) compare(ctx context.Context, keys []string, patience time.Duration) ([]Difference, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out []Difference
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		found, behind, err := c.once(ctx, keys)
		_, invalid := errors.AsType[*KeyError](err)
		switch {
		case err == nil:
			out = append(out, found...)
			if keys = behind; len(keys) == 0 {
				return out, nil
			}
		case invalid:
			return nil, err
		case errors.Is(err, wire.ErrTooMany) && len(keys) > 1: // Their values are too large for one answer.
			for some := range slices.Chunk(keys, (len(keys)+1)/2) {
				found, err := c.compare(ctx, some, patience)
				if err != nil {
					return nil, err
				}
				out = append(out, found...)
			}
			return out, nil
		}
		if stop := errors.Join(wait.next(ctx), closedError(c.b.nc)); stop != nil {
			if err == nil {
				err = fmt.Errorf("%w: generations %d and %d do not meet at key %q", ErrStale, c.first, c.second, keys[0])
			}
			return nil, errors.Join(err, stop)
		}
	}
}

// once returns the keys that differ, and those of which one generation is behind.
func (c *comparison) once(ctx context.Context, keys []string) (found []Difference, behind []string, err error) {
	subjects := make([]string, 0, 2*len(keys)+1)
	for _, gen := range []int{c.first, c.second} {
		for _, key := range keys {
			stored, err := encodeKey(key)
			if err != nil {
				return nil, nil, err
			}
			subjects = append(subjects, c.b.keyPrefix(gen)+stored)
		}
	}
	subjects = append(subjects, c.b.checkpointSubject(c.second))
	snap, err := c.b.read(ctx, c.first, subjects)
	if err != nil {
		return nil, nil, err
	}
	if snap.upTo < c.since {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, errOld)
	}
	other := snap.messages[c.b.checkpointSubject(c.second)]
	if snap.checkpoint == nil || other == nil {
		return nil, nil, fmt.Errorf("%w: number %d or %d has no checkpoint", ErrGeneration, c.first, c.second)
	}
	cp, err := decodeCheckpoint(other)
	if err != nil {
		return nil, nil, err
	}
	for i, key := range keys {
		va, sa := valueOf(snap.messages[subjects[i]])
		vb, sb := valueOf(snap.messages[subjects[len(keys)+i]])
		if bytes.Equal(va, vb) && (va == nil) == (vb == nil) && (!c.indexes ||
			slices.Equal(places(snap.messages[subjects[i]]), places(snap.messages[subjects[len(keys)+i]]))) {
			continue
		}
		if max(sa, sb) > min(snap.checkpoint.Position, cp.Position) {
			behind = append(behind, key)
			continue
		}
		found = append(found, Difference{Key: key, A: va, B: vb, SequenceA: sa, SequenceB: sb})
	}
	return found, behind, nil
}

// places are the index values that a key's message says it is found by.
func places(m *jetstream.Message) []string {
	if m == nil || deleted(m) {
		return nil
	}
	return m.Header[headerIndex]
}

// valueOf is what a key's message holds, nil when the key is not there.
func valueOf(m *jetstream.Message) ([]byte, uint64) {
	if m == nil {
		return nil, 0
	}
	if deleted(m) {
		return nil, reflects(m)
	}
	if m.Data == nil {
		return []byte{}, reflects(m)
	}
	return m.Data, reflects(m)
}
