package docs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/docs/internal/accounts"
	"github.com/rossby-go/rossby/jetstream"
)

// docs/commands.md.
func Example_commands() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()

	run := func() error {
		// snippet:commands
		repo, err := aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{})
		if err != nil {
			return err
		}
		if _, err := repo.Create(ctx, "a1", accounts.Open{Cents: 700}); err != nil {
			return err
		}
		id := jetstream.NewCommandID()
		res, err := repo.Execute(ctx, "a1", accounts.Debit{Cents: 500}, aggregate.CommandID(id))
		// end:commands
		fmt.Println(res.Version, err)
		return nil
	}
	check(run())
	// Output: 2 <nil>
}

type (
	debitFailed struct{ Reason string }
	debit       struct{ Cents int64 }
)

var watched = aggregate.New[struct{}](jetstream.NewSchema("watched", jetstream.Event[debitFailed]("debit-failed")),
	aggregate.Ignore[debitFailed](),
	aggregate.Create("debit", func(debit, aggregate.Decision) ([]any, error) {
		return nil, aggregate.Reject("insufficient-funds", "the balance is 0")
	}),
)

// docs/commands.md.
func Example_interceptor() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()

	run := func() error {
		// snippet:interceptor
		audit := aggregate.Intercept(func(_ struct{}, i aggregate.Interception) ([]any, error) {
			if errors.Is(i.Err, aggregate.ErrRejected) && i.Name == "debit" {
				return []any{debitFailed{Reason: i.Err.Error()}}, nil // a failure becomes an event
			}
			return i.Events, i.Err
		})
		repo, err := aggregate.NewRepository(store, watched, aggregate.RepositoryConfig{
			Interceptors: []aggregate.Interceptor{audit},
		})
		// end:interceptor
		if err != nil {
			return err
		}
		res, err := repo.Create(ctx, "a1", debit{Cents: 5})
		fmt.Println(res.Events[0].Name)
		return err
	}
	check(run())
	// Output: debit-failed
}

// What docs/reactors.md tells of: transfers between accounts, and the shipments that
// payments and stock lead to.
type (
	Requested struct {
		From, To string
		Cents    int64
	}
	Failed   struct{ Code string }
	Transfer struct{}
	Request  Requested
	Fail     Failed

	Paid     struct{ Order string }
	Reserved struct{ Order string }
	Shipment struct{ Paid, Reserved bool }
	AddPaid  struct{}
	AddStock struct{}
)

var (
	transferEvents = jetstream.NewSchema("transfer", jetstream.Event[Requested]("requested"), jetstream.Event[Failed]("failed"))
	transferType   = aggregate.New[Transfer](transferEvents,
		aggregate.Ignore[Requested](), aggregate.Ignore[Failed](),
		aggregate.Create("request", func(c Request, _ aggregate.Decision) ([]any, error) { return []any{Requested(c)}, nil }),
		aggregate.Handle("fail", func(_ Transfer, c Fail, _ aggregate.Decision) ([]any, error) { return []any{Failed(c)}, nil }),
	)

	paymentEvents  = jetstream.NewSchema("payment", jetstream.Event[Paid]("paid"))
	stockEvents    = jetstream.NewSchema("stock", jetstream.Event[Reserved]("reserved"))
	shipmentEvents = jetstream.NewSchema("shipment", jetstream.Event[AddPaid]("paid"), jetstream.Event[AddStock]("reserved"))
	shipmentType   = aggregate.New[Shipment](shipmentEvents,
		aggregate.Apply(func(s *Shipment, _ AddPaid, _ jetstream.Meta) { s.Paid = true }),
		aggregate.Apply(func(s *Shipment, _ AddStock, _ jetstream.Meta) { s.Reserved = true }),
		aggregate.Create("begin-with-payment", func(c BeginPaid, _ aggregate.Decision) ([]any, error) {
			return []any{AddPaid(c)}, nil
		}),
		aggregate.Create("begin-with-stock", func(c BeginStock, _ aggregate.Decision) ([]any, error) {
			return []any{AddStock(c)}, nil
		}),
		aggregate.Handle("add-payment", func(_ Shipment, c AddPaid, _ aggregate.Decision) ([]any, error) {
			return []any{c}, nil
		}),
		aggregate.Handle("add-stock", func(_ Shipment, c AddStock, _ aggregate.Decision) ([]any, error) {
			return []any{c}, nil
		}),
	)
)

type (
	BeginPaid  struct{}
	BeginStock struct{}
)

// snippet:handler
// moneyTransfer takes the money, or fails the transfer. What takes too long fails, too.
func moneyTransfer(accs, transfers aggregate.Target) aggregate.ReactorOption {
	return aggregate.On(transferEvents, func(ctx context.Context, e Requested, m jetstream.Meta, do *aggregate.Do) error {
		err := do.After(ctx, time.Minute, transfers, m.ID, Fail{Code: "expired"}, aggregate.Step("expire"))
		if err != nil {
			return err
		}
		_, err = do.Update(ctx, accs, e.From, accounts.Debit{Cents: e.Cents})
		if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
			_, err = do.Update(ctx, transfers, m.ID, Fail{Code: rejected.Code})
		}
		return err
	})
}

// end:handler

// docs/reactors.md.
func Example_reactor() {
	ctx, stop := context.WithCancel(context.Background())
	_, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	transfers := must(aggregate.NewRepository(store, transferType, aggregate.RepositoryConfig{}))
	must(repo.Create(ctx, "a1", accounts.Open{Cents: 5}))
	must(transfers.Create(ctx, "t1", Request{From: "a1", To: "a2", Cents: 500}))
	must(aggregate.NewTimers(ctx, store, aggregate.TimersConfig{}, transfers))

	run := func() error {
		// snippet:reactor
		reactor, err := aggregate.NewReactor(store, "money-transfer", aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
			moneyTransfer(repo, transfers))
		if err != nil {
			return err
		}
		return reactor.Run(ctx) // until ctx ends
		// end:reactor
	}
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	failed, m := aggregatetest.Await(printer{}, store, transferEvents, func(Failed, jetstream.Meta) bool { return true })
	fmt.Println(m.ID, failed.Code)
	stop()
	check(<-ended)
	// Output: t1 insufficient-funds
}

// docs/reactors.md.
func Example_policies() {
	isRateLimit := func(err error) bool { return err != nil && strings.Contains(err.Error(), "429") }
	isOldFormat := func(err error) bool { return err != nil && strings.Contains(err.Error(), "old format") }

	cfg := aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(),
		// snippet:policies
		Policies: []aggregate.Policy{
			{Is: isRateLimit, Attempts: 10, MaxBackoff: time.Minute},   // ten attempts, then park
			{Is: isOldFormat, Attempts: 1, Then: aggregate.Skip},       // handled, and logged as an error
			{Is: aggregate.IsPanic, Attempts: 3, Then: aggregate.Stop}, // Run returns it
		},
		// end:policies
	}
	fmt.Println(cfg.Validate())
	// Output: <nil>
}

// docs/reactors.md.
func Example_timers() {
	ctx, stop := context.WithCancel(context.Background())
	_, store, end := bank(ctx)
	defer end()
	orders := must(aggregate.NewRepository(store, transferType, aggregate.RepositoryConfig{}))
	run := func() error {
		// snippet:timers
		timers, err := aggregate.NewTimers(ctx, store, aggregate.TimersConfig{}, orders) // the targets this process has
		if err != nil {
			return err
		}
		return timers.Run(ctx) // until ctx ends
		// end:timers
	}
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		fmt.Println(err)
	}
	// Output:
}

// docs/reactors.md.
func Example_processManager() {
	t := printer{}
	store := aggregatetest.NewStore(t)
	shipments := aggregatetest.NewRepository(store, shipmentType)
	store.Run("shipping",
		// snippet:process-manager
		aggregate.On(paymentEvents, func(ctx context.Context, e Paid, _ jetstream.Meta, do *aggregate.Do) error {
			_, err := do.CreateOrUpdate(ctx, shipments, e.Order, BeginPaid{}, AddPaid{})
			return err
		}),
		aggregate.On(stockEvents, func(ctx context.Context, e Reserved, _ jetstream.Meta, do *aggregate.Do) error {
			_, err := do.CreateOrUpdate(ctx, shipments, e.Order, BeginStock{}, AddStock{})
			return err
		}),
		// end:process-manager
	)
	store.Append(stockEvents, "s1", Reserved{Order: "o1"})
	store.Append(paymentEvents, "p1", Paid{Order: "o1"})
	store.Settle()
	fmt.Printf("%+v\n", must(shipments.Load(t.Context(), "o1")).State)
	// Output: {Paid:true Reserved:true}
}

// docs/reactors.md: a trip of a saga, with accounts for trains and cards.
type Trip struct {
	Train, Card string
	Cents       int64
}

// tripSaga is the saga that both docs/reactors.md and docs/testing.md are about.
func tripSaga(trains, cards aggregate.Target) *saga.Saga[Trip] {
	type (
		Take = accounts.Debit
		Give = accounts.Credit
	)
	// snippet:saga
	trip := saga.New("trip",
		saga.Step[Trip]{
			Name: "seat", Timeout: time.Minute,
			Do:   func(i saga.Instance[Trip]) saga.Command { return saga.Send(trains, i.Data.Train, Take{Cents: 1}) },
			Undo: func(i saga.Instance[Trip]) saga.Command { return saga.Send(trains, i.Data.Train, Give{Cents: 1}) },
		},
		saga.Step[Trip]{
			Name: "charge",
			Do: func(i saga.Instance[Trip]) saga.Command {
				return saga.Send(cards, i.Data.Card, Take{Cents: i.Data.Cents})
			},
		},
	)
	// end:saga
	return trip
}

// docs/reactors.md.
func Example_saga() {
	ctx, stop := context.WithCancel(context.Background())
	_, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	must(repo.Create(ctx, "express", accounts.Open{Cents: 100}))
	must(repo.Create(ctx, "visa", accounts.Open{Cents: 5}))
	trip := tripSaga(repo, repo)
	ended := make(chan error, 1)

	run := func() error {
		// snippet:saga-process
		process, err := saga.NewProcess(ctx, store, trip, saga.ProcessConfig{
			Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning()},
		})
		if err != nil {
			return err
		}
		go func() { ended <- process.Run(ctx) }() // until ctx ends
		_, err = process.Start(ctx, "t1", Trip{Train: "express", Card: "visa", Cents: 70})
		// end:saga-process
		return err
	}
	check(run())
	gone, m := aggregatetest.Await(printer{}, store, saga.Events[Trip]("trip"), func(saga.CompensatedEvent, jetstream.Meta) bool { return true })
	fmt.Println(m.ID, gone.Failure.Step, gone.Failure.Code)
	stop()
	check(<-ended)
	// Output: t1 charge insufficient-funds
}
