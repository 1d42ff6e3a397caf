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

// Readers' cards count the books that were lent to them.
type (
	Counted struct{ Book string }
	Card    struct{ Books int }
	Count   struct{ Book string }
)

var cards = aggregate.New[Card](jetstream.NewSchema("card", jetstream.Event[Counted]("counted")),
	aggregate.Apply(func(c *Card, _ Counted, _ jetstream.Meta) { c.Books++ }),
	aggregate.Create("count", func(c Count, _ aggregate.Decision) ([]any, error) { return []any{Counted(c)}, nil }),
)

// A reactor commands aggregates when something happened to others. However often
// its handler runs for an event, the effect happens once.
func ExampleReactor() {
	ctx, cancel := context.WithCancel(context.Background())
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	readers, err := aggregate.NewRepository(store, cards, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}

	counted := make(chan aggregate.Result)
	attempts := 0
	reactor, err := aggregate.NewReactor(store, "cards", aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
	}, aggregate.On(shelfEvents, func(ctx context.Context, e Lent, _ jetstream.Meta, do *aggregate.Do) error {
		res, err := do.Create(ctx, readers, e.To, Count{Book: e.Book})
		if err != nil {
			return err
		}
		if attempts++; attempts == 1 {
			return errors.New("crashed after the effect")
		}
		counted <- res
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- reactor.Run(ctx) }()

	if _, err := repo.Create(ctx, "s1", Place{Book: "Walden"}); err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "ada"}); err != nil {
		log.Fatal(err)
	}
	res := <-counted
	fmt.Printf("attempt %d: version %d, duplicate: %t\n", attempts, res.Version, res.Duplicate)

	cancel()
	fmt.Println(<-done)
	// Output:
	// attempt 2: version 1, duplicate: true
	// <nil>
}
