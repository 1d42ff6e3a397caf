package browser_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/projection"
)

// The large store's domain: accounts that sagas pay into.
type (
	opened struct {
		Owner string `json:"owner"`
	}
	credited struct {
		Cents int64 `json:"cents"`
	}
	account struct {
		Owner string `json:"owner"`
		Cents int64  `json:"cents"`
	}
	openAccount struct {
		Owner string `json:"owner"`
	}
	credit struct {
		Cents int64 `json:"cents"`
	}
	wish struct {
		Cents int64 `json:"cents"`
	}
)

var accounts = jetstream.NewSchema("account",
	jetstream.Event[opened]("opened"), jetstream.Event[credited]("credited"))

func accountType() *aggregate.Type[account] {
	return aggregate.New[account](accounts,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Create("open", func(c openAccount, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) {
			if c.Cents <= 0 {
				return nil, aggregate.Reject("too-little", "%d cents are no money", c.Cents)
			}
			return []any{credited(c)}, nil
		}),
	)
}

// saving opens an account and pays into it. No cents are refused, and then nobody can
// take the account back: the instance is stuck.
func saving(to aggregate.Target) *saga.Saga[wish] {
	type instance = saga.Instance[wish]
	return saga.New("saving",
		saga.Step[wish]{
			Name: "open",
			Do:   func(i instance) saga.Command { return saga.Create(to, "of-"+i.ID, openAccount{i.ID}) },
			Undo: func(i instance) saga.Command { return saga.Send(to, "of-"+i.ID, credit{}) },
		},
		saga.Step[wish]{
			Name: "pay", Timeout: time.Hour, Await: true,
			Do: func(i instance) saga.Command { return saga.Send(to, "of-"+i.ID, credit(i.Data)) },
		},
		saga.Step[wish]{
			Name: "thank",
			Do:   func(i instance) saga.Command { return saga.Send(to, "of-"+i.ID, credit{1}) },
		},
	)
}

// How large the store is: 100,000 events of 10,000 aggregates, and sagas enough for
// several pages.
const (
	manyAccounts = 10_000
	manyCommits  = 2
	manyEvents   = 5 // of a commit
	manySagas    = 60
)

// large is a large store with a command service, a view, a saga, and two consoles: one
// that acts, one that reads.
type large struct{ acts, reads string }

func newLarge(t *testing.T) *large {
	t.Helper()
	began := time.Now()
	quiet := slog.New(slog.DiscardHandler)
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: "large", Codec: jetstream.JSON})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, accountType(), aggregate.RepositoryConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	updater, err := projection.NewUpdater(store, projection.NewKeyed("balances",
		projection.On(accounts, func(v *account, e opened, _ jetstream.Meta) { v.Owner = e.Owner }),
		projection.On(accounts, func(v *account, e credited, _ jetstream.Meta) { v.Cents += e.Cents }),
	), projection.UpdaterConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, store)
	// The sagas begin behind all that: what they do not follow they need not read.
	head, err := store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	process, err := saga.NewProcess(t.Context(), store, saving(repo), saga.ProcessConfig{
		Reactor:    aggregate.ReactorConfig{Start: jetstream.From(head), Logger: quiet, Concurrency: 8},
		Timers:     aggregate.TimersConfig{Logger: quiet},
		Repository: aggregate.RepositoryConfig{Logger: quiet},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var g errgroup.Group
	for _, run := range []func(context.Context) error{service.Run, updater.Run, process.Run} {
		g.Go(func() error { return run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	for i := range manySagas {
		cents := int64(i) // the first is stuck, the others wait
		if _, err := process.Start(t.Context(), fmt.Sprintf("s%02d", i), wish{cents}); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(actions bool) string {
		con, err := console.New(console.Config{
			Store: store, Actions: actions, Logger: quiet, Sagas: []console.Saga{console.SagaOf(process)},
			States: []console.State{console.StateOf(repo)},
			Checks: []console.Check{{
				Name: "all", Title: "All is well",
				Run: func(context.Context) (console.Result, error) { return console.Result{Holds: true, Text: "it is"}, nil },
			}},
			Switches: []console.Switch{{
				Name: "lamp", Title: "Lamp", Options: []string{"on", "off"},
				State: func() (option, note string) { return "on", "" }, Set: func(context.Context, string) error { return nil },
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(http.StripPrefix("/console", con))
		t.Cleanup(srv.Close)
		return srv.URL + "/console/"
	}
	l := &large{acts: mount(true), reads: mount(false)}
	t.Logf("%d events of %d aggregates took %v", manyAccounts*manyCommits*manyEvents, manyAccounts, time.Since(began))
	return l
}

// fillStore appends commits of several events, many at once.
func fillStore(t *testing.T, store *jetstream.Store) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range manyAccounts {
		g.Go(func() error {
			var head jetstream.Head
			for n := range manyCommits {
				data := make([]jetstream.EventData, manyEvents)
				for k := range data {
					var event any = credited{Cents: 10}
					if n == 0 && k == 0 {
						event = opened{Owner: "somebody"}
					}
					var err error
					if data[k], err = accounts.Encode(event, jetstream.JSON); err != nil {
						return err
					}
				}
				var err error
				if head, err = store.Append(t.Context(), jetstream.Write{
					Type: "account", ID: fmt.Sprintf("n%d", i), After: head,
					Decisions: []jetstream.Decision{{CommandID: jetstream.NewCommandID(), Events: data}},
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
