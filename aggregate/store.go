package aggregate

import (
	"context"
	"errors"
	"iter"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// eventStore is what a repository needs of its store: a [*jetstream.Store], or in
// tests one in memory.
type eventStore interface {
	named
	copyInfo

	Append(ctx context.Context, w jetstream.Write) (jetstream.Head, error)
	At(ctx context.Context, typ, id string, sequence uint64) (*jetstream.Commit, error)
	Codec() jetstream.Codec
	// Conn is nil in memory.
	Conn() *nats.Conn
	History(ctx context.Context, typ, id string, r jetstream.Range) iter.Seq2[*jetstream.Commit, error]
	Last(ctx context.Context, typ, id string, from jetstream.Source) (*jetstream.Commit, error)
}

// named is what a store knows of itself.
type named interface {
	Name() string
	Position(sequence uint64) jetstream.Position
	Replicas() int
	Sequence(p jetstream.Position) (uint64, error)
}

// copyInfo tells what of a store was copied from another.
type copyInfo interface {
	// LastCopied is the newest commit that came from another store, or ErrNotFound.
	LastCopied(ctx context.Context) (*jetstream.Commit, error)
	LastSequence(ctx context.Context) (uint64, error)
}

var (
	_ eventStore = (*jetstream.Store)(nil)
	_ eventStore = (*memstore.Store)(nil)
)

// NewTestRepository makes a repository over a store in memory. It is what
// aggregatetest is built on: use that.
func NewTestRepository[S any](store *memstore.Store, typ *Type[S], cfg RepositoryConfig) (*Repository[S], error) {
	if store == nil || typ == nil {
		return nil, errors.New("aggregate repository: the store or the type is nil")
	}
	r, err := newRepository(store, typ, cfg)
	if err != nil {
		return nil, err
	}
	r.core.now = store.Now
	return r, nil
}
