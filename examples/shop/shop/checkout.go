package shop

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/jetstream"
)

// Checkout leads an order to its end. The steps are done in this order; when one is
// refused, those before it are undone, the last one first.
func Checkout(orders, stocks, wallets aggregate.Target) *saga.Saga[Details] {
	type instance = saga.Instance[Details]
	return saga.New("checkout",
		saga.Step[Details]{
			Name: "order",
			Do:   func(i instance) saga.Command { return saga.Create(orders, i.ID, Place(i.Data)) },
			Undo: func(i instance) saga.Command { return saga.Send(orders, i.ID, Cancel{i.Failure.Reason}) },
		},
		saga.Step[Details]{
			Name: "reserve",
			Do:   func(i instance) saga.Command { return saga.Send(stocks, i.Data.Product, Take{i.ID, i.Data.Pieces}) },
			Undo: func(i instance) saga.Command { return saga.Send(stocks, i.Data.Product, Return{i.ID, i.Data.Pieces}) },
		},
		saga.Step[Details]{
			Name: "pay",
			Do:   func(i instance) saga.Command { return saga.Send(wallets, i.Data.Customer, Take{i.ID, i.Data.Cents}) },
			Undo: func(i instance) saga.Command { return saga.Send(wallets, i.Data.Customer, Return{i.ID, i.Data.Cents}) },
		},
		saga.Step[Details]{
			Name:  "ship",
			Do:    func(i instance) saga.Command { return saga.Send(orders, i.ID, Pack{}) },
			Await: true, // until the carrier has reported: see Reports
		},
	)
}

// Reports tell the saga how the shipping went, from what the carrier told the order.
func Reports() []saga.Link {
	return []saga.Link{
		saga.ReportOn(OrderEvents, func(_ Shipped, m jetstream.Meta) saga.Report {
			return saga.Report{Instance: m.ID, Step: "ship"}
		}),
		saga.ReportOn(OrderEvents, func(e Undelivered, m jetstream.Meta) saga.Report {
			return saga.Report{Instance: m.ID, Step: "ship", Code: "undelivered", Reason: e.Reason}
		}),
	}
}
