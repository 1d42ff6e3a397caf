package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Balance is what the examples' view holds of an account.
type Balance struct {
	Owner string `json:"owner"`
	Cents int64  `json:"cents"`
}

// openBalances runs the view on a server in this process, and opens it.
func openBalances(ctx context.Context) (reader *projection.Reader[Balance], last jetstream.Position, end func()) {
	nc, last, end := bank(projection.NewKeyed("balances", //nolint:contextcheck // the bank has one of its own
		projection.On(accountEvents, func(b *Balance, e opened, _ jetstream.Meta) { b.Owner = e.Owner }),
		projection.On(accountEvents, func(b *Balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	))
	reader, err := projection.NewReader[Balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	return reader, last, end
}

// A read with the position of the caller's own command sees what it did.
func ExampleReader_Get() {
	ctx := context.Background()
	reader, last, end := openBalances(ctx)
	defer end()

	entry, err := reader.Get(ctx, "a1", projection.AtLeast(last))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry.Value.Owner, entry.Value.Cents, entry.Position == last)

	_, err = reader.Get(ctx, "a9")
	fmt.Println(errors.Is(err, projection.ErrNotFound))
	// Output:
	// ann 70 true
	// true
}

// Page by page: a token goes on where the last page ended, in any process.
func ExampleReader_List() {
	ctx := context.Background()
	reader, last, end := openBalances(ctx)
	defer end()

	token := ""
	for {
		n := 0
		for entry, err := range reader.List(ctx, projection.ListOptions{Prefix: "a", After: token, Limit: 1, AtLeast: last}) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(entry.Key, entry.Value.Cents)
			token = entry.Token()
			n++
		}
		if n == 0 {
			return
		}
	}
	// Unordered output:
	// a1 70
	// a2 5
}

// What there is, and then what changes.
func ExampleReader_Watch() {
	ctx := context.Background()
	reader, last, end := openBalances(ctx)
	defer end()
	if _, err := reader.Position(ctx, projection.AtLeast(last)); err != nil {
		log.Fatal(err)
	}

	for change, err := range reader.Watch(ctx, projection.WatchOptions{Key: "a1"}) {
		if err != nil {
			log.Fatal(err)
		}
		switch change.Kind {
		case projection.Put:
			fmt.Println(change.Entry.Key, change.Entry.Value.Cents)
		case projection.Delete:
			fmt.Println(change.Entry.Key, "is gone")
		case projection.Reset:
			fmt.Println("the view was rebuilt: all of it comes again")
		case projection.Ready:
			fmt.Println("that is what there was")
			return // a program goes on
		}
	}
	// Output:
	// a1 70
	// that is what there was
}

// A view in memory: reads cost nanoseconds, and one knows how old they are.
func ExampleNewLocalView() {
	ctx := context.Background()
	reader, last, end := openBalances(ctx)
	defer end()

	local, err := projection.NewLocalView(ctx, reader, projection.LocalConfig{MaxBytes: 16 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer local.Close()

	entry, err := local.Get(ctx, "a1", projection.AtLeast(last))
	if err != nil {
		log.Fatal(err)
	}
	status := local.Status()
	fmt.Println(entry.Value.Cents, status.Keys, status.Complete, status.Position == last)
	// Output: 70 2 true true
}
