package commandhttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	opened  struct{ Cents int64 }
	debited struct{ Cents int64 }

	account struct{ Cents int64 }

	open struct {
		Cents int64 `json:"cents"`
	}
	debit struct {
		Cents int64  `json:"cents"`
		Note  string `json:"note,omitempty"`
	}
	fail struct{}
)

var accounts = aggregate.New[account](
	jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited")),
	aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
	aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
	aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
	aggregate.Handle("debit", func(a account, c debit, _ aggregate.Decision) ([]any, error) {
		if a.Cents < c.Cents {
			return nil, aggregate.Reject("insufficient-funds", "balance %d is below %d", a.Cents, c.Cents)
		}
		return []any{debited{c.Cents}}, nil
	}),
	aggregate.Handle("fail", func(account, fail, aggregate.Decision) ([]any, error) { return nil, errors.New("a secret") }),
)

var quiet = slog.New(slog.DiscardHandler)

// setup gives a repository and a client of its service.
func setup(t *testing.T) (*aggregate.Repository[account], *aggregate.Client) {
	t.Helper()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t), AppendTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet, Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client, err := aggregate.NewClient(nc, store.Name(), accounts, aggregate.ClientConfig{
		AttemptTimeout: natstest.Patience, Timeout: natstest.Patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	return repo, client
}

// serve starts a handler and returns its address.
func serve(t *testing.T, cfg commandhttp.Config) string {
	t.Helper()
	cfg.Logger, cfg.Timeout = quiet, natstest.Patience
	h, err := commandhttp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/commands/", http.StripPrefix("/commands", h))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL + "/commands"
}

type answer struct {
	*http.Response

	body []byte
}

// json reads the body.
func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal(a.body, &out); err != nil {
		t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
	}
	return out
}

// do sends a request with headers given in pairs.
func do(t *testing.T, method, url, body string, pairs ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Set(pairs[i], pairs[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, data}
}

// stub is a target whose commands end as a test wants.
type stub struct {
	aggregate.Target

	err error
}

func (s stub) Execute(context.Context, string, any, ...aggregate.CallOption) (aggregate.Result, error) {
	return aggregate.Result{}, s.err
}

func (s stub) Create(context.Context, string, any, ...aggregate.CallOption) (aggregate.Result, error) {
	return aggregate.Result{}, s.err
}

// newClient gives a target that reaches nobody.
func newClient(t *testing.T) *aggregate.Client {
	t.Helper()
	client, err := aggregate.NewClient(new(nats.Conn), "bank", accounts, aggregate.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}
