package shop

import (
	"context"
	"errors"

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
	Orders          *aggregate.Repository[Order]
	Stocks, Wallets *aggregate.Repository[Supply]
	Checkout        *saga.Process[Details]

	parts []part
}

type part interface {
	Run(ctx context.Context) error
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
	orders, err1 := aggregate.NewService(s.Orders, aggregate.ServiceConfig{}) // for the gateway's commands
	deliveries, err2 := gateway.New(store, "carrier", gateway.Config{Start: jetstream.FromBeginning()}, Deliver(carrier))
	view, err3 := projection.NewUpdater(store, OrdersView, projection.UpdaterConfig{})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	s.parts = []part{s.Checkout, orders, deliveries, view}
	return s, nil
}

// Run runs the shop until ctx ends.
func (s *Shop) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range s.parts {
		g.Go(func() error { return p.Run(ctx) })
	}
	return g.Wait()
}
