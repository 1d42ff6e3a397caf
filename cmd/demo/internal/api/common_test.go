package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/api"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
)

// bank is a bank in this process, behind its HTTP API.
type bank struct {
	t       testing.TB
	url     string
	client  *http.Client
	nats    *embedded.Server
	store   *jetstream.Store
	api     *api.API
	cfg     api.Config
	stopAPI func()
}

func newBank(t testing.TB) *bank {
	t.Helper()
	b := &bank{t: t, nats: natstest.Run(t), client: &http.Client{Transport: &http.Transport{}}}
	nc := natstest.Conn(t, b.nats.URL())
	name, log := natstest.Name(t), slog.New(slog.DiscardHandler)
	var err error
	if b.store, err = jetstream.Open(t.Context(), nc, jetstream.Config{Name: name}); err != nil {
		t.Fatal(err)
	}
	accounts := repository(t, b.store, commands.AccountType())
	customers := repository(t, b.store, commands.CustomerType())
	transfers := repository(t, b.store, commands.TransferType())
	timers, err := aggregate.NewTimers(t.Context(), b.store, aggregate.TimersConfig{Logger: log}, accounts, transfers)
	if err != nil {
		t.Fatal(err)
	}
	reactor, err := commands.NewReactor(b.store, accounts, transfers, time.Minute,
		aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	runs := append(make([]func(context.Context) error, 0, 6), timers.Run, reactor.Run)
	for _, def := range []projection.AnyDefinition{views.Accounts(), views.Customers(), views.Transfers(), views.LedgerView()} {
		u, err := projection.NewUpdater(b.store, def, projection.UpdaterConfig{Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, u.Run)
	}
	start(t, runs...)
	b.cfg = api.Config{
		Store: b.store, Accounts: accounts, Customers: customers, Transfers: transfers,
		AccountViews:  reader[views.Account](t, b.store, views.AccountsName),
		CustomerViews: reader[views.Customer](t, b.store, views.CustomersName),
		TransferViews: reader[views.Transfer](t, b.store, views.TransfersName),
		Ledger:        reader[views.Ledger](t, b.store, views.LedgerName),
		Followers: func(context.Context) ([]api.Follower, error) {
			return []api.Follower{{Name: "money-transfer", Kind: api.KindReactor, State: "active", Lag: 3}}, nil
		},
		Durability: func(ctx context.Context) (jetstream.Durability, error) {
			return b.store.Durability(ctx, jetstream.DurabilitySources{})
		},
		Notifications: func() (notify.Stats, bool) { return notify.Stats{Received: 7}, true },
		Logger:        log,
	}
	b.serve(b.cfg)
	return b
}

// serve puts the API in front of the bank.
func (b *bank) serve(cfg api.Config) {
	b.t.Helper()
	a, err := api.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	a.SetPatience(natstest.Patience)
	b.api = a
	b.stopAPI = start(b.t, a.Run)
	srv := httptest.NewServer(a)
	b.t.Cleanup(func() {
		b.client.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	b.url = srv.URL
}

// within is the bank for a subtest.
func (b *bank) within(t *testing.T) *bank {
	t.Helper()
	c := *b
	c.t = t
	return &c
}

// start runs until the test ends, or until it is stopped.
func start(t testing.TB, runs ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func repository[S any](t testing.TB, store *jetstream.Store, typ *aggregate.Type[S]) *aggregate.Repository[S] {
	t.Helper()
	r, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reader[V any](t testing.TB, store *jetstream.Store, view string) *projection.Reader[V] {
	t.Helper()
	r, err := projection.NewReader[V](t.Context(), store.Conn(), store.Name(), view, projection.ReaderConfig{OpenWait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// object is a JSON object.
type object = map[string]any

// reply is an answer.
type reply struct {
	status int
	header http.Header
	text   string
	body   object
}

func (r reply) str(name string) string { s, _ := r.body[name].(string); return s }

func (r reply) num(name string) int64 { n, _ := r.body[name].(float64); return int64(n) }

// do sends a request; headers are names and values in turn.
func (b *bank) do(method, path, body string, headers ...string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(data)}
	_ = json.Unmarshal(data, &r.body)
	return r
}

// want sends a request and fails the test when the status is another. What says that
// nothing was done, since nobody answered in time, is sent again.
func (b *bank) want(status int, method, path, body string, headers ...string) reply {
	b.t.Helper()
	var r reply
	natstest.Eventually(b.t, method+" "+path, func() error {
		r = b.do(method, path, body, headers...)
		if status != http.StatusServiceUnavailable && r.str("code") == "unavailable" {
			return errors.New(r.text)
		}
		return nil
	})
	if r.status != status {
		b.t.Fatalf("%s %s: %d, want %d: %s", method, path, r.status, status, r.text)
	}
	if p := r.str("position"); p != "" && r.header.Get("Rossby-Position") != p {
		b.t.Fatalf("%s %s: position %q, header %q", method, path, p, r.header.Get("Rossby-Position"))
	}
	return r
}

func (b *bank) open(cents int64) string {
	b.t.Helper()
	return b.want(201, "POST", "/api/accounts", fmt.Sprintf(`{"title":"x","initialCents":%d}`, cents)).str("accountId")
}

// ended waits for a transfer's state.
func (b *bank) ended(id, state string) {
	b.t.Helper()
	natstest.Eventually(b.t, "end of transfer "+id, func() error {
		if r := b.do("GET", "/api/transfers/"+id, ""); r.str("state") != state {
			return fmt.Errorf("it is %s", r.text)
		}
		return nil
	})
}

func transferOf(from, to string, cents int64) string {
	return fmt.Sprintf(`{"fromAccountId":%q,"toAccountId":%q,"cents":%d}`, from, to, cents)
}
