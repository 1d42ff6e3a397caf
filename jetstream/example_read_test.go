package jetstream_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// bank opens a store with an account of four deposits, in a server of its own.
func bank(ctx context.Context) (*jetstream.Store, func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	events := jetstream.NewSchema("account", jetstream.Event[Deposited]("deposited"))
	var head jetstream.Head
	for cents := range 4 {
		data, err := events.Encode(Deposited{Cents: int64(cents)}, store.Codec())
		if err != nil {
			log.Fatal(err)
		}
		head, err = store.Append(ctx, jetstream.Write{
			Type: "account", ID: "a1", After: head,
			Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	return store, func() {
		nc.Close()
		_ = srv.Stop()
	}
}

func ExampleStore_History() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	// What became of the account after its version 1, the newest first.
	for commit, err := range store.History(ctx, "account", "a1", jetstream.Range{AfterVersion: 1, Backwards: true}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(commit.Version, commit.EventNames)
	}
	// Output:
	// 4 [deposited]
	// 3 [deposited]
	// 2 [deposited]
}

func ExampleStore_History_asOf() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	last, err := store.Last(ctx, "account", "a1", jetstream.Leader)
	if err != nil {
		log.Fatal(err)
	}
	// The last commit as of a moment is the first one of a history that is read
	// backwards from there.
	for commit, err := range store.History(ctx, "account", "a1", jetstream.Range{AsOf: last.Time.Add(-1), Backwards: true}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("version", commit.Version)
		break
	}
	// Output: version 3
}

func ExampleStore_Scan() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	// A position that a program kept, such as that of the last commit it has seen.
	position := store.Position(3)
	after, err := store.Sequence(position)
	if err != nil {
		log.Fatal(err)
	}
	for commit, err := range store.Scan(ctx, "account", jetstream.Range{After: after, Events: []string{"deposited"}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(commit.Type, commit.ID, commit.Version)
	}
	// Output:
	// account a1 3
	// account a1 4
}

func ExampleStore_Verify() {
	ctx := context.Background()
	store, stop := bank(ctx)
	defer stop()
	// Somebody who may publish to the stream does so, past Rossby.
	subject, err := store.Subject("account", "a1")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.Conn().Request(subject, []byte("by hand"), time.Minute); err != nil {
		log.Fatal(err)
	}
	var report jetstream.Verified
	verification := jetstream.Verification{Progress: func(v jetstream.Verified) { report = v }}
	for damage, err := range store.Verify(ctx, verification) {
		if err != nil {
			log.Fatal(err) // The rest of the store was not looked at.
		}
		fmt.Println(damage)
	}
	fmt.Println(report.Commits, "commits,", report.Findings, "finding")
	// Output:
	// damaged store (unreadable): message 6 on "bank.event.account.39.a1": format version "": this program reads version 1
	// 4 commits, 1 finding
}
