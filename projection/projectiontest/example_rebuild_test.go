package projectiontest_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

// A view that is built anew is the one that is there.
func ExampleRebuild() {
	t := printer{} // in a test: t *testing.T

	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	data, err := events.Encode(Opened{Owner: "ann"}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.Append(ctx, jetstream.Write{
		Type: "account", ID: "a1", Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	}); err != nil {
		log.Fatal(err)
	}
	projectiontest.Rebuild(t, store, accounts())
	fmt.Println("no differences")
	nc.Close()
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
	// Output: no differences
}
