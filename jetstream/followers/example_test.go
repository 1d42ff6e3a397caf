package followers_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/jetstream/followers"
)

type Ordered struct{ Title string }

// What waits for a person: seen, and tried again.
func ExampleNew() {
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bookshop"})
	if err != nil {
		log.Fatal(err)
	}
	books := jetstream.NewSchema("book", jetstream.Event[Ordered]("ordered"))
	printed := make(chan string, 1)
	attempts := 0
	press, err := gateway.New(store, "press", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
	}, gateway.On(books, func(_ context.Context, e Ordered, _ gateway.Delivery) error {
		if attempts++; attempts == 1 {
			return gateway.Permanent(errors.New("out of paper"))
		}
		printed <- e.Title
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- press.Run(ctx) }()
	data, err := books.Encode(Ordered{Title: "Walden"}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.Append(ctx, jetstream.Write{
		Type: "book", ID: "b1", Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	}); err != nil {
		log.Fatal(err)
	}

	admin := followers.New(store) // in any process
	var parked []followers.Group
	for len(parked) == 0 {
		parked, err = admin.Parked(ctx, "press")
		if err != nil && !errors.Is(err, followers.ErrNeverRan) { // it begins in its own time
			log.Fatal(err)
		}
	}
	fmt.Println(len(parked[0].Lanes), "waits")
	n, err := admin.Retry(ctx, "press", followers.Selection{Group: parked[0].ID}, "ada")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "tried again, printed", <-printed)
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 waits
	// 1 tried again, printed Walden
}
