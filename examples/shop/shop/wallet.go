package shop //nolint:dupl // A wallet and a stock are alike today.

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// What happens to the wallet of a customer.
type (
	Opened   struct{ Cents int64 }
	Charged  Amount
	Refunded Amount
)

// Amount is money for an order.
type Amount struct {
	Order string
	Cents int64
}

// WalletEvents are the events of a wallet.
var WalletEvents = jetstream.NewSchema("wallet",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Charged]("charged"),
	jetstream.Event[Refunded]("refunded"),
)

// Wallet is the state of a wallet.
type Wallet struct{ Cents int64 }

// The commands.
type (
	Open   struct{ Cents int64 }
	Charge Amount
	Refund Amount
)

// Wallets is the aggregate type of wallets.
var Wallets = aggregate.New[Wallet](WalletEvents,
	aggregate.Apply(func(w *Wallet, e Opened, _ jetstream.Meta) { w.Cents = e.Cents }),
	aggregate.Apply(func(w *Wallet, e Charged, _ jetstream.Meta) { w.Cents -= e.Cents }),
	aggregate.Apply(func(w *Wallet, e Refunded, _ jetstream.Meta) { w.Cents += e.Cents }),

	aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) { return []any{Opened(c)}, nil }),
	aggregate.Handle("charge", func(w Wallet, c Charge, _ aggregate.Decision) ([]any, error) {
		if c.Cents > w.Cents {
			return nil, aggregate.Reject("no-money", "the wallet holds %d cents", w.Cents)
		}
		return []any{Charged(c)}, nil
	}),
	aggregate.Handle("refund", func(_ Wallet, c Refund, _ aggregate.Decision) ([]any, error) {
		return []any{Refunded(c)}, nil
	}),
)
