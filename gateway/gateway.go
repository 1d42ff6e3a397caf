package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	ConcurrencyDefault   = 4
	MaxUnrecordedDefault = 16
	MinBackoffDefault    = 100 * time.Millisecond
	MaxBackoffDefault    = time.Minute
	TimeoutDefault       = 30 * time.Second
)

// Config describes a gateway. Start is required.
type Config struct {
	// Concurrency is the number of deliveries under way at once. Defaults to
	// [ConcurrencyDefault].
	Concurrency int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxBackoff and MinBackoff bound the wait between attempts, whose upper end
	// doubles with each and which is random below. Default to [MaxBackoffDefault],
	// and [MinBackoffDefault] or MaxBackoff if that is shorter.
	MaxBackoff, MinBackoff time.Duration
	// MaxUnrecorded bounds the commits whose deliveries a crash may repeat; most
	// commits hold one event. Defaults to [MaxUnrecordedDefault].
	MaxUnrecorded int
	// Start is where the gateway begins when it runs for the first time ever.
	Start jetstream.Start
	// TTL is how long a dead instance keeps its place, at least 200 ms. Defaults
	// to 3 s.
	TTL time.Duration
	// Timeout bounds the context of one delivery. Defaults to [TimeoutDefault].
	Timeout time.Duration
	// Version is the version of the gateway's definition: raise it with every
	// change of the events it handles. Defaults to 1.
	Version int
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if !c.Start.IsSet() {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Start", Reason: "is not stated: say jetstream.FromBeginning(), FromNow() or From(position)",
		})
	}
	for _, n := range []struct {
		field string
		value int
	}{{"Concurrency", c.Concurrency}, {"MaxUnrecorded", c.MaxUnrecorded}, {"Version", c.Version}} {
		if n.value < 0 {
			errs = append(
				errs,
				&jetstream.InvalidError{Field: n.field, Value: strconv.Itoa(n.value), Reason: "is negative"},
			)
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"MaxBackoff", c.MaxBackoff}, {"MinBackoff", c.MinBackoff}, {"Timeout", c.Timeout}} {
		if d.value < 0 {
			errs = append(errs, &jetstream.InvalidError{Field: d.field, Value: d.value.String(), Reason: "is negative"})
		}
	}
	if c.TTL < 0 || (c.TTL > 0 && c.TTL < follow.TTLMin) {
		errs = append(errs, &jetstream.InvalidError{
			Field: "TTL", Value: c.TTL.String(), Reason: "is below " + follow.TTLMin.String(),
		})
	}
	if lo, hi := c.MinBackoff, cmp.Or(c.MaxBackoff, MaxBackoffDefault); hi > 0 && lo > hi {
		errs = append(errs, &jetstream.InvalidError{
			Field: "MinBackoff", Value: lo.String(), Reason: "is above MaxBackoff " + hi.String(),
		})
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Concurrency = cmp.Or(c.Concurrency, ConcurrencyDefault)
	c.MaxUnrecorded = cmp.Or(c.MaxUnrecorded, MaxUnrecordedDefault)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, MaxBackoffDefault)
	c.MinBackoff = cmp.Or(c.MinBackoff, min(MinBackoffDefault, c.MaxBackoff))
	c.Timeout = cmp.Or(c.Timeout, TimeoutDefault)
	c.Version = cmp.Or(c.Version, 1)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

// Gateway follows events and delivers them.
type Gateway struct {
	name     string
	follower *follow.Follower
}

// Option is a handler of a [Gateway].
type Option func(*definition) error

type definition struct {
	name    string
	store   *jetstream.Store
	timeout time.Duration
	table   *dispatch.Table
}

// On declares what a gateway does about an event of the schema. The handler
// returns nil when the delivery is done, an error to try again with back-off, one
// wrapped with [Permanent] to park.
func On[E any](schema *jetstream.Schema, handle func(ctx context.Context, event E, d Delivery) error) Option {
	return func(def *definition) error {
		if handle == nil {
			return fmt.Errorf("handler of %s is a nil function", reflect.TypeFor[E]())
		}
		return def.table.Add(schema, reflect.TypeFor[E](), func(ctx context.Context, e dispatch.Event) error {
			return def.deliver(ctx, e, func(ctx context.Context, d Delivery) error {
				return handle(ctx, e.Event.(E), d) //nolint:forcetypeassert // looked up by this type
			})
		})
	}
}

// deliver makes one attempt at one event, unless an earlier attempt at its commit
// has delivered it.
func (def *definition) deliver(
	ctx context.Context, e dispatch.Event, handle func(ctx context.Context, d Delivery) error,
) error {
	step, done := nextStep(ctx)
	if done {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, def.timeout)
	defer cancel()
	err := handle(ctx, Delivery{
		Meta: e.Meta, IdempotencyKey: def.name + "-" + e.EventID, Attempt: e.Attempt, Epoch: e.Epoch,
		origin: e.Origin, gateway: def,
	})
	if err != nil {
		return &handlerError{err}
	}
	step()
	return nil
}

// New makes a gateway. Its name is part of the idempotency keys, and that of its
// durable consumer and record: it must never change. Returns every mistake in the
// configuration and the handlers, joined.
func New(store *jetstream.Store, name string, cfg Config, handlers ...Option) (*Gateway, error) {
	if store == nil {
		return nil, errors.New("gateway: the store is nil")
	}
	errs := []error{jetstream.ValidateName("gateway name", name), cfg.Validate()}
	cfg = cfg.withDefaults()
	def := &definition{name: name, store: store, timeout: cfg.Timeout, table: dispatch.NewTable()}
	for _, h := range handlers {
		errs = append(errs, h(def))
	}
	if err := errors.Join(append(errs, def.table.Build())...); err != nil {
		return nil, fmt.Errorf("gateway %q: %w", name, err)
	}
	fc := follow.Config{
		Name: name, Concurrency: cfg.Concurrency, MaxUnrecorded: cfg.MaxUnrecorded, TTL: cfg.TTL, Logger: cfg.Logger,
		Start:  func(ctx context.Context) (uint64, error) { return cfg.Start.Resolve(ctx, store) },
		Decide: decide(cfg),
	}
	def.table.Configure(&fc, store, cfg.Version)
	fc.Handle = goOn(fc.Handle)
	f, err := follow.New(fc)
	if err != nil {
		return nil, fmt.Errorf("gateway %q: %w", name, err)
	}
	return &Gateway{name: name, follower: f}, nil
}

func decide(cfg Config) func(follow.Failure) follow.Verdict {
	return func(f follow.Failure) follow.Verdict {
		// What a handler read itself is no reason to stop.
		_, handled := errors.AsType[*handlerError](f.Err)
		switch {
		case !handled && dispatch.Unreadable(f.Err):
			return follow.Verdict{Action: follow.Stop}
		case errors.Is(f.Err, ErrPermanent):
			return follow.Verdict{Action: follow.Park}
		default:
			return follow.Verdict{Action: follow.Retry, After: backoff(f.Attempt, cfg.MinBackoff, cfg.MaxBackoff)}
		}
	}
}

// backoff is a random wait from least to an end that doubles with every attempt,
// up to most. The engine's own may be next to nothing, which is no way to treat
// other people's services.
func backoff(attempt int, least, most time.Duration) time.Duration {
	end := most
	if shift := max(attempt, 1); shift < 30 && least < most>>shift {
		end = least << shift
	}
	return least + rand.N(end-least+1)
}

// Name is the gateway's name.
func (g *Gateway) Name() string { return g.name }

// Run delivers until ctx ends, then lets deliveries under way finish – after 5 s
// their contexts end –, hands over and returns nil. An instance that is not the owner stands by. It returns an
// error for what waiting does not mend: another definition under the name, a
// store that was restored, an event that this program cannot read.
func (g *Gateway) Run(ctx context.Context) error { return g.follower.Run(ctx) }

// Resume tries the parked events of one aggregate's subject again, or all with
// "". Attempts count from 1 again. Only the instance that delivers can; others
// return an error.
func (g *Gateway) Resume(ctx context.Context, subject string) error {
	return g.follower.Resume(ctx, subject)
}
