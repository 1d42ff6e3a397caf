package shop

import (
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// OrderView is an order as it is read.
type OrderView struct {
	Customer string `json:"customer"`
	Product  string `json:"product"`
	Cents    int64  `json:"cents"`
	State    string `json:"state"` // placed, packed, shipped or cancelled
	Tracking string `json:"tracking,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// OrdersView are the orders by their ids, also to be found by customer and by state.
var OrdersView = projection.NewKeyed("orders",
	projection.On(OrderEvents, func(o *OrderView, e Placed, _ jetstream.Meta) {
		*o = OrderView{Customer: e.Customer, Product: e.Product, Cents: e.Cents, State: "placed"}
	}),
	projection.On(OrderEvents, func(o *OrderView, _ Packed, _ jetstream.Meta) { o.State = "packed" }),
	projection.On(OrderEvents, func(o *OrderView, e Shipped, _ jetstream.Meta) {
		o.State, o.Tracking = "shipped", e.Tracking
	}),
	projection.On(OrderEvents, func(o *OrderView, e Cancelled, _ jetstream.Meta) {
		o.State, o.Reason = "cancelled", e.Reason
	}),
).
	Index("customer", func(o OrderView) []string { return []string{o.Customer} }).
	Index("state", func(o OrderView) []string { return []string{o.State} })
