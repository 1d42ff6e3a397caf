package gateway

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/rossby-go/rossby/internal/control"
	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// Gateway follows events and delivers them.
type Gateway struct {
	name     string
	def      *definition
	follower *follow.Follower
}

// Option is a handler of a [Gateway].
type Option func(*definition) error

// HandlerOption is a choice for one handler.
type HandlerOption func(*handler) error

// handler is what a gateway does about one event type.
type handler struct {
	event  reflect.Type
	handle func(ctx context.Context, event any, d Delivery) error
	report func(event any, d Delivery, o Outcome) *Command
}

// On declares what a gateway does about an event of the schema. The handler
// returns nil when the delivery is done, or an error:
//
//   - any error: try again with back-off, with the same key;
//   - [Permanent]: no retry would mend it; the event is parked;
//   - [RetryAfter]: the destination is left alone until then.
//
// [Config.Policies] may say otherwise. A panic is an error. A handler that does
// not return when its context ends keeps its aggregate waiting, and one place of
// [Config.Concurrency] taken; [Gateway.Status] lists it as overdue.
func On[E any](
	schema *jetstream.Schema, handle func(ctx context.Context, event E, d Delivery) error, opts ...HandlerOption,
) Option {
	return func(def *definition) error {
		event := reflect.TypeFor[E]()
		if handle == nil {
			return fmt.Errorf("handler of %s is a nil function", event)
		}
		return def.add(schema, event, opts, func(ctx context.Context, e any, d Delivery) error {
			return handle(ctx, e.(E), d) //nolint:forcetypeassert // looked up by this type
		})
	}
}

// OnAll declares what a gateway does about every event of the schema that has no
// handler of its own before it: what passes events on needs not know them one by
// one. See [On].
func OnAll(
	schema *jetstream.Schema, handle func(ctx context.Context, event any, d Delivery) error, opts ...HandlerOption,
) Option {
	return func(def *definition) error {
		if handle == nil {
			return errors.New("handler of all events is a nil function")
		}
		if schema == nil {
			return errors.New("handler of all events: the schema is nil")
		}
		var errs []error
		for _, name := range schema.Names() {
			event := schema.GoType(name)
			if !def.table.Handles(schema, event) {
				errs = append(errs, def.add(schema, event, opts, handle))
			}
		}
		return errors.Join(append(errs, schema.Err())...)
	}
}

func (def *definition) add(
	schema *jetstream.Schema, event reflect.Type, opts []HandlerOption,
	handle func(ctx context.Context, event any, d Delivery) error,
) error {
	h := &handler{event: event, handle: handle}
	errs := make([]error, 0, len(opts))
	for _, o := range opts {
		errs = append(errs, o(h))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return def.table.Add(schema, event, func(ctx context.Context, e dispatch.Event) error {
		return def.deliver(ctx, h, e)
	})
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
	def := newDefinition(store, name, cfg)
	var err error
	if def.took, err = newDeliveryDuration(cfg.MeterProvider, store.Name(), name); err != nil {
		errs = append(errs, err)
	}
	for _, h := range handlers {
		errs = append(errs, h(def))
	}
	if err := errors.Join(append(errs, def.table.Build())...); err != nil {
		return nil, fmt.Errorf("gateway %q: %w", name, err)
	}
	fc := follow.Config{
		Name: name, Concurrency: cfg.Concurrency, MaxUnrecorded: cfg.MaxUnrecorded, TTL: cfg.TTL, Logger: cfg.Logger,
		Start: def.start,
	}
	def.table.Configure(&fc, store, cfg.Version)
	f, err := follow.New(fc)
	if err != nil {
		return nil, fmt.Errorf("gateway %q: %w", name, err)
	}
	return &Gateway{name: name, def: def, follower: f}, nil
}

// start is where the gateway begins. The ledger is made with its first owner, not with
// its first delivery: servers may be away by then.
func (def *definition) start(ctx context.Context) (uint64, error) {
	if def.ledger != nil {
		if err := def.ledger.ready(ctx); err != nil {
			return 0, fmt.Errorf("make the ledger: %w", err)
		}
	}
	return def.cfg.Start.Resolve(ctx, def.store)
}

// Name is the gateway's name.
func (g *Gateway) Name() string { return g.name }

// Run delivers until ctx ends, then lets deliveries under way finish – after 5 s
// their contexts end –, hands over and returns nil. An instance that is not the owner stands by. It returns an
// error for what waiting does not mend: another definition under the name, a
// store that was restored, an event that this program cannot read.
func (g *Gateway) Run(ctx context.Context) error {
	return control.Run(ctx, control.Config{
		Store: g.def.store, Follower: g.follower, Name: g.name, Kind: "gateway", Replayable: true,
		Details: g.details, Logger: g.def.cfg.Logger,
	})
}

// details are what the administration shows beside the follower's status.
func (g *Gateway) details() any {
	s := g.Status()
	return struct {
		Destinations []DestinationStatus `json:"destinations"`
		Overdue      []Overdue           `json:"overdue,omitempty"`
	}{s.Destinations, s.Overdue}
}

// Resume tries the parked events of one aggregate's subject again, or all with
// "". Attempts count from 1 again. Only the instance that delivers can; others
// return an error.
func (g *Gateway) Resume(ctx context.Context, subject string) error {
	return g.follower.Resume(ctx, subject)
}
