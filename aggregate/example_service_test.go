package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// A service answers commands over NATS, and a client sends them: from another
// process, most of the time. The errors are those of the repository.
func ExampleNewService() {
	ctx, cancel := context.WithCancel(context.Background())
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()

	client, err := aggregate.NewClient(store.Conn(), "library", shelves, aggregate.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	res, err := client.Create(ctx, "s1", Place{Book: "Walden"}) // waits until the service listens
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("version", res.Version)
	_, err = client.Execute(ctx, "s1", Lend{Book: "Emma", To: "Ada"})
	fmt.Println("rejected:", errors.Is(err, aggregate.ErrRejected))

	cancel() // what was taken is answered
	fmt.Println(<-done)
	// Output:
	// version 1
	// rejected: true
	// <nil>
}

// How far a reactor is, asked from anywhere.
func ExampleReadStatus() {
	ctx, cancel := context.WithCancel(context.Background())
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	handled := make(chan string, 1)
	reactor, err := aggregate.NewReactor(store, "notices", aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
	}, aggregate.On(shelfEvents, func(_ context.Context, e Placed, _ jetstream.Meta, _ *aggregate.Do) error {
		handled <- e.Book
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	_, err = aggregate.ReadStatus(ctx, store, "notices")
	fmt.Println("never ran:", errors.Is(err, aggregate.ErrNeverRan))

	done := make(chan error, 1)
	go func() { done <- reactor.Run(ctx) }()
	if _, err := repo.Create(ctx, "s1", Place{Book: "Walden"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("handled:", <-handled)
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	status, err := aggregate.ReadStatus(context.Background(), store, "notices")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("waits:", len(status.Blocked), "last error:", status.LastError)
	// Output:
	// never ran: true
	// handled: Walden
	// waits: 0 last error: <nil>
}
