package saga_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// A trip is a seat that is taken and a card that is charged: both, or neither.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := nats.Connect("", srv.Option(), nats.Timeout(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "travel"})
	if err != nil {
		log.Fatal(err)
	}
	trains, err := aggregate.NewRepository(store, seats, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	wallets, err := aggregate.NewRepository(store, cards, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}

	type Trip struct{ Train, Card string }
	trips := saga.New("trip",
		saga.Step[Trip]{
			Name: "seat", Timeout: time.Minute,
			Do:   func(i saga.Instance[Trip]) saga.Command { return saga.Send(trains, i.Data.Train, Take{By: i.ID}) },
			Undo: func(i saga.Instance[Trip]) saga.Command { return saga.Send(trains, i.Data.Train, Give{By: i.ID}) },
		},
		saga.Step[Trip]{
			Name: "charge",
			Do:   func(i saga.Instance[Trip]) saga.Command { return saga.Send(wallets, i.Data.Card, Take{By: i.ID}) },
		},
	)
	process, err := saga.NewProcess(ctx, store, trips, saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler)},
		Timers:  aggregate.TimersConfig{Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		log.Fatal(err)
	}
	running := make(chan error, 1)
	go func() { running <- process.Run(ctx) }()

	// One seat, and a card without money.
	if _, err := trains.Create(ctx, "express", Open{Amount: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := wallets.Create(ctx, "broke", Open{Amount: 0}); err != nil {
		log.Fatal(err)
	}
	if _, err := process.Start(ctx, "t1", Trip{Train: "express", Card: "broke"}); err != nil {
		log.Fatal(err)
	}
	for phase := saga.Running; !phase.Ended(); {
		trip, err := process.Instances().Load(ctx, "t1")
		if err != nil {
			log.Fatal(err)
		}
		phase = trip.State.Phase
	}
	for event, err := range process.Instances().History(ctx, "t1") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %+v\n", event.Name, event.Event)
	}
	cancel()
	if err := <-running; err != nil {
		log.Fatal(err)
	}
	// Output:
	// started {Data:{Train:express Card:broke}}
	// begun {Step:seat}
	// done {Step:seat}
	// begun {Step:charge}
	// failed {Failure:{Step:charge Code:sold-out Reason:nothing is left}}
	// undoing {Step:seat}
	// undone {Step:seat By:}
	// compensated {Failure:{Step:charge Code:sold-out Reason:nothing is left}}
}
