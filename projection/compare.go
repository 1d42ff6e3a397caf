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
// of one snapshot that holds both; where one generation is behind the other it
// waits. counts, unless nil, is kept up to date.
//
// Returns [ErrGeneration] when one of them does not exist, and [ErrStale] when one
// stays behind.
func (a *Admin) Compare(
	ctx context.Context, first, second int, opts CompareOptions, counts *Compared,
) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		opts.Wait, opts.OneIn = cmp.Or(opts.Wait, ReadWaitDefault), max(opts.OneIn, 1)
		if counts == nil {
			counts = new(Compared)
		}
		p, _, err := a.pointer(ctx)
		indexes := false
		if err == nil {
			one, two := p.find(first), p.find(second)
			if one == nil || two == nil {
				err = fmt.Errorf("%w: there are no numbers %d and %d", ErrGeneration, first, second)
			} else {
				indexes = slices.Equal(one.Indexes, two.Indexes)
			}
		}
		if err != nil {
			yield(Difference{}, err)
			return
		}
		for keys, err := range a.keys(ctx, first, second, opts) {
			var found []Difference
			if err == nil {
				found, err = a.compare(ctx, first, second, keys, indexes, opts.Wait)
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

// keysOf yields the keys of a generation, deleted ones too, in order of last
// change, some at a time.
func (b *bucket) keysOf(ctx context.Context, gen int) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		prefix := b.keyPrefix(gen)
		for after, wait := uint64(0), newBackoff(10*time.Millisecond, time.Second); ; {
			rctx, cancel := context.WithTimeout(ctx, attemptTimeout)
			page, err := wire.Batch(rctx, b.nc, b.stream, prefix+">", after+1, compareKeys, scanBytes)
			cancel()
			if err != nil {
				if stop := errors.Join(wait.next(ctx), closedError(b.nc)); stop != nil {
					yield(nil, errors.Join(ErrUnavailable, err, stop))
					return
				}
				continue
			}
			keys := make([]string, 0, len(page.Messages))
			for i := range page.Messages {
				after = max(after, page.Messages[i].Sequence)
				if key, ok := keyOf(page.Messages[i].Subject, prefix); ok {
					keys = append(keys, key)
				}
			}
			if len(keys) > 0 && !yield(keys, nil) || page.Pending == 0 {
				return
			}
		}
	}
}

// compare looks at some keys until both generations hold the same events of each.
func (a *Admin) compare(
	ctx context.Context, first, second int, keys []string, indexes bool, patience time.Duration,
) ([]Difference, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out []Difference
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		found, behind, err := a.compareOnce(ctx, first, second, keys, indexes)
		if err == nil {
			out = append(out, found...)
			if keys = behind; len(keys) == 0 {
				return out, nil
			}
		}
		if stop := errors.Join(wait.next(ctx), closedError(a.b.nc)); stop != nil {
			if err == nil {
				err = fmt.Errorf("%w: generations %d and %d do not meet at key %q", ErrStale, first, second, keys[0])
			}
			return nil, errors.Join(err, stop)
		}
	}
}

func (a *Admin) compareOnce(
	ctx context.Context, first, second int, keys []string, indexes bool,
) (found []Difference, behind []string, err error) {
	subjects := make([]string, 0, 2*len(keys)+1)
	for _, gen := range []int{first, second} {
		for _, key := range keys {
			stored, err := encodeKey(key)
			if err != nil {
				return nil, nil, err
			}
			subjects = append(subjects, a.b.keyPrefix(gen)+stored)
		}
	}
	subjects = append(subjects, a.b.checkpointSubject(second))
	snap, err := a.b.read(ctx, first, subjects)
	if err != nil {
		return nil, nil, err
	}
	other := snap.messages[a.b.checkpointSubject(second)]
	if snap.checkpoint == nil || other == nil {
		return nil, nil, fmt.Errorf("%w: number %d or %d has no checkpoint", ErrGeneration, first, second)
	}
	cp, err := decodeCheckpoint(other)
	if err != nil {
		return nil, nil, err
	}
	for i, key := range keys {
		va, sa := valueOf(snap.messages[subjects[i]])
		vb, sb := valueOf(snap.messages[subjects[len(keys)+i]])
		if bytes.Equal(va, vb) && (va == nil) == (vb == nil) && (!indexes ||
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
