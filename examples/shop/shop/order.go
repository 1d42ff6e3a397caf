// Package shop is a small shop: an order reserves stock, takes the money and is
// shipped, or all of it is undone. Read order.go and supply.go, the three
// aggregates; checkout.go, the saga; carrier.go, the gateway; view.go; and shop.go,
// which puts them together.
package shop

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// Details are what is ordered.
type Details struct {
	Customer, Product string
	Pieces, Cents     int64
}

// What happens to an order.
type (
	Placed      Details
	Packed      struct{ Customer string }
	Shipped     struct{ Tracking string }
	Undelivered struct{ Reason string }
	Cancelled   struct{ Reason string }
)

// OrderEvents are the events of an order.
var OrderEvents = jetstream.NewSchema("order",
	jetstream.Event[Placed]("placed"),
	jetstream.Event[Packed]("packed"),
	jetstream.Event[Shipped]("shipped"),
	jetstream.Event[Undelivered]("undelivered"),
	jetstream.Event[Cancelled]("cancelled"),
)

// Order is the state of an order.
type Order struct{ Customer string }

// The commands. Report is the carrier's, the others are the saga's.
type (
	Place  Details
	Pack   struct{}
	Cancel struct{ Reason string }
	Report struct{ Tracking, Problem string }
)

// Orders is the aggregate type of orders.
var Orders = aggregate.New[Order](OrderEvents,
	aggregate.Apply(func(o *Order, e Placed, _ jetstream.Meta) { o.Customer = e.Customer }),
	aggregate.Ignore[Packed](), aggregate.Ignore[Shipped](),
	aggregate.Ignore[Undelivered](), aggregate.Ignore[Cancelled](),

	aggregate.Create("place", func(c Place, _ aggregate.Decision) ([]any, error) {
		if c.Pieces <= 0 || c.Cents < 0 {
			return nil, aggregate.Reject("invalid", "%d pieces for %d cents", c.Pieces, c.Cents)
		}
		return []any{Placed(c)}, nil
	}),
	aggregate.Handle("pack", func(o Order, _ Pack, _ aggregate.Decision) ([]any, error) {
		return []any{Packed(o)}, nil
	}),
	aggregate.Handle("cancel", func(_ Order, c Cancel, _ aggregate.Decision) ([]any, error) {
		return []any{Cancelled(c)}, nil
	}),
	aggregate.Handle("report", func(_ Order, c Report, _ aggregate.Decision) ([]any, error) {
		if c.Problem != "" {
			return []any{Undelivered{Reason: c.Problem}}, nil
		}
		return []any{Shipped{Tracking: c.Tracking}}, nil
	}),
)
