// Command shop takes three orders and shows what becomes of them: one is shipped, one
// fails for lack of money, one comes back from the carrier and everything is undone.
//
//	go run ./examples/shop
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/examples/shop/shop"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	// A server of its own, so that the example needs nothing else.
	srv, err := embedded.Start(embedded.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Stop()) }()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		return err
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "shop"})
	if err != nil {
		return err
	}
	s, err := shop.New(ctx, store, carrier)
	if err != nil {
		return err
	}
	open, closeShop := context.WithTimeout(ctx, time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(open); closeShop() }()
	err = story(open, nc, s, out)
	closeShop()
	return errors.Join(err, <-ended)
}

// carrier stands for the web service of those who bring the parcels.
func carrier(_ context.Context, key string, parcel shop.Packed) (string, error) {
	if parcel.Customer == "nemo" {
		return "", shop.ErrUndeliverable
	}
	return "parcel " + key, nil
}

func story(ctx context.Context, nc *nats.Conn, s *shop.Shop, out io.Writer) error {
	if _, err := s.Stocks.Create(ctx, "teapot", shop.Fill{Amount: 10}); err != nil {
		return err
	}
	wallets := map[string]int64{"ann": 5000, "bob": 500, "nemo": 9000}
	for customer, cents := range wallets {
		if _, err := s.Wallets.Create(ctx, customer, shop.Fill{Amount: cents}); err != nil {
			return err
		}
		order := shop.Details{Customer: customer, Product: "teapot", Pieces: 2, Cents: 4000}
		if _, err := s.Checkout.Start(ctx, "order-of-"+customer, order); err != nil {
			return err
		}
	}
	orders, err := projection.NewReader[shop.OrderView](ctx, nc, "shop", "orders",
		projection.ReaderConfig{OpenWait: time.Minute})
	if err != nil {
		return err
	}
	ended := 0
	for change, err := range orders.Watch(ctx, projection.WatchOptions{}) {
		if err != nil {
			return err
		}
		if order := change.Entry.Value; order.State == "shipped" || order.State == "cancelled" {
			_, _ = fmt.Fprintln(out, change.Entry.Key, order.State, order.Tracking+order.Reason)
			if ended++; ended == len(wallets) {
				break
			}
		}
	}
	return nil
}
