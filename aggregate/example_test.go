package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// The events of a shelf in a library.
type (
	Placed struct{ Book string }
	Lent   struct{ Book, To string }
)

var shelfEvents = jetstream.NewSchema("shelf",
	jetstream.Event[Placed]("placed"),
	jetstream.Event[Lent]("lent"),
)

// Shelf is the state that its commands decide upon.
type Shelf struct{ Books map[string]bool }

// The commands.
type (
	Place struct{ Book string }
	Lend  struct{ Book, To string }
)

var shelves = aggregate.New[Shelf](shelfEvents,
	aggregate.Apply(func(s *Shelf, e Placed, _ jetstream.Meta) { s.Books = map[string]bool{e.Book: true} }),
	aggregate.Apply(func(s *Shelf, e Lent, _ jetstream.Meta) { delete(s.Books, e.Book) }),
	aggregate.Create("place", func(c Place, _ aggregate.Decision) ([]any, error) {
		return []any{Placed(c)}, nil
	}),
	aggregate.Handle("lend", func(s Shelf, c Lend, _ aggregate.Decision) ([]any, error) {
		if !s.Books[c.Book] {
			return nil, aggregate.Reject("not-here", "%q is not on the shelf", c.Book)
		}
		return []any{Lent(c)}, nil
	}),
)

// library opens a store on a server in this process. Programs use
// jetstream.Connect.
func library(ctx context.Context) (*jetstream.Store, func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1), nats.Timeout(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "library"})
	if err != nil {
		log.Fatal(err)
	}
	return store, func() {
		nc.Close()
		if err := srv.Stop(); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
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

	// Sent twice, done once.
	id := jetstream.NewCommandID()
	for range 2 {
		res, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "Ada"}, aggregate.CommandID(id))
		fmt.Printf("version %d, %+v, duplicate: %t, %v\n", res.Version, res.Events[0].Event, res.Duplicate, err)
	}

	_, err = repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "Bob"})
	if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		fmt.Println(rejected.Code, "-", rejected.Reason)
	}
	// Output:
	// version 2, {Book:Walden To:Ada}, duplicate: false, <nil>
	// version 2, {Book:Walden To:Ada}, duplicate: true, <nil>
	// not-here - "Walden" is not on the shelf
}

// What was refused becomes an event.
func ExampleIntercept() {
	ctx := context.Background()
	store, stop := library(ctx)
	defer stop()

	missing := aggregate.Intercept(func(_ Shelf, i aggregate.Interception) ([]any, error) {
		if lend, ok := i.Command.(Lend); ok && errors.Is(i.Err, aggregate.ErrRejected) {
			return []any{Placed{Book: lend.Book}}, nil // a copy is bought
		}
		return i.Events, i.Err
	})
	repo, err := aggregate.NewRepository(store, shelves, aggregate.RepositoryConfig{
		Interceptors: []aggregate.Interceptor{missing},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Create(ctx, "s1", Place{Book: "Walden"}); err != nil {
		log.Fatal(err)
	}
	res, err := repo.Execute(ctx, "s1", Lend{Book: "Emma", To: "Ada"})
	fmt.Printf("%T%v %v\n", res.Events[0].Event, res.Events[0].Event, err)
	// Output:
	// aggregate_test.Placed{Emma} <nil>
}
