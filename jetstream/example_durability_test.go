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

func ExampleStore_Durability() {
	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()

	// A plain client is not told how a server syncs its disk, so this fails closed.
	_, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "bank", RequireDurability: jetstream.DurabilityFsynced})
	if refused, ok := errors.AsType[*jetstream.DurabilityError](err); ok {
		fmt.Println("refused: it is", refused.Report.AtLeast, "at least")
	}

	// In production: Monitoring: []string{"http://n1:8222", "http://n2:8222", …}.
	sources := jetstream.DurabilitySources{Known: map[string]jetstream.Fsync{nc.ConnectedServerName(): jetstream.FsyncAlways}}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{
		Name: "bank", RequireDurability: jetstream.DurabilityFsynced, DurabilitySources: sources,
	})
	if err != nil {
		log.Fatal(err)
	}
	report, err := store.Durability(ctx, sources)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Level, report.InSync, "of", report.Replicas)
	// Output:
	// refused: it is single-lazy at least
	// fsynced 1 of 1
}
