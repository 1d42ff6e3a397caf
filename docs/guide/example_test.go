// Package guide_test has the code of the guide that stands in no example.
package guide_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/examples/shop/shop"
	"github.com/rossby-go/rossby/examples/todo/todo"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the guide shows defaults, and they log
	natstest.VerifyTestMain(m)
}

// list opens a store on a server in this process. Programs use jetstream.Connect.
func list(ctx context.Context) (nc *nats.Conn, store *jetstream.Store, end func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err = nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	store, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "todo"})
	if err != nil {
		log.Fatal(err)
	}
	return nc, store, func() {
		nc.Close()
		if err := srv.Stop(); err != nil {
			log.Fatal(err)
		}
	}
}

// running runs a part until end is called.
func running(run func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			log.Fatal(err)
		}
	}
}

func Example_commands() {
	ctx := context.Background()
	_, store, end := list(ctx)
	defer end()

	// snippet:execute
	todos, err := aggregate.NewRepository(store, todo.Type, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := todos.Create(ctx, "milk", todo.Add{Title: "Buy milk"}); err != nil {
		log.Fatal(err)
	}
	res, err := todos.Execute(ctx, "milk", todo.Rename{Title: "Buy oat milk"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("version", res.Version, res.Events[0].Event)

	_, err = todos.Execute(ctx, "milk", todo.Rename{Title: ""})
	if refused, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		fmt.Println(refused.Code, "-", refused.Reason)
	}
	// end:execute

	// snippet:once
	id := jetstream.NewCommandID()
	for range 2 {
		res, err := todos.Execute(ctx, "milk", todo.Complete{}, aggregate.CommandID(id))
		fmt.Println("version", res.Version, "done before:", res.Duplicate, err)
	}
	// end:once

	// Output:
	// version 2 {Buy oat milk}
	// no-title - a to-do needs a title
	// version 3 done before: false <nil>
	// version 3 done before: true <nil>
}

func Example_views() {
	ctx := context.Background()
	nc, store, end := list(ctx)
	defer end()
	todos, err := aggregate.NewRepository(store, todo.Type, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}

	// snippet:updater
	updater, err := projection.NewUpdater(store, todo.Items, projection.UpdaterConfig{})
	if err != nil {
		log.Fatal(err)
	}
	stop := running(updater.Run) // updater.Run(ctx) follows until ctx ends
	defer stop()
	// end:updater

	// snippet:reader
	items, err := projection.NewReader[todo.Item](ctx, nc, "todo", "todos", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	// end:reader

	if _, err := todos.Create(ctx, "milk", todo.Add{Title: "Buy milk"}); err != nil {
		log.Fatal(err)
	}
	// snippet:get
	res, err := todos.Execute(ctx, "milk", todo.Complete{})
	if err != nil {
		log.Fatal(err)
	}
	item, err := items.Get(ctx, "milk", projection.AtLeast(res.Position))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(item.Key, item.Value.Title, item.Value.Done)
	// end:get

	// snippet:find
	for item, err := range items.Find(ctx, "done", projection.FindOptions{Value: "yes", Limit: 20}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(item.Key, "is done")
	}
	// end:find

	// snippet:watch
	for change, err := range items.Watch(ctx, projection.WatchOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(change.Kind, change.Entry.Key)
		if change.Kind == projection.Ready {
			break // a program goes on: changes come as they happen
		}
	}
	// end:watch

	// snippet:version
	next := todo.Items.Version(2)
	// end:version
	if next.Err() != nil {
		log.Fatal(next.Err())
	}

	// Output:
	// milk Buy milk true
	// milk is done
	// put milk
	// ready
}

func Example_gateway() {
	ctx := context.Background()
	_, store, end := list(ctx)
	defer end()
	orders, err := aggregate.NewRepository(store, shop.Orders, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	service, err := aggregate.NewService(orders, aggregate.ServiceConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer running(service.Run)()
	called := make(chan string, 1)
	carrier := func(_ context.Context, _ string, parcel shop.Packed) (string, error) {
		called <- parcel.Customer
		return "T1", nil
	}

	// snippet:gateway
	parcels, err := gateway.New(store, "carrier", gateway.Config{
		Start:  jetstream.FromBeginning(),
		Limits: gateway.Limits{Rate: 50, Concurrency: 4}, // what the carrier can take
	}, shop.Deliver(carrier))
	if err != nil {
		log.Fatal(err)
	}
	stop := running(parcels.Run) // parcels.Run(ctx) delivers until ctx ends
	defer stop()
	// end:gateway

	if _, err := orders.Create(ctx, "o1", shop.Place{Customer: "ann", Pieces: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := orders.Execute(ctx, "o1", shop.Pack{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("a parcel for", <-called)
	// Output: a parcel for ann
}
