package projection_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

// bank starts a server and a store with two accounts, and runs an updater.
func bank(def projection.AnyDefinition) (nc *nats.Conn, last jetstream.Position, end func()) {
	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err = nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	heads := map[string]jetstream.Head{}
	add := func(id string, event any) {
		data, err := accountEvents.Encode(event, store.Codec())
		if err != nil {
			log.Fatal(err)
		}
		heads[id], err = store.Append(ctx, jetstream.Write{
			Type: "account", ID: id, After: heads[id],
			Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
		})
		if err != nil {
			log.Fatal(err)
		}
		last = store.Position(heads[id].Sequence)
	}
	add("a1", opened{Owner: "ann"})
	add("a2", opened{Owner: "bob"})
	add("a1", credited{Cents: 70})
	add("a2", credited{Cents: 5})
	up, err := projection.NewUpdater(store, def, projection.UpdaterConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()
	// Programs need not wait: this is for examples on a machine that stands still now and then.
	for up.Status().Position != last {
		<-time.After(time.Millisecond)
	}
	return nc, last, func() {
		cancel()
		if err := <-done; err != nil {
			log.Fatal(err)
		}
		nc.Close()
		if err := srv.Stop(); err != nil {
			log.Fatal(err)
		}
	}
}

// A keyed view: what each account holds.
func ExampleNewKeyed() {
	type balance struct {
		Owner string `json:"owner"`
		Cents int64  `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e opened, _ jetstream.Meta) { b.Owner = e.Owner }),
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	)
	nc, last, end := bank(balances)
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	entry, err := reader.Get(ctx, "a1", projection.AtLeast(last))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry.Value.Owner, entry.Value.Cents)
	// Output: ann 70
}

// A fold that deletes: a closed account is in no view.
func ExampleOnRow() {
	type balance struct {
		Cents int64 `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
		projection.OnRow(accountEvents, func(row *projection.Row[balance], _ closed, _ jetstream.Meta) error {
			row.Delete()
			return nil
		}),
		projection.OnRow(accountEvents, func(row *projection.Row[balance], e opened, _ jetstream.Meta) error {
			if e.Owner == "" {
				return fmt.Errorf("account %q has no owner", row.Key) // stops the view: see UpdaterConfig.OnError
			}
			return nil
		}),
	)
	nc, last, end := bank(balances)
	defer end()
	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	entry, err := reader.Get(ctx, "a1", projection.AtLeast(last))
	fmt.Println(entry.Value.Cents, err)
	// Output: 70 <nil>
}

// How a view is, asked from anywhere.
func ExampleReadStatus() {
	type balance struct {
		Cents int64 `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	)
	nc, last, end := bank(balances)
	defer end()
	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := reader.Position(ctx, projection.AtLeast(last)); err != nil { // waits for the view
		log.Fatal(err)
	}
	status, err := projection.ReadStatus(ctx, nc, "bank", "balances")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.State, "caught up:", status.CaughtUp(), "lag:", status.Lag)
	// Output: running caught up: true lag: 0
}

// A lookup view: the fold looks for what an event does not name.
func ExampleNewLookup() {
	type richest struct {
		Account string `json:"account"`
		Cents   int64  `json:"cents"`
	}
	top := projection.NewLookup("top",
		projection.OnTx(accountEvents, func(tx *projection.Tx[richest], e credited, m jetstream.Meta) error {
			if best, _ := tx.Get("top"); e.Cents > best.Cents {
				tx.Put("top", richest{Account: m.ID, Cents: e.Cents})
			}
			return nil
		}),
	)
	nc, last, end := bank(top)
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[richest](ctx, nc, "bank", "top", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for entry, err := range reader.List(ctx, projection.ListOptions{AtLeast: last}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, entry.Value)
	}
	// Output: top {a1 70}
}

// Look after a view: how it is, its keys mended, built anew.
func ExampleAdmin() {
	type balance struct {
		Cents int64 `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	)
	nc, last, end := bank(balances)
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := reader.Position(ctx, projection.AtLeast(last)); err != nil {
		log.Fatal(err)
	}
	admin, err := projection.NewAdmin(nc, "bank", "balances")
	if err != nil {
		log.Fatal(err)
	}
	status, err := admin.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.State, status.Lag)

	// Somebody wrote into the bucket.
	if _, err := nc.Request("$KV.bank_balances.1.a1", []byte(`{"cents":1000000}`), time.Minute); err != nil {
		log.Fatal(err)
	}
	done, err := admin.RebuildAggregate(ctx, "account", "a1", "written by hand")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(done.Keys, done.Changed)

	// Or all of it, beside the one that is read.
	number, err := admin.Rebuild(ctx, projection.RebuildOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := admin.Switch(ctx, number); err != nil {
		log.Fatal(err)
	}
	entry, err := reader.Get(ctx, "a1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry.Value.Cents, entry.Generation)
	if err := admin.Remove(ctx, 1); err != nil {
		log.Fatal(err)
	}
	// Output:
	// running 0
	// 1 1
	// 70 2
}

// Questions over NATS, from a program that may not read the bucket.
func ExampleNewQueryService() {
	type balance struct {
		Cents int64 `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	)
	nc, last, end := bank(balances)
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	service, err := projection.NewQueryService(nc, projection.QueryConfig{}, reader)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = service.Stop() }()

	client := projection.NewQueryClient[balance](nc, "bank", "balances")
	for entry, err := range client.List(ctx, projection.ListOptions{AtLeast: last}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, entry.Value.Cents)
	}
	// Unordered output:
	// a1 70
	// a2 5
}

// A view that is also found by owner, and by what is on the account: the richest
// first.
func ExampleDefinition_Index() {
	type balance struct {
		Owner string `json:"owner"`
		Cents int64  `json:"cents"`
	}
	balances := projection.NewKeyed("balances",
		projection.On(accountEvents, func(b *balance, e opened, _ jetstream.Meta) { b.Owner = e.Owner }),
		projection.On(accountEvents, func(b *balance, e credited, _ jetstream.Meta) { b.Cents += e.Cents }),
	).
		Index("owner", func(b balance) []string { return []string{b.Owner} }).
		Index("cents", func(b balance) []string { return []string{projection.IntValue(b.Cents)} })
	nc, last, end := bank(balances)
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for entry, err := range reader.Find(ctx, "owner", projection.FindOptions{Value: "ann", AtLeast: last}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("ann owns", entry.Key)
	}
	for entry, err := range reader.Find(ctx, "cents", projection.FindOptions{Reverse: true, Limit: 2}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, entry.Value.Cents)
	}
	// Output:
	// ann owns a1
	// a1 70
	// a2 5
}
