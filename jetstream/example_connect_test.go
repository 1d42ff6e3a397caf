package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// A connection that is fit for appends. Without an address it finds NATS as the nats
// command does.
func ExampleConnect() {
	srv, err := embedded.Start(embedded.Config{Listen: "127.0.0.1:0", LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()

	ctx := context.Background()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: srv.URL(), Name: "accounts"})
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()

	// Attach opens what others have made; Open makes it.
	_, err = jetstream.Attach(ctx, nc, "bank")
	fmt.Println("not there:", errors.Is(err, jetstream.ErrStoreNotFound))
	if _, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"}); err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Attach(ctx, nc, "bank")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("attached to", store.Name())
	// Output:
	// not there: true
	// attached to bank
}
