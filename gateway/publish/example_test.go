package publish_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/publish"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

type Sold struct {
	Title string `json:"title"`
}

// Events for others, who know nothing of the store: CloudEvents on a subject.
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
	partner, err := nc.SubscribeSync("partner.>")
	if err != nil {
		log.Fatal(err)
	}

	// The connection may be one to another account or cluster.
	publisher, err := publish.New(publish.Config{
		Conn:    nc,
		Core:    true, // whoever listens; else a stream has to keep it
		Subject: func(d gateway.Delivery) string { return "partner.books." + d.ID },
	})
	if err != nil {
		log.Fatal(err)
	}
	books := jetstream.NewSchema("book", jetstream.Event[Sold]("sold"))
	gw, err := gateway.New(store, "partner", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
	}, gateway.On(books, publish.Send[Sold](publisher)))
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- gw.Run(ctx) }()

	data, err := books.Encode(Sold{Title: "Walden"}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.Append(ctx, jetstream.Write{
		Type: "book", ID: "b1", Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	}); err != nil {
		log.Fatal(err)
	}
	msg, err := partner.NextMsgWithContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(msg.Subject, msg.Header.Get("ce-type"), string(msg.Data))
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// partner.books.b1 book.sold {"title":"Walden"}
}
