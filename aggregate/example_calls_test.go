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

// A command that depends on what its sender has seen.
func ExampleExpectVersion() {
	ctx := context.Background()
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Create(ctx, "s1", Place{Book: "Walden"}); err != nil {
		log.Fatal(err)
	}
	shelf, err := repo.Load(ctx, "s1")
	if err != nil {
		log.Fatal(err)
	}
	for _, reader := range []string{"Ada", "Bob"} { // both saw the same shelf
		_, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: reader}, aggregate.ExpectVersion(shelf.Version))
		other, is := errors.AsType[*aggregate.VersionError](err)
		fmt.Println(reader, err == nil)
		if is {
			fmt.Println("it is at version", other.Actual)
		}
	}
	// Output:
	// Ada true
	// Bob false
	// it is at version 2
}

// What is not the decision's own – who asked, in which session – is stored beside the
// events.
func ExampleMetadata() {
	ctx := context.Background()
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	_, err = repo.Create(ctx, "s1", Place{Book: "Walden"},
		aggregate.Metadata(map[string]string{"by": "ada"}), aggregate.Correlation("spring-order"))
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range repo.History(ctx, "s1") {
		fmt.Println(e.Name, e.Metadata["by"], e.Correlation, err)
	}
	// Output: placed ada spring-order <nil>
}

// An effect that depends on the state of what it changes. It is computed again when
// somebody else came first.
func ExampleUpdateFunc() {
	ctx, cancel := context.WithCancel(context.Background())
	store, stop := library(ctx)
	defer stop()
	readers, err := aggregate.NewRepository(store, cards, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan aggregate.Result, 1)
	reactor, err := aggregate.NewReactor(store, "first-loans", aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
	}, aggregate.On(shelfEvents, func(ctx context.Context, e Lent, _ jetstream.Meta, do *aggregate.Do) error {
		res, err := aggregate.UpdateFunc(ctx, do, readers, e.To, func(c Card, _ aggregate.Decision) (any, error) {
			if c.Books > 0 {
				return nil, nil //nolint:nilnil // nothing to do, and that is recorded
			}
			return Count{Book: e.Book}, nil
		})
		if err == nil {
			done <- res
		}
		return err
	}))
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- reactor.Run(ctx) }()

	if _, err := readers.Create(ctx, "ada", Count{Book: "Emma"}); err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Create(ctx, "s1", Place{Book: "Walden"}); err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "ada"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("events:", len((<-done).Events))
	cancel()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output: events: 0
}
