package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// source is what a view is made from: a store, and those of its messages that
// concern the view.
type source struct {
	core    *core
	store   *jetstream.Store
	decoder *jetstream.Decoder
	ignore  map[string]map[string]bool
	took    viewDurations
	// narrowEvery is [narrowEvery], or less in tests.
	narrowEvery uint64
}

func newSource(store *jetstream.Store, c *core, cfg *UpdaterConfig) (*source, error) {
	decoder, err := jetstream.NewDecoder(cfg.Unknown, c.schemas...)
	if err != nil {
		return nil, fmt.Errorf("definition of view %q: %w", c.view, err)
	}
	took, err := newViewDurations(cfg.MeterProvider, store.Name(), c.view)
	if err != nil {
		return nil, err
	}
	return &source{
		took: took, core: c, store: store, decoder: decoder, ignore: c.ignorable(), narrowEvery: narrowEvery,
	}, nil
}

// narrowing is that of a cursor: with the filter of the only type, if there is one.
func (s *source) narrowing() narrowing {
	n := narrowing{every: s.narrowEvery}
	if types := s.core.types(); len(types) == 1 {
		n.filter = s.store.SubjectFilter(types[0])
	}
	return n
}

// ignorable tells messages that cannot concern the view from their subject and
// headers alone.
func (s *source) ignorable(m *wire.Message) bool {
	names, followed := s.ignore[typeToken(m.Subject, len(s.store.Name())+len(".event."))]
	if !followed {
		return true
	}
	if head(m.Header, "Rossby-Tx") != "" || len(names) == 0 {
		return false
	}
	events := jetstream.EventNames(m)
	for _, name := range events {
		if !names[name] {
			return false
		}
	}
	return true
}

func typeToken(subject string, from int) string {
	if len(subject) <= from {
		return ""
	}
	for i := from; i < len(subject); i++ {
		if subject[i] == '.' {
			return subject[from:i]
		}
	}
	return ""
}

// made makes sure that the view was made from this store.
func (s *source) made(store string) error {
	if store != s.store.ID() {
		return fmt.Errorf("%w: made from the store with id %s, this one's is %s", ErrStoreRestored, store, s.store.ID())
	}
	return nil
}

// holds makes sure that the store still holds what a view at pos was made from.
func (s *source) holds(ctx context.Context, pos uint64, last lastCommit) error {
	if pos == 0 {
		return nil
	}
	head, err := s.store.LastSequence(ctx)
	if errors.Is(err, jetstream.ErrStoreWentBack) {
		return fmt.Errorf("%w: it is at sequence %d: %w", ErrStoreRestored, pos, err)
	}
	if err != nil {
		return err
	}
	if head < pos {
		return fmt.Errorf("%w: it is at sequence %d, the store ends at %d", ErrStoreRestored, pos, head)
	}
	if last.Sequence == 0 {
		return nil
	}
	m, err := wire.LeaderNext(ctx, s.store.Conn(), s.store.Name(), s.store.SubjectFilter(""), last.Sequence)
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return err
	}
	if id := headerOf(&m); m.Sequence != last.Sequence || id != last.Commit {
		return fmt.Errorf("%w: its last commit %s was at sequence %d, where the store has %q now",
			ErrStoreRestored, last.Commit, last.Sequence, id)
	}
	return nil
}

func headerOf(m *wire.Message) string { return head(m.Header, "Rossby-Commit") }
