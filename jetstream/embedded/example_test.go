package embedded_test

import (
	"context"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// A server for a test or a demo, without a port: ready in milliseconds, and gone with
// its data when it is stopped.
func ExampleStart() {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := jetstream.Connect(context.Background(), jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(context.Background(), nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Name(), "is open")
	nc.Close()
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
	// Output: bank is open
}
