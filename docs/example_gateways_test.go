package docs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/docs/internal/accounts"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/jetstream/monitor"
	"github.com/rossby-go/rossby/projection"
)

var errBadAddress = errors.New("bad address")

func isBadAddress(err error) bool { return errors.Is(err, errBadAddress) }

// docs/gateways.md and docs/followers.md.
func Example_gateway() {
	ctx, stop := context.WithCancel(context.Background())
	_, store, end := bank(ctx)
	defer end()
	transfers := must(aggregate.NewRepository(store, transferType, aggregate.RepositoryConfig{}))
	service := must(aggregate.NewService(transfers, aggregate.ServiceConfig{}))
	defer running(service)()
	must(transfers.Create(ctx, "t1", Request{To: "nowhere"}))
	send := func(_ context.Context, e Requested, _ gateway.Delivery) error {
		if e.To == "nowhere" {
			return gateway.Permanent(errBadAddress)
		}
		return nil
	}
	recorded := func(_ Requested, d gateway.Delivery, _ gateway.Outcome) *gateway.Command {
		return &gateway.Command{Type: "transfer", ID: d.ID, Name: "fail", Body: Fail{Code: "sent"}}
	}

	run := func() error {
		// snippet:gateway
		partner, err := gateway.New(store, "partner", gateway.Config{
			Start:  jetstream.FromBeginning(),
			Limits: gateway.Limits{Rate: 50, Concurrency: 4},
			Policies: []gateway.Policy{
				{Is: isBadAddress, Attempts: 3, Then: gateway.Park},
				{For: 24 * time.Hour, Then: gateway.Park},
			},
		}, gateway.On(transferEvents, send, gateway.Report(recorded)))
		if err != nil {
			return err
		}
		return partner.Run(ctx) // until ctx ends
		// end:gateway
	}
	ended := make(chan error, 1)
	go func() { ended <- run() }()

	admin := followers.New(store)
	aggregatetest.Eventually(printer{}, "it parks", func() error {
		groups, err := admin.Parked(ctx, "partner")
		if err == nil && len(groups) == 0 {
			return errors.New("nothing")
		}
		return err
	})
	retried := func(ctx context.Context) error {
		// snippet:followers
		admin := followers.New(store)
		all, err := admin.List(ctx) // position, head, lag in events and seconds, state, last error
		if err != nil {
			return err
		}
		groups, err := admin.Parked(ctx, all[0].Name) // grouped by failure, with the oldest's age
		if err != nil {
			return err
		}
		lane := groups[0].Lanes[0]
		commit, err := admin.Show(ctx, lane) // the event itself
		if err != nil {
			return err
		}
		if err := admin.Pause(ctx, "partner", "ada", "the partner moves"); err != nil { // no handler begins
			return err
		}
		if err := admin.Resume(ctx, "partner", "ada"); err != nil {
			return err
		}
		if err := admin.Discard(ctx, "partner", lane, false, "ada", "sent by post"); err != nil {
			return err
		}
		for action, err := range admin.Actions(ctx, "") { // who did what, when and why
			if err != nil {
				return err
			}
			fmt.Printf("%s by %s: %q\n", action.Do, action.By, action.Reason)
		}
		// end:followers
		fmt.Println(commit.ID != "")
		return nil
	}
	check(retried(ctx))
	stop()
	check(<-ended)
	// Output:
	// pause by ada: "the partner moves"
	// resume by ada: ""
	// discard by ada: "sent by post"
	// true
}

// docs/webhooks.md.
func Example_receiver() {
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	mux := http.NewServeMux()
	mount := func() error {
		// snippet:receiver
		receiver, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: []string{secret}})
		if err != nil {
			return err
		}
		mux.Handle("/hooks", receiver.Handler(func(r *http.Request, m webhook.Message) error {
			event, err := m.Event(r.Header)
			if err != nil {
				return err // answered 500: the sender tries again
			}
			fmt.Println(m.ID, event.Type, string(event.Data)) // once for each ID: remember it
			return nil
		}))
		// end:receiver
		return nil
	}
	check(mount())
	web := httptest.NewServer(mux)
	defer web.Close()
	hook := must(webhook.New(webhook.Config{
		URL: web.URL + "/hooks", Secrets: []string{secret},
		InsecureHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}))
	defer hook.Close()
	check(hook.Deliver(context.Background(), struct{ Cents int64 }{700}, gateway.Delivery{
		Meta:  jetstream.Meta{Type: "account", ID: "a1", Name: "opened", EventID: "Zk3x.0", Time: time.Now()},
		Store: "bank", IdempotencyKey: "partner-Zk3x.0",
	}))
	// Output: partner-Zk3x~0 account.opened {"Cents":700}
}

// docs/signals.md.
func Example_monitor() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	service := must(aggregate.NewService(repo, aggregate.ServiceConfig{}))
	updater := must(projection.NewUpdater(store, Balances, projection.UpdaterConfig{}))
	from := jetstream.FromBeginning()
	transfers := must(aggregate.NewReactor(store, "transfers", aggregate.ReactorConfig{Start: from}, moneyTransfer(repo, repo)))
	timers := must(aggregate.NewTimers(ctx, store, aggregate.TimersConfig{}, repo))
	mails := must(gateway.New(store, "mails", gateway.Config{Start: from},
		gateway.OnAll(transferEvents, func(context.Context, any, gateway.Delivery) error { return nil })))
	type trip struct{}
	trips := must(saga.NewProcess(ctx, store, saga.New("trip", saga.Step[trip]{
		Name: "book",
		Do:   func(i saga.Instance[trip]) saga.Command { return saga.Create(repo, i.ID, accounts.Open{}) },
	}), saga.ProcessConfig{Reactor: aggregate.ReactorConfig{Start: from}}))
	provider := metric.NewMeterProvider()
	apiReady := func(context.Context) error { return nil }
	mux := http.NewServeMux()
	run := func() error {
		// snippet:monitor
		mon, err := monitor.New(monitor.Config{Store: store, MeterProvider: provider})
		if err != nil {
			return err
		}
		mon.Repository(repo)
		mon.Service(service)
		mon.Reactor(transfers)
		mon.Timers(timers)
		mon.Saga(trips)
		mon.Updater(updater)
		mon.Gateway(mails)
		mon.Check("http", "api", apiReady) // something of your own, for readiness
		mux.Handle("GET /healthz", mon.Live())
		mux.Handle("GET /readyz", mon.Ready())
		// end:monitor
		fmt.Println(len(mon.Report(ctx).Modules), "modules")
		return mon.Close()
	}
	check(run())
	// Output: 9 modules
}

// docs/console.md.
func Example_console() {
	ctx := context.Background()
	_, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, accounts.Type, aggregate.RepositoryConfig{}))
	mux := http.NewServeMux()
	mount := func() error {
		// snippet:console
		con, err := console.New(console.Config{Store: store})
		if err != nil {
			return err
		}
		mux.Handle("/console/", http.StripPrefix("/console", con))
		// end:console
		return nil
	}
	check(mount())
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/console/", http.NoBody))
	fmt.Println(answer.Code)

	// snippet:console-states
	cfg := console.Config{Store: store, States: []console.State{console.StateOf(repo)}}
	// end:console-states
	must(console.New(cfg))
	type nothing struct{}
	process := must(saga.NewProcess(ctx, store, saga.New("opening", saga.Step[nothing]{
		Name: "open",
		Do:   func(i saga.Instance[nothing]) saga.Command { return saga.Create(repo, i.ID, accounts.Open{}) },
	}), saga.ProcessConfig{Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning()}}))
	// snippet:console-sagas
	cfg = console.Config{Store: store, Sagas: []console.Saga{console.SagaOf(process)}}
	// end:console-sagas
	must(console.New(cfg))
	// Output: 200
}
