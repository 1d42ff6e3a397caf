package shop //nolint:dupl // A wallet and a stock are alike today.

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// What happens to the stock of a product.
type (
	Stocked  struct{ Pieces int64 }
	Reserved Portion
	Released Portion
)

// Portion is so many pieces for an order.
type Portion struct {
	Order  string
	Pieces int64
}

// StockEvents are the events of a stock.
var StockEvents = jetstream.NewSchema("stock",
	jetstream.Event[Stocked]("stocked"),
	jetstream.Event[Reserved]("reserved"),
	jetstream.Event[Released]("released"),
)

// Stock is the state of a stock: what is left.
type Stock struct{ Pieces int64 }

// The commands.
type (
	Fill    struct{ Pieces int64 }
	Reserve Portion
	Release Portion
)

// Stocks is the aggregate type of stocks. A stock need not remember who reserved
// what: each command of the saga takes effect once, however often it is sent.
var Stocks = aggregate.New[Stock](StockEvents,
	aggregate.Apply(func(s *Stock, e Stocked, _ jetstream.Meta) { s.Pieces = e.Pieces }),
	aggregate.Apply(func(s *Stock, e Reserved, _ jetstream.Meta) { s.Pieces -= e.Pieces }),
	aggregate.Apply(func(s *Stock, e Released, _ jetstream.Meta) { s.Pieces += e.Pieces }),

	aggregate.Create("fill", func(c Fill, _ aggregate.Decision) ([]any, error) { return []any{Stocked(c)}, nil }),
	aggregate.Handle("reserve", func(s Stock, c Reserve, _ aggregate.Decision) ([]any, error) {
		if c.Pieces > s.Pieces {
			return nil, aggregate.Reject("sold-out", "%d are left", s.Pieces)
		}
		return []any{Reserved(c)}, nil
	}),
	aggregate.Handle("release", func(_ Stock, c Release, _ aggregate.Decision) ([]any, error) {
		return []any{Released(c)}, nil
	}),
)
