package shop

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Shop is the whole shop. Each of its parts may as well run in a process of its own,
// and in as many as you like.
type Shop struct {
	Orders   *aggregate.Repository[Order]
	Stocks   *aggregate.Repository[Stock]
	Wallets  *aggregate.Repository[Wallet]
	Checkout *saga.Process[Details]

	parts []func(context.Context) error
}

// New puts the shop together.
func New(ctx context.Context, store *jetstream.Store, carrier Carrier) (s *Shop, err error) {
	s = &Shop{}
	if s.Orders, err = aggregate.NewRepository(store, Orders, aggregate.RepositoryConfig{}); err != nil {
		return nil, err
	}
	if s.Stocks, err = aggregate.NewRepository(store, Stocks, aggregate.RepositoryConfig{}); err != nil {
		return nil, err
	}
	if s.Wallets, err = aggregate.NewRepository(store, Wallets, aggregate.RepositoryConfig{}); err != nil {
		return nil, err
	}
	s.Checkout, err = saga.NewProcess(ctx, store, Checkout(s.Orders, s.Stocks, s.Wallets), saga.ProcessConfig{
		Links: Reports(), Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
	})
	if err != nil {
		return nil, err
	}
	orders, err := aggregate.NewService(s.Orders, aggregate.ServiceConfig{}) // for the gateway's commands
	if err != nil {
		return nil, err
	}
	deliveries, err := gateway.New(store, "carrier", gateway.Config{Start: jetstream.FromBeginning()}, Deliver(carrier))
	if err != nil {
		return nil, err
	}
	view, err := projection.NewUpdater(store, OrdersView, projection.UpdaterConfig{})
	if err != nil {
		return nil, err
	}
	s.parts = []func(context.Context) error{s.Checkout.Run, orders.Run, deliveries.Run, view.Run}
	return s, nil
}

// Run runs the shop until ctx ends.
func (s *Shop) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range s.parts {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}
