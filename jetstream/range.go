package jetstream

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

// Range bounds and orders a read. The zero Range is everything, in order, up to
// the last commit that the leader has when the read begins. Of several bounds at
// the beginning the narrowest holds; at the end only one may be set.
//
// Times are those at which the stream's leader stored a commit, by its clock, not
// those of the decisions. What a time stands for is a sequence of the store, so all
// aggregates are seen as of the same moment.
type Range struct {
	// After is where to begin: at the first commit beyond a sequence. [Store.Sequence]
	// tells that of a position.
	After uint64
	// Since is where to begin: at the first commit stored at that time or later.
	Since time.Time
	// AfterVersion is where to begin in an aggregate's history: at the commit with
	// the event after that version.
	AfterVersion uint64

	// To is the sequence of the last commit wanted, which must be there.
	To uint64
	// AsOf ends the read with the last commit stored at that time or before.
	AsOf time.Time
	// UpToVersion ends an aggregate's history with the commit that holds the event
	// of that version, which must be there.
	UpToVersion uint64

	// Backwards yields the newest commit first.
	Backwards bool
	// From is who says where the store ends: the leader, which is the default, or
	// any replica, which may be behind but leaves the leader alone. What lies before
	// is read from all replicas, and completely, either way.
	From Source
	// Events keeps commits that hold at least one of these events, by the names they
	// are stored under; [Schema.StoredNames] knows those of renamed events. Defaults to
	// all commits, those without events, too.
	Events []string
}

// validate finds bounds that say nothing together.
func (r *Range) validate(history bool) error {
	var errs []error
	fault := func(field, value, reason string) {
		errs = append(errs, &InvalidError{Field: "Range." + field, Value: value, Reason: reason})
	}
	ends := 0
	for _, set := range []bool{r.To > 0, !r.AsOf.IsZero(), r.UpToVersion > 0} {
		if set {
			ends++
		}
	}
	if ends > 1 {
		fault("To", strconv.FormatUint(r.To, 10), "is one of several ends: set To, AsOf or UpToVersion alone")
	}
	if !history && r.AfterVersion > 0 {
		fault("AfterVersion", strconv.FormatUint(r.AfterVersion, 10), "is for the history of one aggregate")
	}
	if !history && r.UpToVersion > 0 {
		fault("UpToVersion", strconv.FormatUint(r.UpToVersion, 10), "is for the history of one aggregate")
	}
	if r.From > Replica {
		fault("From", strconv.Itoa(int(r.From)), "is no source")
	}
	for _, name := range r.Events {
		if err := validateWireName(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// wants tells whether the read's caller wants the commit whose events these are.
func (r *Range) wants(names []string) bool {
	return len(r.Events) == 0 ||
		slices.ContainsFunc(names, func(name string) bool { return slices.Contains(r.Events, name) })
}

// begin is the sequence after which the read begins, as far as it does not depend
// on an aggregate's versions.
func (s *Store) begin(ctx context.Context, r *Range) (uint64, error) {
	if r.Since.IsZero() {
		return r.After, nil
	}
	seq, err := s.firstSince(ctx, r.Since)
	if errors.Is(err, wire.ErrNotFound) {
		return math.MaxUint64, nil
	}
	if err != nil {
		return 0, err
	}
	return max(r.After, seq-1), nil
}

// asOf is the sequence of the last message stored at a time or before,
// math.MaxUint64 when that is whatever is the last.
func (s *Store) asOf(ctx context.Context, at time.Time) (uint64, error) {
	seq, err := s.firstSince(ctx, at.Add(1))
	if errors.Is(err, wire.ErrNotFound) {
		return math.MaxUint64, nil
	}
	if err != nil {
		return 0, err
	}
	return seq - 1, nil
}

// firstSince is the sequence of the first message stored at a time or later. What
// a replica finds is final; that there is none only the leader can tell.
func (s *Store) firstSince(ctx context.Context, at time.Time) (uint64, error) {
	at = nanoseconds(at)
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.DirectSince(ctx, s.nc, s.name, at)
	})
	if errors.Is(err, wire.ErrNotFound) {
		m, err = retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
			return wire.LeaderSince(ctx, s.nc, s.name, at)
		})
	}
	return m.Sequence, err
}

// nanoseconds brings a time within what servers count in: nanoseconds since 1970, up
// to the year 2262. They take a later one for one long ago.
func nanoseconds(at time.Time) time.Time {
	first, last := time.Unix(0, 0), time.Unix(0, math.MaxInt64)
	switch {
	case at.Before(first):
		return first
	case at.After(last):
		return last
	default:
		return at
	}
}

// firstFrom is the first message at a sequence or after it whose subject matches.
// What a replica finds is final; that there is none only the leader can tell.
func (s *Store) firstFrom(ctx context.Context, subject string, from uint64) (wire.Message, error) {
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.DirectNext(ctx, s.nc, s.name, subject, from)
	})
	if errors.Is(err, wire.ErrNotFound) {
		m, err = retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
			return wire.LeaderNext(ctx, s.nc, s.name, subject, from)
		})
	}
	return m, err
}

// message is the message at a sequence; that there is none only the leader can
// tell.
func (s *Store) message(ctx context.Context, sequence uint64) (wire.Message, error) {
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
		return wire.DirectAt(ctx, s.nc, s.name, sequence)
	})
	if errors.Is(err, wire.ErrNotFound) {
		m, err = retried(ctx, s, func(ctx context.Context) (wire.Message, error) {
			return wire.LeaderAt(ctx, s.nc, s.name, sequence)
		})
	}
	return m, err
}

// last is the last message whose subject matches, as the source has it.
func (s *Store) last(ctx context.Context, subject string, from Source) (wire.Message, error) {
	get := wire.LeaderLast
	if from == Replica {
		get = wire.DirectLast
	}
	m, err := retried(ctx, s, func(ctx context.Context) (wire.Message, error) { return get(ctx, s.nc, s.name, subject) })
	if subject == wire.Everything && errors.Is(err, wire.ErrNotFound) {
		// A server that is asked for the last message of all looks in one place only:
		// somebody may have deleted what was there.
		return s.last(ctx, s.SubjectFilter(""), from)
	}
	return m, err
}
