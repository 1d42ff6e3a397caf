package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [RepositoryConfig].
const (
	MaxAttemptsDefault = 20
	CacheBytesDefault  = 64 << 20
	GroupLimitDefault  = 256
	GroupBytesDefault  = 256 << 10
	ReceiptTTLDefault  = 24 * time.Hour
	StateEveryDefault  = 8
)

// ReceiptTTLMin is the least time that command ids are remembered for.
const ReceiptTTLMin = time.Second

// RepositoryConfig tunes a [Repository]. The zero value is a good one.
type RepositoryConfig struct {
	// CacheBytes bounds the memory for aggregates that were used lately, the least
	// recently used out first: about 800 bytes and the encoded state for each, and
	// about 120 bytes for each of its commits of the last two minutes, by which
	// repeated commands are found. An aggregate that is in use stays, and may take all
	// of it. Defaults to [CacheBytesDefault].
	CacheBytes int
	// GroupBytes bounds the events of one commit of several commands, in bytes, and
	// GroupLimit their number; those that came later wait for the next. A single
	// command is not bounded by it. Default to [GroupBytesDefault] and
	// [GroupLimitDefault]; a GroupLimit of 1 turns grouping off.
	GroupBytes, GroupLimit int
	// Interceptors see every decision before it is stored, in this order, before
	// those of a call. Made with [Intercept].
	Interceptors []Interceptor
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxAttempts bounds how often a command is decided when other writers come
	// first. Defaults to [MaxAttemptsDefault].
	MaxAttempts int
	// MeterProvider makes the histograms of how long commands and appends take, and of
	// the [Service] that answers for the repository; see docs/signals.md. Defaults to
	// none, which costs nothing.
	MeterProvider metric.MeterProvider
	// ReceiptTTL is how long a command id that bears no time is remembered, in whole
	// seconds, rounded up. Defaults to [ReceiptTTLDefault].
	ReceiptTTL time.Duration
	// RecordRejections is the call option [RecordRejections] for all calls.
	RecordRejections bool
	// StateEvery is how many commits without a state in them may follow one another
	// until a state is kept in the store's bucket of states; so it bounds what a
	// load replays. It matters to states above [StateLimit], and while programs of
	// two fingerprints run. Negative: no bucket. Defaults to [StateEveryDefault].
	StateEvery int
	// TracerProvider makes the spans of commands and commits, and of the [Service]
	// that answers for the repository; see docs/signals.md. Defaults to none, which
	// costs nothing.
	TracerProvider trace.TracerProvider
}

// Validate reports every field that [NewRepository] would refuse, joined.
func (c RepositoryConfig) Validate() error {
	var ttl error
	if c.ReceiptTTL != 0 && c.ReceiptTTL < ReceiptTTLMin {
		ttl = &jetstream.InvalidError{
			Field: "ReceiptTTL", Value: c.ReceiptTTL.String(), Reason: "is below " + ReceiptTTLMin.String(),
		}
	}
	return errors.Join(notNegative("CacheBytes", c.CacheBytes), notNegative("GroupBytes", c.GroupBytes),
		notNegative("GroupLimit", c.GroupLimit), notNegative("MaxAttempts", c.MaxAttempts), ttl)
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
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, CacheBytesDefault)
	cfg.GroupBytes = cmp.Or(cfg.GroupBytes, GroupBytesDefault)
	cfg.GroupLimit = cmp.Or(cfg.GroupLimit, GroupLimitDefault)
	cfg.Interceptors = slices.Clone(cfg.Interceptors)
	cfg.ReceiptTTL = cmp.Or(cfg.ReceiptTTL, ReceiptTTLDefault)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, MaxAttemptsDefault)
	cfg.StateEvery = cmp.Or(cfg.StateEvery, StateEveryDefault)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	c, err := newCore(store, &typ.def, typ.Name(), cfg, func() any { return new(S) })
	if err != nil {
		return nil, err
	}
	return &Repository[S]{typ: typ, core: c}, nil
}

// TypeName is the name of the aggregate type.
func (r *Repository[S]) TypeName() string { return r.typ.Name() }

// Commands is [Type.Commands].
func (r *Repository[S]) Commands() []CommandInfo { return r.typ.Commands() }

func (r *Repository[S]) definition() *definition { return r.core.def }

// Execute decides a command on the aggregate and stores what it led to. It costs
// one publish, and one get when the aggregate is not cached; a refusal or a
// command without events costs a read from the leader instead of the publish.
//
// Commands of one repository on one aggregate are decided one after the other, in
// the order they came. Those that came while another's commit was on its way are
// stored together, in one commit: each has an outcome, events and versions of its
// own, as if it had been alone.
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

// AtLeast wants what the store held at the position or later. Where the aggregate's last
// commit is older that takes two more requests to the leader, again until it has the
// position: [jetstream.ErrUnavailable] when it has not before ctx ends, or within 30 s
// where ctx has no deadline.
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
	if err == nil && v.head.Sequence < least {
		v, err = r.core.loadSince(ctx, id, least)
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
