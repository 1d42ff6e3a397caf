package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [RepositoryConfig].
const (
	MaxAttemptsDefault = 20
	CacheSizeDefault   = 10_000
)

// RepositoryConfig tunes a [Repository]. The zero value is a good one.
type RepositoryConfig struct {
	// CacheSize is the number of aggregates kept in memory, encoded. Defaults to
	// [CacheSizeDefault].
	CacheSize int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxAttempts bounds how often a command is decided when other writers come
	// first. Defaults to [MaxAttemptsDefault].
	MaxAttempts int
}

// Validate reports every field that [NewRepository] would refuse, joined.
func (c RepositoryConfig) Validate() error {
	return errors.Join(notNegative("CacheSize", c.CacheSize), notNegative("MaxAttempts", c.MaxAttempts))
}

func notNegative[T int | time.Duration](field string, n T) error {
	if n < 0 {
		return &jetstream.InvalidError{Field: field, Value: fmt.Sprint(n), Reason: "is negative"}
	}
	return nil
}

// Repository executes commands on the aggregates of one type in this process. It
// is safe for concurrent use, and any number of processes may have one.
type Repository[S any] struct {
	typ  *Type[S]
	core *core
}

// NewRepository makes a repository. Returns the type's mistakes and the
// configuration's.
func NewRepository[S any](store *jetstream.Store, typ *Type[S], cfg RepositoryConfig) (*Repository[S], error) {
	if store == nil || typ == nil {
		return nil, errors.New("aggregate repository: the store or the type is nil")
	}
	return newRepository(store, typ, cfg)
}

func newRepository[S any](store eventStore, typ *Type[S], cfg RepositoryConfig) (*Repository[S], error) {
	if err := errors.Join(typ.Err(), cfg.Validate()); err != nil {
		return nil, err
	}
	cfg.CacheSize = cmp.Or(cfg.CacheSize, CacheSizeDefault)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, MaxAttemptsDefault)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	c, err := newCore(store, &typ.def, typ.Name(), cfg, func() any { return new(S) })
	if err != nil {
		return nil, err
	}
	return &Repository[S]{typ: typ, core: c}, nil
}

// TypeName is the name of the aggregate type.
func (r *Repository[S]) TypeName() string { return r.typ.Name() }

func (r *Repository[S]) definition() *definition { return r.core.def }

// Execute decides a command on the aggregate and stores what it led to. Commands
// of one repository on one aggregate run one after the other. It costs
// one publish, and one get when the aggregate is not cached; a refusal or a
// command without events costs a read from the leader instead of the publish.
//
// Returns
//   - what the handler refused with: a [*RejectedError];
//   - [ErrNotFound], [ErrExists], a [*VersionError], [ErrOtherPayload];
//   - [ErrContended] when other writers came first too often;
//   - [jetstream.ErrUnknownOutcome] when it may or may not have happened: sending
//     it again with the same [CommandID] is safe;
//   - [jetstream.ErrUnavailable], a [*jetstream.RefusedError] or
//     [*jetstream.InvalidError] when it did not happen.
func (r *Repository[S]) Execute(ctx context.Context, id string, command any, opts ...CallOption) (Result, error) {
	return r.core.executeCommand(ctx, id, command, newCall(opts))
}

// Create executes a [Create] command. Without an id, the aggregate's is derived
// from the command id, so that a repeated request makes one aggregate, or is new
// when there is none. Errors are those of [Repository.Execute].
func (r *Repository[S]) Create(ctx context.Context, id string, command any, opts ...CallOption) (Result, error) {
	c := newCall(opts)
	return r.core.executeCommand(ctx, cmp.Or(id, c.newAggregateID()), command, c)
}

// ExecuteFunc executes the command that the function computes from the state,
// again on each attempt; it must not execute commands on the aggregate itself. A
// nil command changes nothing. Errors are those of
// [Repository.Execute] and the function's.
func (r *Repository[S]) ExecuteFunc(
	ctx context.Context, id string, command func(state S, d Decision) (any, error), opts ...CallOption,
) (Result, error) {
	return r.core.execute(ctx, id, request{
		call: newCall(opts), name: "func",
		compute: func(state any, d Decision) (any, error) {
			return command(*state.(*S), d) //nolint:forcetypeassert // the core makes these states
		},
	})
}

// Snapshot is an aggregate as a load found it.
type Snapshot[S any] struct {
	ID string
	// State is the caller's own copy.
	State S
	// Version counts the aggregate's events, Position is that of its last commit.
	Version  uint64
	Position jetstream.Position
	// StoredAt is when the last commit was stored, UTC.
	StoredAt time.Time
}

// LoadOption is a choice for one load.
type LoadOption func(*loadChoice)

type loadChoice struct {
	source  jetstream.Source
	atLeast jetstream.Position
}

// Follower lets any replica answer, which may be behind.
func Follower() LoadOption { return func(c *loadChoice) { c.source = jetstream.Replica } }

// AtLeast wants what the store held at the position or later.
func AtLeast(p jetstream.Position) LoadOption { return func(c *loadChoice) { c.atLeast = p } }

// Load returns the aggregate as the leader has it: one get, when the state
// travels in the commits. Returns [ErrNotFound] for an aggregate without events.
func (r *Repository[S]) Load(ctx context.Context, id string, opts ...LoadOption) (Snapshot[S], error) {
	var choice loadChoice
	for _, o := range opts {
		o(&choice)
	}
	least, err := r.core.store.Sequence(choice.atLeast)
	if err != nil {
		return Snapshot[S]{}, err
	}
	v, err := r.core.loadFresh(ctx, id, choice.source)
	if err == nil && choice.source == jetstream.Replica && v.head.Sequence < least {
		// A replica cannot prove that it has seen the position; the leader can.
		v, err = r.core.loadFresh(ctx, id, jetstream.Leader)
	}
	if err != nil {
		return Snapshot[S]{}, err
	}
	if v.head.Version == 0 {
		return Snapshot[S]{}, fmt.Errorf("%s %q: %w", r.typ.Name(), id, ErrNotFound)
	}
	out := Snapshot[S]{
		ID: id, Version: v.head.Version, Position: r.core.store.Position(v.head.Sequence), StoredAt: v.stored,
	}
	return out, r.core.store.Codec().Decode(v.state, &out.State)
}

// History yields the aggregate's events, from the first to the last that the
// leader has, complete or with an error. It reads a few commits at a time.
func (r *Repository[S]) History(ctx context.Context, id string) iter.Seq2[jetstream.Recorded, error] {
	return func(yield func(jetstream.Recorded, error) bool) {
		for c, err := range r.core.store.History(ctx, r.typ.Name(), id, jetstream.Range{}) {
			if err != nil {
				yield(jetstream.Recorded{}, err)
				return
			}
			events, err := r.core.decoder.Events(r.core.store, c)
			if err != nil {
				yield(jetstream.Recorded{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
