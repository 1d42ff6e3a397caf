package jetstream_test

import (
	"context"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

func ExamplePlanMigration() {
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
	if _, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"}); err != nil {
		log.Fatal(err)
	}

	// Somebody lets the oldest events go when there are many.
	js, err := natsjs.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := js.Stream(ctx, "bank")
	if err != nil {
		log.Fatal(err)
	}
	edited := stream.CachedInfo().Config
	edited.MaxMsgs, edited.Discard = 1_000_000, natsjs.DiscardOld
	if _, err := js.UpdateStream(ctx, edited); err != nil {
		log.Fatal(err)
	}
	_, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	fmt.Println(err)

	plan, err := jetstream.PlanMigration(ctx, nc, jetstream.Config{Name: "bank", MaxConsumers: 20_000})
	if err != nil {
		log.Fatal(err)
	}
	for _, change := range plan.Changes {
		fmt.Println(change.Field, "from", change.From, "to", change.To)
	}
	if err := plan.Apply(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	fmt.Println("opens:", err == nil)
	// Output:
	// store "bank": discard is DiscardOld, not DiscardNew: correct it with jetstream.PlanMigration, or with `nats stream edit`
	// store "bank": max_msgs is 1000000, not -1: correct it with jetstream.PlanMigration, or with `nats stream edit`
	// discard from DiscardOld to DiscardNew
	// max_msgs from 1000000 to -1
	// max_consumers from 10000 to 20000
	// opens: true
}
