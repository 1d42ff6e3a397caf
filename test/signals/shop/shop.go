// Package shop is a store with every kind of module, to see what they tell of
// themselves.
package shop

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// What happens to orders and stocks.
type (
	// Placed begins an order.
	Placed struct{ Item string }
	// Taken is an item that left the stock for an order.
	Taken struct{ Order string }
	// Sent ends an order.
	Sent struct{}
)

// What they are asked to do.
type (
	// Place asks for an order.
	Place struct{ Item string }
	// Take asks a stock for an item.
	Take struct{ Order string }
	// Send asks for an order to be sent.
	Send struct{}
	// More fills a stock.
	More struct{}
)

// What they are, and what is shown of them.
type (
	// Order is the state of an order.
	Order struct{ Sent bool }
	// Stock is the state of a stock.
	Stock struct{ Taken int }
	// Shown is what the view shows of an order.
	Shown struct {
		Item string `json:"item"`
	}
)

var (
	// OrderEvents are the events of orders.
	OrderEvents = jetstream.NewSchema("order", jetstream.Event[Placed]("placed"), jetstream.Event[Sent]("sent"))
	// StockEvents are those of stocks.
	StockEvents = jetstream.NewSchema("stock", jetstream.Event[Taken]("taken"))
	// Quiet logs nothing.
	Quiet = slog.New(slog.DiscardHandler)
)

// OrderType is an order, which is placed and sent.
func OrderType() *aggregate.Type[Order] {
	return aggregate.New[Order](OrderEvents,
		aggregate.Apply(func(*Order, Placed, jetstream.Meta) {}),
		aggregate.Apply(func(o *Order, _ Sent, _ jetstream.Meta) { o.Sent = true }),
		aggregate.Create("place", func(c Place, _ aggregate.Decision) ([]any, error) {
			if c.Item == "" {
				return nil, aggregate.Reject("no-item", "an order needs an item")
			}
			return []any{Placed(c)}, nil
		}),
		aggregate.Handle("send", func(o Order, _ Send, _ aggregate.Decision) ([]any, error) {
			if o.Sent {
				return nil, nil
			}
			return []any{Sent{}}, nil
		}))
}

// StockType is a stock, of which something is taken.
func StockType() *aggregate.Type[Stock] {
	return aggregate.New[Stock](StockEvents,
		aggregate.Apply(func(s *Stock, _ Taken, _ jetstream.Meta) { s.Taken++ }),
		aggregate.Create("take", func(c Take, _ aggregate.Decision) ([]any, error) { return []any{Taken(c)}, nil }),
		aggregate.Handle("more", func(_ Stock, _ More, _ aggregate.Decision) ([]any, error) { return []any{Taken{}}, nil }))
}

// Shop has every kind of module: a client sends to the service of orders, a reactor
// takes from the stock, a view shows orders, a gateway has them sent.
type Shop struct {
	Store   *jetstream.Store
	Repo    *aggregate.Repository[Order]
	Service *aggregate.Service
	Reactor *aggregate.Reactor
	Updater *projection.Updater
	Gate    *gateway.Gateway
	Orders  *aggregate.Client
	Reader  *projection.Reader[Shown]
	// Delivered gets the traceparents that the gateway hands on.
	Delivered chan string
}

// lease is how long an owner may stand still before it loses what it owns. Where it
// is longer, positions are written less often.
const lease = 20 * time.Second

// Start runs the shop until the test ends. However slow the machine is, nobody loses
// what it owns and nothing is asked twice: what happens can be counted.
func Start(t *testing.T, name string, spans trace.TracerProvider, meters metric.MeterProvider) *Shop {
	t.Helper()
	url := natstest.Run(t).URL()
	s := &Shop{Delivered: make(chan string, 1)}
	var err error
	if s.Store, err = jetstream.Open(t.Context(), natstest.Conn(t, url), jetstream.Config{Name: name}); err != nil {
		t.Fatal(err)
	}
	cfg := aggregate.RepositoryConfig{TracerProvider: spans, MeterProvider: meters}
	orders := Need(aggregate.NewRepository(s.Store, OrderType(), cfg))(t)
	stocks := Need(aggregate.NewRepository(s.Store, StockType(), cfg))(t)
	service := Need(aggregate.NewService(orders, aggregate.ServiceConfig{Logger: Quiet}))(t)
	reactor := Need(aggregate.NewReactor(s.Store, "take-stock",
		aggregate.ReactorConfig{
			Start: jetstream.FromBeginning(), Logger: Quiet, TTL: lease,
			TracerProvider: spans, MeterProvider: meters,
		},
		aggregate.On(OrderEvents, func(ctx context.Context, _ Placed, m jetstream.Meta, do *aggregate.Do) error {
			_, err := do.Create(ctx, stocks, "", Take{Order: m.ID})
			return err
		})))(t)
	updater := Need(projection.NewUpdater(s.Store, projection.NewKeyed("orders",
		projection.On(OrderEvents, func(o *Shown, e Placed, _ jetstream.Meta) { o.Item = e.Item }),
	), projection.UpdaterConfig{
		Logger: Quiet, LeaseTTL: lease, TracerProvider: spans, MeterProvider: meters,
	}))(t)
	gate := Need(gateway.New(s.Store, "shipping",
		gateway.Config{
			Start: jetstream.FromBeginning(), Logger: Quiet, TTL: lease,
			TracerProvider: spans, MeterProvider: meters,
		},
		gateway.On(OrderEvents, func(ctx context.Context, _ Placed, d gateway.Delivery) error {
			if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
				select {
				case s.Delivered <- sc.TraceID().String():
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return d.Command(ctx, gateway.Command{Type: "order", ID: d.ID, Name: "send", Body: Send{}})
		})))(t)
	s.Repo, s.Service, s.Reactor, s.Updater, s.Gate = orders, service, reactor, updater, gate
	Run(t, service.Run, reactor.Run, updater.Run, gate.Run)
	<-service.Ready()
	nc := natstest.Conn(t, url)
	s.Orders = Need(aggregate.NewClient(nc, name, OrderType(), aggregate.ClientConfig{
		AttemptTimeout: natstest.Patience, Timeout: natstest.Patience, TracerProvider: spans,
	}))(t)
	s.Reader = Need(projection.NewReader[Shown](t.Context(), nc, name, "orders",
		projection.ReaderConfig{OpenWait: natstest.Patience, Wait: natstest.Patience}))(t)
	return s
}

// Need gives a value, or ends the test.
func Need[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Run runs modules until the test ends.
func Run(t *testing.T, modules ...func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, m := range modules {
		wg.Go(func() {
			if err := m(ctx); err != nil {
				t.Errorf("a module ended: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}
