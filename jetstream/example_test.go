package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// Opened and Deposited are a domain's events. Their package holds no commands.
type (
	Opened struct {
		Owner string `json:"owner"`
	}
	Deposited struct {
		Cents int64 `json:"cents"`
	}
)

func Example() {
	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()

	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	events := jetstream.NewSchema("account",
		jetstream.Event[Opened]("opened"),
		jetstream.Event[Deposited]("deposited"),
	)

	var head jetstream.Head // An aggregate without commits.
	for _, event := range []any{Opened{Owner: "Ann"}, Deposited{Cents: 500}} {
		data, err := events.Encode(event, store.Codec())
		if err != nil {
			log.Fatal(err)
		}
		head, err = store.Append(ctx, jetstream.Write{
			Type: "account", ID: "a1", After: head,
			Decisions: []jetstream.Decision{{CommandID: jetstream.NewCommandID(), Events: []jetstream.EventData{data}}},
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	decoder, err := jetstream.NewDecoder(jetstream.StopOnUnknown, events)
	if err != nil {
		log.Fatal(err)
	}
	for commit, err := range store.History(ctx, "account", "a1", jetstream.Range{}) {
		if err != nil {
			log.Fatal(err)
		}
		recorded, err := decoder.Events(store, commit)
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range recorded {
			fmt.Printf("version %d: %s %+v\n", e.Version, e.Name, e.Event)
		}
	}

	// A writer that has not seen the last commit does not get past it.
	data, err := events.Encode(Deposited{Cents: 1}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	_, err = store.Append(ctx, jetstream.Write{
		Type: "account", ID: "a1",
		Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
	})
	var conflict *jetstream.ConflictError
	fmt.Println("conflict:", errors.As(err, &conflict))
	// Output:
	// version 1: opened {Owner:Ann}
	// version 2: deposited {Cents:500}
	// conflict: true
}

func ExampleUpcast() {
	type depositedV1 struct {
		Euros int64 `json:"euros"`
	}
	events := jetstream.NewSchema("account",
		jetstream.Event[Deposited]("deposited", jetstream.Version(2),
			jetstream.Upcast(func(old depositedV1) Deposited { return Deposited{Cents: old.Euros * 100} }),
		),
		jetstream.Renamed("paid-in", "deposited"),
	)
	stored := jetstream.EventData{Name: "paid-in", Version: 1, Codec: jetstream.JSON, Data: []byte(`{"euros":5}`)}
	current, err := events.Decode(stored)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", current[0])
	// Output: {Cents:500}
}

func ExamplePosition() {
	// A position travels as text, through replies, URLs and JSON.
	p, err := jetstream.ParsePosition("k3q5x7wzabcde-2s")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p, p.IsZero())
	_, err = jetstream.ParsePosition("17")
	fmt.Println(err)
	// Output:
	// k3q5x7wzabcde-2s false
	// position "17" is not a position that Rossby gave out
}
