package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// exampleStore is a store on a server of its own, which stop ends.
func exampleStore() (store *jetstream.Store, stop func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := jetstream.Connect(context.Background(), jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	store, err = jetstream.Open(context.Background(), nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	return store, func() { nc.Close(); _ = srv.Stop() }
}

// decided is a decision with one event.
func decided(name string) []jetstream.Decision {
	return []jetstream.Decision{{Events: []jetstream.EventData{{Name: name, Data: []byte{0x80}}}}}
}

// A writer that has not loaded the aggregate says what it expects.
func ExampleExpectation() {
	ctx := context.Background()
	store, stop := exampleStore()
	defer stop()

	open := jetstream.Write{Type: "account", ID: "a1", Expect: jetstream.NoStream(), Decisions: decided("opened")}
	head, err := store.Append(ctx, open)
	fmt.Println("version", head.Version, err)

	_, err = store.Append(ctx, open)
	var conflict *jetstream.ConflictError
	fmt.Println("opened twice:", errors.As(err, &conflict), "– it has version", conflict.Version)

	head, err = store.Append(ctx, jetstream.Write{
		Type: "account", ID: "a1", Expect: jetstream.Exists(), Decisions: decided("noted"),
	})
	fmt.Println("version", head.Version, err)

	// What was seen at version 1 is no longer so; whatever there is, is fine.
	note := jetstream.Write{Type: "account", ID: "a1", Expect: jetstream.AtVersion(1), Decisions: decided("noted")}
	_, err = store.Append(ctx, note)
	fmt.Println("version 1:", errors.As(err, &conflict))
	note.Expect = jetstream.Any()
	head, err = store.Append(ctx, note)
	fmt.Println("version", head.Version, err)
	// Output:
	// version 1 <nil>
	// opened twice: true – it has version 1
	// version 2 <nil>
	// version 1: true
	// version 3 <nil>
}

// Money moves from one account to another: both commits are stored, or none.
func ExampleStore_AppendAll() {
	ctx := context.Background()
	store, stop := exampleStore()
	defer stop()

	heads, err := store.AppendAll(ctx,
		jetstream.Write{Type: "account", ID: "a1", Decisions: decided("opened")},
		jetstream.Write{Type: "account", ID: "a2", Decisions: decided("opened")},
	)
	if err != nil {
		log.Fatal(err)
	}
	heads, err = store.AppendAll(ctx,
		jetstream.Write{Type: "account", ID: "a1", After: heads[0], Decisions: decided("debited")},
		jetstream.Write{Type: "account", ID: "a2", After: heads[1], Decisions: decided("credited")},
	)
	fmt.Println(heads[0].Version, heads[1].Version, err)

	// Somebody wrote to a1 since it was last loaded: nothing is stored.
	_, err = store.AppendAll(ctx,
		jetstream.Write{Type: "account", ID: "a2", After: heads[1], Decisions: decided("debited")},
		jetstream.Write{Type: "account", ID: "a1", Decisions: decided("credited")},
	)
	var conflict *jetstream.ConflictError
	fmt.Println(errors.As(err, &conflict), conflict.ID)
	// Output:
	// 2 2 <nil>
	// true a1
}

// An e-mail address that only one customer may have.
func ExampleKey() {
	ctx := context.Background()
	store, stop := exampleStore()
	defer stop()

	email := []jetstream.Key{{Name: "email", Value: "ann@example.org"}}
	ann, err := store.Append(ctx, jetstream.Write{
		Type: "customer", ID: "c1", Decisions: decided("registered"), Reserve: email,
	})
	fmt.Println("c1:", err)

	other := jetstream.Write{Type: "customer", ID: "c2", Decisions: decided("registered"), Reserve: email}
	_, err = store.Append(ctx, other)
	fmt.Println("c2:", err)

	_, err = store.Append(ctx, jetstream.Write{
		Type: "customer", ID: "c1", After: ann, Decisions: decided("moved-out"), Release: email,
	})
	fmt.Println("c1:", err)
	_, err = store.Append(ctx, other)
	fmt.Println("c2:", err)
	owner, err := store.Owner(ctx, email[0])
	fmt.Println(owner.Type, owner.ID, err)
	// Output:
	// c1: <nil>
	// c2: customer "c2": key "email": its value is taken by customer "c1"
	// c1: <nil>
	// c2: <nil>
	// customer c2 <nil>
}

// An append whose outcome is unknown is not one that failed.
func ExampleStore_Settle() {
	store, stop := exampleStore()
	defer stop()

	transfer := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := store.Append(ctx, jetstream.Write{Type: "account", ID: "a1", Decisions: decided("debited")})
		var unknown *jetstream.UnknownError
		if !errors.As(err, &unknown) {
			return err
		}
		// It may be stored, or be stored yet. Go on for as long as this process
		// can wait …
		ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err = store.Settle(ctx, unknown)
		if !errors.As(err, &unknown) {
			return err // stored, or a conflict: load and decide again
		}
		// … or make sure that it will not happen behind our back.
		_, err = store.Abandon(context.Background(), unknown)
		return err
	}
	fmt.Println(transfer())
	// Output: <nil>
}
