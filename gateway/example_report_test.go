package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// Guests are greeted, and what came of it is stored with them.
type (
	Arrived struct{ Name string }
	Greeted struct{ Attempts int }
	Guest   struct{}
	Arrive  struct{ Name string }
	Record  struct {
		Attempts int `json:"attempts"`
	}
)

var guestEvents = jetstream.NewSchema("guest", jetstream.Event[Arrived]("arrived"), jetstream.Event[Greeted]("greeted"))

var guests = aggregate.New[Guest](guestEvents,
	aggregate.Ignore[Arrived](), aggregate.Ignore[Greeted](),
	aggregate.Create("arrive", func(c Arrive, _ aggregate.Decision) ([]any, error) { return []any{Arrived(c)}, nil }),
	aggregate.Handle("record", func(_ Guest, c Record, _ aggregate.Decision) ([]any, error) {
		return []any{Greeted(c)}, nil
	}),
)

// A destination that says when to come back is left alone until then. What came of a
// delivery becomes a command, executed once.
func ExampleReport() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "hotel"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, guests, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}

	greet := func(_ context.Context, e Arrived, d gateway.Delivery) error {
		if d.Attempt == 1 {
			return gateway.RetryAfter(errors.New("not now"), 10*time.Millisecond)
		}
		fmt.Println("hello,", e.Name)
		return nil
	}
	report := func(_ Arrived, d gateway.Delivery, o gateway.Outcome) *gateway.Command {
		return &gateway.Command{Type: "guest", ID: d.ID, Name: "record", Body: Record{Attempts: o.Attempt}}
	}
	desk, err := gateway.New(store, "desk", gateway.Config{Start: jetstream.FromBeginning(), Logger: quiet},
		gateway.On(guestEvents, greet, gateway.Report(report)))
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- service.Run(ctx) }()
	<-service.Ready() // a report that nobody takes is sent again
	go func() { ended <- desk.Run(ctx) }()

	if _, err := repo.Create(ctx, "g1", Arrive{Name: "Ada"}); err != nil {
		log.Fatal(err)
	}
	for version := uint64(1); version < 2; {
		guest, err := repo.Load(ctx, "g1")
		if err != nil {
			log.Fatal(err)
		}
		version = guest.Version
	}
	for event, err := range repo.History(ctx, "g1") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %+v\n", event.Name, event.Event)
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			log.Fatal(err)
		}
	}
	status, err := gateway.ReadStatus(context.Background(), store, "desk") // from anywhere
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("waits:", len(status.Blocked))
	// Output:
	// hello, Ada
	// arrived {Name:Ada}
	// greeted {Attempts:2}
	// waits: 0
}
