package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/rossby-go/rossby/internal/wire"
)

// end is the last commit wanted, nil for none.
func (h *history) end(ctx context.Context, r Range) (*Commit, error) {
	switch {
	case r.To > 0:
		return h.at(ctx, h.subject, r.To)
	case !r.AsOf.IsZero():
		seq, err := h.asOf(ctx, r.AsOf)
		if err != nil {
			return nil, err
		}
		return h.lastUpTo(ctx, seq)
	}
	m, err := h.last(ctx, h.subject, r.From)
	if errors.Is(err, wire.ErrNotFound) {
		if r.UpToVersion > 0 {
			err = fmt.Errorf("%w: there is no version %d, nor any other", ErrIncomplete, r.UpToVersion)
		} else {
			err = nil
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	c, err := Decode(&m)
	if err != nil || r.UpToVersion == 0 {
		return c, err
	}
	if c.Version < r.UpToVersion {
		return nil, fmt.Errorf("%w: version %d is wanted, the last one is %d", ErrIncomplete, r.UpToVersion, c.Version)
	}
	return h.seek(ctx, c, 0, r.UpToVersion)
}

// lastUpTo is the last commit with a sequence of at most upTo, nil for none. The
// first commit after it, wherever it is found, names it; when there is none, it is
// the last of all.
func (h *history) lastUpTo(ctx context.Context, upTo uint64) (*Commit, error) {
	for {
		if upTo < math.MaxUint64 {
			m, err := h.firstFrom(ctx, h.subject, upTo+1)
			if err == nil {
				c, err := Decode(&m)
				if err != nil || c.Ordinal == 1 {
					return nil, err
				}
				return h.previous(ctx, c)
			}
			if !errors.Is(err, wire.ErrNotFound) {
				return nil, err
			}
		}
		m, err := h.last(ctx, h.subject, Leader)
		if errors.Is(err, wire.ErrNotFound) {
			return nil, nil //nolint:nilnil // none, and that is no error
		}
		if err != nil {
			return nil, err
		}
		if m.Sequence <= upTo {
			return Decode(&m)
		}
		// It was stored meanwhile.
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
}

// afterVersion is the sequence after which the commits lie whose events come after
// a version.
func (h *history) afterVersion(ctx context.Context, end *Commit, after, version uint64) (uint64, error) {
	if end.Version <= version {
		return end.Sequence, nil
	}
	c, err := h.seek(ctx, end, after, version+1)
	if err != nil {
		return 0, err
	}
	return max(after, c.PreviousSequence), nil
}

// seek finds the first commit after a sequence that is at least at a version, which
// hi is. The versions between are guessed from those at the ends: few gets, for
// aggregates whose events come evenly.
func (h *history) seek(ctx context.Context, hi *Commit, after, version uint64) (*Commit, error) {
	lo, loVersion := after, uint64(0)
	for i := 0; ; i++ {
		if err := h.linked(hi); err != nil || hi.PreviousSequence <= lo {
			return hi, err
		}
		span := hi.PreviousSequence - lo
		step := (span + 1) / 2
		if i%2 == 0 && hi.Version > loVersion && version > loVersion {
			part := float64(version-loVersion) / float64(hi.Version-loVersion)
			step = min(max(uint64(part*float64(span)), 1), span)
		}
		m, err := h.firstFrom(ctx, h.subject, lo+step)
		if err != nil {
			return nil, err
		}
		c, err := Decode(&m)
		if err != nil {
			return nil, err
		}
		if c.Sequence >= hi.Sequence {
			return nil, chainError(hi.Sequence, h.subject, fmt.Sprintf("it says that it follows one at %d, where none is",
				hi.PreviousSequence))
		}
		if c.Version >= version {
			hi = c
		} else {
			lo, loVersion = c.Sequence, c.Version
		}
	}
}
