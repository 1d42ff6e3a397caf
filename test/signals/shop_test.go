package signals_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

type (
	placed struct{ Item string }
	taken  struct{ Order string }
	sent   struct{}

	place struct{ Item string }
	take  struct{ Order string }
	send  struct{}
	more  struct{}

	order struct{ Sent bool }
	stock struct{ Taken int }

	shown struct {
		Item string `json:"item"`
	}
)

var (
	orderEvents = jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Event[sent]("sent"))
	stockEvents = jetstream.NewSchema("stock", jetstream.Event[taken]("taken"))
	quiet       = slog.New(slog.DiscardHandler)
)

func orderType() *aggregate.Type[order] {
	return aggregate.New[order](orderEvents,
		aggregate.Apply(func(*order, placed, jetstream.Meta) {}),
		aggregate.Apply(func(o *order, _ sent, _ jetstream.Meta) { o.Sent = true }),
		aggregate.Create("place", func(c place, _ aggregate.Decision) ([]any, error) {
			if c.Item == "" {
				return nil, aggregate.Reject("no-item", "an order needs an item")
			}
			return []any{placed(c)}, nil
		}),
		aggregate.Handle("send", func(o order, _ send, _ aggregate.Decision) ([]any, error) {
			if o.Sent {
				return nil, nil
			}
			return []any{sent{}}, nil
		}))
}

func stockType() *aggregate.Type[stock] {
	return aggregate.New[stock](stockEvents,
		aggregate.Apply(func(s *stock, _ taken, _ jetstream.Meta) { s.Taken++ }),
		aggregate.Create("take", func(c take, _ aggregate.Decision) ([]any, error) { return []any{taken(c)}, nil }),
		aggregate.Handle("more", func(_ stock, _ more, _ aggregate.Decision) ([]any, error) { return []any{taken{}}, nil }))
}

// shop has every kind of module: a client sends to the service of orders, a reactor
// takes from the stock, a view shows orders, a gateway has them sent.
type shop struct {
	store   *jetstream.Store
	repo    *aggregate.Repository[order]
	service *aggregate.Service
	reactor *aggregate.Reactor
	updater *projection.Updater
	gate    *gateway.Gateway
	orders  *aggregate.Client
	reader  *projection.Reader[shown]
	// delivered gets the traceparents that the gateway hands on.
	delivered chan string
}

// startShop runs the shop until the test ends.
func startShop(t *testing.T, name string, spans trace.TracerProvider, meters metric.MeterProvider) *shop {
	t.Helper()
	url := natstest.Run(t).URL()
	s := &shop{delivered: make(chan string, 1)}
	var err error
	if s.store, err = jetstream.Open(t.Context(), natstest.Conn(t, url), jetstream.Config{Name: name}); err != nil {
		t.Fatal(err)
	}
	cfg := aggregate.RepositoryConfig{TracerProvider: spans, MeterProvider: meters}
	orders := need(aggregate.NewRepository(s.store, orderType(), cfg))(t)
	stocks := need(aggregate.NewRepository(s.store, stockType(), cfg))(t)
	service := need(aggregate.NewService(orders, aggregate.ServiceConfig{Logger: quiet}))(t)
	reactor := need(aggregate.NewReactor(s.store, "take-stock",
		aggregate.ReactorConfig{
			Start: jetstream.FromBeginning(), Logger: quiet, TracerProvider: spans, MeterProvider: meters,
		},
		aggregate.On(orderEvents, func(ctx context.Context, _ placed, m jetstream.Meta, do *aggregate.Do) error {
			_, err := do.Create(ctx, stocks, "", take{Order: m.ID})
			return err
		})))(t)
	updater := need(projection.NewUpdater(s.store, projection.NewKeyed("orders",
		projection.On(orderEvents, func(o *shown, e placed, _ jetstream.Meta) { o.Item = e.Item }),
	), projection.UpdaterConfig{Logger: quiet, TracerProvider: spans, MeterProvider: meters}))(t)
	gate := need(gateway.New(s.store, "shipping",
		gateway.Config{
			Start: jetstream.FromBeginning(), Logger: quiet, TracerProvider: spans, MeterProvider: meters,
		},
		gateway.On(orderEvents, func(ctx context.Context, _ placed, d gateway.Delivery) error {
			if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
				s.delivered <- sc.TraceID().String()
			}
			return d.Command(ctx, "order", d.ID, "send", send{})
		})))(t)
	s.repo, s.service, s.reactor, s.updater, s.gate = orders, service, reactor, updater, gate
	run(t, service.Run, reactor.Run, updater.Run, gate.Run)
	<-service.Ready()
	nc := natstest.Conn(t, url)
	s.orders = need(aggregate.NewClient(nc, name, orderType(), aggregate.ClientConfig{TracerProvider: spans}))(t)
	s.reader = need(projection.NewReader[shown](t.Context(), nc, name, "orders",
		projection.ReaderConfig{OpenWait: natstest.Patience}))(t)
	return s
}

// need gives a value, or ends the test.
func need[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// run runs modules until the test ends.
func run(t *testing.T, modules ...func(context.Context) error) {
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
