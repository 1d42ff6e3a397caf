package projection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"

	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// Rehearsal folds events into a view in memory, as an updater does. It is what
// projectiontest is built on: use that.
type Rehearsal struct {
	core    *core
	decoder *jetstream.Decoder
	store   *memstore.Store
}

// Rehearsed is what a rehearsal leaves under a key.
type Rehearsed struct {
	// Value is JSON. Index are the index values that it is found by, each with the
	// index's name and a dot before it.
	Value []byte
	Index []string
}

// RepeatError is a fold that made something else when it ran again.
type RepeatError struct {
	// Key is the view's, First and Again what was made of it, nil for nothing.
	Key          string
	First, Again []byte
	// Events are those of the page, by name and aggregate.
	Events []string
}

// Error names the events and the key.
func (e *RepeatError) Error() string {
	return fmt.Sprintf("key %q: the fold of %q made something else when it ran again", e.Key, e.Events)
}

// NewRehearsal prepares the rehearsal of a view. Returns the definition's
// mistakes.
func NewRehearsal(store *memstore.Store, def AnyDefinition) (*Rehearsal, error) {
	if store == nil || def == nil {
		return nil, errors.New("projection: a rehearsal needs a store and a definition")
	}
	c := def.definition()
	if c.err != nil {
		return nil, c.err
	}
	decoder, err := jetstream.NewDecoder(jetstream.StopOnUnknown, c.schemas...)
	if err != nil {
		return nil, fmt.Errorf("definition of view %q: %w", c.view, err)
	}
	return &Rehearsal{core: c, decoder: decoder, store: store}, nil
}

// Fold makes the view of all of the store's commits in pages of so many commits.
// Each page is folded twice: [*RepeatError] when that differs. Other errors are
// what would stop the updater.
func (r *Rehearsal) Fold(ctx context.Context, page int) (map[string]Rehearsed, error) {
	cfg := UpdaterConfig{PageEvents: math.MaxInt, PageBytes: math.MaxInt, CacheBytes: math.MaxInt}.withDefaults()
	f := &folder{
		core: r.core, cfg: &cfg, log: slog.New(slog.DiscardHandler), store: r.store, decoder: r.decoder,
		cache: newCache(cfg.CacheBytes, true), page: newPage(0), told: new(control), step: func(string) {},
	}
	commits := r.store.Commits(0)
	items := make([]item, len(commits))
	for i, c := range commits {
		items[i] = item{commit: c, start: c.Sequence, end: c.Sequence}
	}
	for some := range slices.Chunk(items, max(page, 1)) {
		f.items, f.until = some, some[len(some)-1].end
		for len(f.items) > 0 {
			if err := r.twice(ctx, f); err != nil {
				return nil, err
			}
		}
	}
	out := map[string]Rehearsed{}
	for key, el := range f.cache.byKey {
		if e := el.Value.(*cached); e.exists() { //nolint:forcetypeassert // only these are stored
			out[key] = Rehearsed{Value: e.data, Index: e.index}
		}
	}
	return out, nil
}

// twice folds the next page, as much as fits into it, and once more.
func (r *Rehearsal) twice(ctx context.Context, f *folder) error {
	before := f.items
	if err := f.rehearse(ctx); err != nil {
		return err
	}
	first, after := f.page, f.items
	f.items, f.page, f.force = before, newPage(first.pos), false
	if err := f.rehearse(ctx); err != nil {
		return err
	}
	if err := r.same(first, f.page, before[:len(before)-len(after)]); err != nil {
		return err
	}
	if len(f.items) == len(before) {
		return fmt.Errorf("the rehearsal of view %q does not go on", r.core.view) // cannot be
	}
	f.landed(ctx, f.page)
	f.page, f.force = newPage(f.page.pos), false
	return nil
}

// rehearse folds a page and seals it.
func (f *folder) rehearse(ctx context.Context) error {
	if err := f.work(ctx); err != nil {
		return err
	}
	return f.seal()
}

// same compares two folds of a page.
func (r *Rehearsal) same(first, again *page, items []item) error {
	one, two := r.outcome(first), r.outcome(again)
	keys := slices.Sorted(maps.Keys(one))
	for key := range two {
		if _, ok := one[key]; !ok {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		a, b := one[key], two[key]
		if bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil) && slices.Equal(a.Index, b.Index) {
			continue
		}
		e := &RepeatError{Key: key, First: a.Value, Again: b.Value}
		for i := range items {
			for _, name := range items[i].commit.EventNames {
				e.Events = append(e.Events, name+" of "+items[i].commit.Type+" "+items[i].commit.ID)
			}
		}
		return e
	}
	return nil
}

// outcome is what a page leaves under the keys that it changes.
func (r *Rehearsal) outcome(p *page) map[string]Rehearsed {
	out := map[string]Rehearsed{}
	for _, s := range p.changed {
		out[s.key] = Rehearsed{Value: s.out, Index: s.index}
	}
	return out
}

// Find are the keys of a view that an index value leads to, sorted.
func (r *Rehearsal) Find(view map[string]Rehearsed, index, value string) ([]string, error) {
	if !slices.Contains(r.core.indexNames(), index) {
		return nil, fmt.Errorf("%w: %q, it has %q", ErrIndex, index, r.core.indexNames())
	}
	stored, err := encodeKey(value)
	if err != nil {
		return nil, asIndexValue(err)
	}
	keys := []string{}
	for key, r := range view {
		if slices.Contains(r.Index, index+"."+stored) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
