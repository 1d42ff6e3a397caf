package aggregate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// HistoryOption bounds or orders one reading of a history.
type HistoryOption func(*jetstream.Range)

// AfterVersion begins with the event after the version.
func AfterVersion(n uint64) HistoryOption { return func(r *jetstream.Range) { r.AfterVersion = n } }

// UpToVersion ends with the event of the version, which must be there. It takes the
// place of [AsOf].
func UpToVersion(n uint64) HistoryOption {
	return func(r *jetstream.Range) { r.UpToVersion, r.AsOf = n, time.Time{} }
}

// Since begins with the first event stored at that time or later.
func Since(t time.Time) HistoryOption { return func(r *jetstream.Range) { r.Since = t } }

// AsOf ends with the last event stored at that time or before, by the clock of the
// server that stored it. It takes the place of [UpToVersion].
func AsOf(t time.Time) HistoryOption {
	return func(r *jetstream.Range) { r.AsOf, r.UpToVersion = t, 0 }
}

// Backwards yields the newest event first.
func Backwards() HistoryOption { return func(r *jetstream.Range) { r.Backwards = true } }

// History yields the aggregate's events, from the first to the last that the
// leader has, complete or with an error: [jetstream.ErrIncomplete], for a version
// that is not there, too. Memory is bounded, and each commit costs about one get.
// An aggregate without events yields nothing.
func (r *Repository[S]) History(
	ctx context.Context, id string, opts ...HistoryOption,
) iter.Seq2[jetstream.Recorded, error] {
	var rg jetstream.Range
	for _, o := range opts {
		o(&rg)
	}
	return func(yield func(jetstream.Recorded, error) bool) {
		for c, err := range r.core.store.History(ctx, r.typ.Name(), id, rg) {
			if err != nil {
				yield(jetstream.Recorded{}, err)
				return
			}
			events, err := r.core.decoder.Events(r.core.store, c)
			if err != nil {
				yield(jetstream.Recorded{}, err)
				return
			}
			if rg.Backwards {
				slices.Reverse(events)
			}
			for _, e := range events {
				// A bound may lie within a commit.
				if e.Version <= rg.AfterVersion || rg.UpToVersion > 0 && e.Version > rg.UpToVersion {
					continue
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// LoadAt returns the aggregate as it was at a version: after that many events. It
// finds the commit in a few gets, and takes the state from there if it travels in
// the commits; else it replays from the newest state before. Returns a
// [*VersionError] for a version that the aggregate has not reached, and
// [ErrNotFound] for an aggregate without events.
func (r *Repository[S]) LoadAt(ctx context.Context, id string, version uint64) (Snapshot[S], error) {
	if version == 0 {
		return Snapshot[S]{}, &jetstream.InvalidError{Field: "version", Value: "0", Reason: "is that of no aggregate"}
	}
	c, err := r.core.first(ctx, id, jetstream.Range{AfterVersion: version - 1, UpToVersion: version})
	if errors.Is(err, jetstream.ErrIncomplete) {
		if last, lastErr := r.core.store.Last(ctx, r.typ.Name(), id, jetstream.Leader); lastErr != nil {
			err = lastErr
		} else if last.Version < version {
			err = &VersionError{Type: r.typ.Name(), ID: id, Expected: version, Actual: last.Version}
		}
	}
	if err != nil {
		return Snapshot[S]{}, err
	}
	return r.snapshotAt(ctx, id, c, version)
}

// LoadAsOf returns the aggregate as it was at a time: after the last event stored
// then or before, by the clock of the server that stored it. Costs and errors are
// those of [Repository.LoadAt]; [ErrNotFound] is that of an aggregate that had no
// events then.
func (r *Repository[S]) LoadAsOf(ctx context.Context, id string, t time.Time) (Snapshot[S], error) {
	if t.IsZero() {
		return Snapshot[S]{}, &jetstream.InvalidError{Field: "time", Value: t.String(), Reason: "is not set"}
	}
	c, err := r.core.first(ctx, id, jetstream.Range{AsOf: t, Backwards: true})
	if err != nil {
		return Snapshot[S]{}, err
	}
	return r.snapshotAt(ctx, id, c, c.Version)
}

// first is the first commit of a range.
func (r *core) first(ctx context.Context, id string, rg jetstream.Range) (*jetstream.Commit, error) {
	for c, err := range r.store.History(ctx, r.typeName, id, rg) {
		return c, err
	}
	return nil, fmt.Errorf("%s %q: %w", r.typeName, id, ErrNotFound)
}

// snapshotAt is the aggregate at a version that lies within the commit or at its
// end.
func (r *Repository[S]) snapshotAt(
	ctx context.Context, id string, c *jetstream.Commit, version uint64,
) (Snapshot[S], error) {
	if version == 0 {
		return Snapshot[S]{}, fmt.Errorf("%s %q: %w", r.typ.Name(), id, ErrNotFound)
	}
	data, err := r.core.stateWithin(ctx, id, c, version)
	if err != nil {
		return Snapshot[S]{}, err
	}
	out := Snapshot[S]{ID: id, Version: version, Position: r.core.store.Position(c.Sequence), StoredAt: c.Time}
	return out, r.core.store.Codec().Decode(data, &out.State)
}

// stateWithin is the state after the commit's event of that version.
func (r *core) stateWithin(ctx context.Context, id string, c *jetstream.Commit, version uint64) ([]byte, error) {
	var known *view
	if e := r.cached(id, r.reconnects()); e != nil {
		known = e.get()
	}
	if version == c.Version {
		b, err := r.stateAt(ctx, id, c, known, jetstream.Leader)
		return b.data, err
	}
	before := base{data: r.zero}
	if c.PreviousSequence > 0 {
		previous, err := r.store.At(ctx, r.typeName, id, c.PreviousSequence)
		if err != nil {
			return nil, err
		}
		if before, err = r.stateAt(ctx, id, previous, known, jetstream.Leader); err != nil {
			return nil, err
		}
	}
	state, err := r.decodeState(id, before.data)
	if err != nil {
		return nil, err
	}
	events, err := r.decoder.Events(r.store, c)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if e.Version > version {
			break
		}
		if err := r.apply(state, e.Event, e.Meta); err != nil {
			return nil, err
		}
	}
	return r.encodeState(id, state)
}
