package projection

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

// Pages of a scan over a bucket.
const (
	scanKeys  = 1000
	scanBytes = 4 << 20
)

// scan reads the keys that begin with prefix, for the owner: complete, and not
// older than what it has written.
func (f *folder) scan(ctx context.Context, prefix string) (map[string][]byte, error) {
	for wait := newBackoff(time.Millisecond, 500*time.Millisecond); ; {
		out, err := f.scanOnce(ctx, prefix)
		if err == nil || errors.Is(err, errLost) {
			return out, err
		}
		if err := errors.Join(wait.next(ctx), closedError(f.b.nc)); err != nil {
			return nil, err
		}
	}
}

var errOld = errors.New("the replica is behind")

func (f *folder) scanOnce(ctx context.Context, prefix string) (map[string][]byte, error) {
	out := map[string][]byte{}
	floor := f.rev.Load()
	add := func(m *wire.Message) {
		key, ok := keyOf(m.Subject, f.b.keyPrefix(f.gen))
		if !ok || !strings.HasPrefix(key, prefix) {
			return
		}
		delete(out, key)
		if !deleted(m) {
			out[key] = m.Data
		}
	}
	snap, err := f.b.read(ctx, f.gen, f.b.filters(f.gen, prefix))
	switch {
	case err == nil && snap.checkpoint != nil && snap.checkpoint.Epoch > f.epoch:
		return nil, errLost
	case err == nil && snap.revision < floor:
		return nil, errOld
	case err == nil:
		for _, m := range snap.messages {
			add(m)
		}
		return out, nil
	case !errors.Is(err, wire.ErrTooMany):
		return nil, err
	}
	for after := uint64(0); ; {
		page, err := f.b.page(ctx, after)
		if err != nil {
			return nil, err
		}
		for i := range page.Messages {
			add(&page.Messages[i])
			after = page.Messages[i].Sequence
		}
		if page.Pending == 0 {
			// The last message of a page that reaches the end is the last one that the
			// replica has.
			if after < f.rev.Load() {
				return nil, errOld
			}
			return out, nil
		}
	}
}

// filters are subjects that cover a generation's keys with a prefix.
func (b *bucket) filters(gen int, prefix string) []string {
	filters := prefixFilters(prefix)
	for i := range filters {
		filters[i] = b.keyPrefix(gen) + filters[i]
	}
	return filters
}

// page reads a bucket's messages after a revision, in order of last change, from
// one replica.
func (b *bucket) page(ctx context.Context, after uint64) (wire.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	page, err := wire.Batch(ctx, b.nc, b.stream, wire.Everything, after+1, scanKeys, scanBytes)
	slices.SortFunc(page.Messages, func(x, y wire.Message) int {
		if x.Sequence < y.Sequence {
			return -1
		}
		return 1
	})
	return page, err
}

// every yields the last message of each subject that matches, deletion markers too, some
// at a time: all that the leader had when it began, and maybe some that came since. It
// asks again until ctx ends.
//
// The pages come from any replica, each a prefix of the leader. A message that one of
// them no longer had where it was read, since its subject was written again, need not be
// there yet on the next: the last page must reach the leader's end as it was after all
// pages before it.
func (b *bucket) every(ctx context.Context, filter string, most int) iter.Seq2[[]wire.Message, error] {
	return func(yield func([]wire.Message, error) bool) {
		for after, wait := uint64(0), newBackoff(10*time.Millisecond, time.Second); ; {
			page, end, err := b.pageOf(ctx, filter, after, most)
			for i := range page.Messages {
				after = max(after, page.Messages[i].Sequence)
			}
			if len(page.Messages) > 0 && !yield(page.Messages, nil) {
				return
			}
			switch {
			case wire.Denied(err):
				yield(nil, fmt.Errorf("view %q: %w", b.view, err))
				return
			case err == nil && page.Pending > 0:
				wait = newBackoff(10*time.Millisecond, time.Second)
				continue
			case err == nil && after >= end:
				return
			}
			if stop := errors.Join(wait.next(ctx), closedError(b.nc)); stop != nil {
				yield(nil, fmt.Errorf("view %q: %w", b.view, errors.Join(ErrUnavailable, err, stop)))
				return
			}
		}
	}
}

// pageOf reads some of what matches, after a revision; end is the last one that the leader
// had before.
func (b *bucket) pageOf(
	ctx context.Context, filter string, after uint64, most int,
) (page wire.Page, end uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	last, err := wire.LeaderLast(ctx, b.nc, b.stream, filter)
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return page, 0, err
	}
	page, err = wire.Batch(ctx, b.nc, b.stream, filter, after+1, most, scanBytes)
	return page, last.Sequence, err
}
