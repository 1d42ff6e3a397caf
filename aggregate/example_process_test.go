package aggregate_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// A reader's loans are a process that several shelves' events belong to: the first
// book lent to a reader begins it, and each sets a deadline for the next.
type (
	Begun struct{ Book string }
	Added struct{ Book string }
	Ended struct{}
	Loans struct{ Books int }
	Begin struct{ Book string }
	Add   struct{ Book string }
	End   struct{}
)

var loans = aggregate.New[Loans](jetstream.NewSchema("loans",
	jetstream.Event[Begun]("begun"), jetstream.Event[Added]("added"), jetstream.Event[Ended]("ended")),
	aggregate.Apply(func(l *Loans, _ Begun, _ jetstream.Meta) { l.Books = 1 }),
	aggregate.Apply(func(l *Loans, _ Added, _ jetstream.Meta) { l.Books++ }),
	aggregate.Apply(func(l *Loans, _ Ended, _ jetstream.Meta) { l.Books = 0 }),
	aggregate.Create("begin", func(c Begin, _ aggregate.Decision) ([]any, error) { return []any{Begun(c)}, nil }),
	aggregate.Handle("add", func(_ Loans, c Add, _ aggregate.Decision) ([]any, error) { return []any{Added(c)}, nil }),
	aggregate.Handle("end", func(Loans, End, aggregate.Decision) ([]any, error) { return []any{Ended{}}, nil }),
)

// The instance that an event belongs to is found, or made; its deadline is taken
// back and set anew.
func ExampleDo_CreateOrUpdate() {
	ctx, cancel := context.WithCancel(context.Background())
	store, stop := library(ctx)
	defer stop()
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	readers, err := aggregate.NewRepository(store, loans, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	timers, err := aggregate.NewTimers(ctx, store, aggregate.TimersConfig{Logger: quiet}, readers)
	if err != nil {
		log.Fatal(err)
	}
	lent := make(chan aggregate.Result)
	reactor, err := aggregate.NewReactor(store, "loans", aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), TTL: time.Minute, Logger: quiet,
	}, aggregate.On(shelfEvents, func(ctx context.Context, e Lent, _ jetstream.Meta, do *aggregate.Do) error {
		res, err := do.CreateOrUpdate(ctx, readers, e.To, Begin{Book: e.Book}, Add{Book: e.Book})
		if err != nil {
			return err
		}
		if err := do.Cancel(ctx, readers, e.To, "return"); err != nil {
			return err
		}
		err = do.After(ctx, 30*24*time.Hour, readers, e.To, End{}, aggregate.Step("return"))
		lent <- res
		return err
	}))
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- timers.Run(ctx) }()
	go func() { ended <- reactor.Run(ctx) }()

	for _, book := range []string{"Walden", "Emma"} {
		if _, err := repo.Create(ctx, "shelf-"+book[:1], Place{Book: book}); err != nil {
			log.Fatal(err)
		}
		if _, err := repo.Execute(ctx, "shelf-"+book[:1], Lend{Book: book, To: "ada"}); err != nil {
			log.Fatal(err)
		}
		res := <-lent
		fmt.Printf("%s %s\n", res.ID, res.Events[0].Name)
	}
	cancel()
	fmt.Println(<-ended, <-ended)
	// Output:
	// ada begun
	// ada added
	// <nil> <nil>
}
