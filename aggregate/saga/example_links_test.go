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

// A saga that an event starts, with a step that another event ends: who takes a seat
// has it locked until it is confirmed.
func ExampleReportOn() {
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

	type Trip struct{ Train string }
	trips := saga.New("trip", saga.Step[Trip]{
		Name:  "confirm",
		Do:    func(i saga.Instance[Trip]) saga.Command { return saga.Send(trains, i.Data.Train, Lock{}) },
		Await: true,
	})
	process, err := saga.NewProcess(ctx, store, trips, saga.ProcessConfig{
		Links: []saga.Link{
			saga.StartOn(seats.Schema(), func(e Taken, m jetstream.Meta) (string, Trip) { return e.By, Trip{Train: m.ID} }),
			saga.ReportOn(seats.Schema(), func(e Confirmed, _ jetstream.Meta) saga.Report {
				return saga.Report{Instance: e.Order, Step: "confirm", Code: e.Code}
			}),
		},
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler)},
		Timers:  aggregate.TimersConfig{Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		log.Fatal(err)
	}
	running := make(chan error, 1)
	go func() { running <- process.Run(ctx) }()

	if _, err := trains.Create(ctx, "express", Open{Amount: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := trains.Execute(ctx, "express", Take{By: "t1"}); err != nil {
		log.Fatal(err)
	}
	until(ctx, process.Instances(), "t1", "accepted") // it waits now
	if _, err := trains.Execute(ctx, "express", Confirm{Order: "t1"}); err != nil {
		log.Fatal(err)
	}
	until(ctx, process.Instances(), "t1", "completed")
	fmt.Println("completed")
	cancel()
	if err := <-running; err != nil {
		log.Fatal(err)
	}
	// Output:
	// completed
}

// until waits until something has happened to an instance.
func until[D any](ctx context.Context, instances *aggregate.Repository[saga.State[D]], id, event string) {
	for {
		for e, err := range instances.History(ctx, id) {
			if err == nil && e.Name == event {
				return
			}
		}
	}
}
