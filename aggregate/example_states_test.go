package aggregate_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

func ExampleRepository_LoadAt() {
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
	if _, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "Ada"}); err != nil {
		log.Fatal(err)
	}
	for version := uint64(1); version <= 2; version++ {
		shelf, err := repo.LoadAt(ctx, "s1", version)
		fmt.Println(version, shelf.State.Books, err)
	}
	for e, err := range repo.History(ctx, "s1", aggregate.Backwards()) {
		fmt.Println(e.Version, e.Name, err)
	}
	// Output:
	// 1 map[Walden:true] <nil>
	// 2 map[] <nil>
	// 2 lent <nil>
	// 1 placed <nil>
}

// careless is the shelves' type after a change to what "lent" means, without a new
// StateVersion: the shelves that are stored keep their old states.
var careless = aggregate.New[Shelf](shelfEvents,
	aggregate.Apply(func(s *Shelf, e Placed, _ jetstream.Meta) { s.Books = map[string]bool{e.Book: true} }),
	aggregate.Apply(func(s *Shelf, e Lent, _ jetstream.Meta) { s.Books[e.Book] = false }),
	aggregate.Create("place", func(c Place, _ aggregate.Decision) ([]any, error) {
		return []any{Placed(c)}, nil
	}),
)

func ExampleRepository_Verify() {
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
	if _, err := repo.Execute(ctx, "s1", Lend{Book: "Walden", To: "Ada"}); err != nil {
		log.Fatal(err)
	}
	changed, err := aggregate.NewRepository(store, careless, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for finding, err := range changed.Verify(ctx, aggregate.VerifyConfig{}) {
		if err != nil {
			log.Fatal(err) // the rest was not looked at
		}
		fmt.Println(finding.ID, "version", finding.Version, finding.Fault)
		fmt.Println(finding.Detail)
	}
	// Output:
	// s1 version 2 differs
	// Books["Walden"] is missing, replayed false
}
