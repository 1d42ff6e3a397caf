package shop

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// What happens to a supply: the stock of a product, in pieces, and the wallet of a
// customer, in cents. Orders take parts of both.
type (
	Filled   struct{ Amount int64 }
	Taken    Part
	Returned Part
	Part     struct { // so much for an order
		Order  string
		Amount int64
	}
)

// Supply is the state of a stock or wallet: what is left.
type Supply struct{ Left int64 }

// The commands.
type (
	Fill   struct{ Amount int64 }
	Take   Part
	Return Part
)

// The two aggregate types.
var (
	Stocks  = supply("stock", "sold-out", "%d are left")
	Wallets = supply("wallet", "no-money", "the wallet holds %d cents")
)

// supply need not remember who took what: each command of the saga takes effect once,
// however often it is sent.
func supply(typ, code, reason string) *aggregate.Type[Supply] {
	events := jetstream.NewSchema(typ,
		jetstream.Event[Filled]("filled"), jetstream.Event[Taken]("taken"), jetstream.Event[Returned]("returned"))
	return aggregate.New[Supply](events,
		aggregate.Apply(func(s *Supply, e Filled, _ jetstream.Meta) { s.Left = e.Amount }),
		aggregate.Apply(func(s *Supply, e Taken, _ jetstream.Meta) { s.Left -= e.Amount }),
		aggregate.Apply(func(s *Supply, e Returned, _ jetstream.Meta) { s.Left += e.Amount }),

		aggregate.Create("fill", func(c Fill, _ aggregate.Decision) ([]any, error) { return []any{Filled(c)}, nil }),
		aggregate.Handle("take", func(s Supply, c Take, _ aggregate.Decision) ([]any, error) {
			if c.Amount > s.Left {
				return nil, aggregate.Reject(code, reason, s.Left)
			}
			return []any{Taken(c)}, nil
		}),
		aggregate.Handle("return", func(_ Supply, c Return, _ aggregate.Decision) ([]any, error) {
			return []any{Returned(c)}, nil
		}),
	)
}
