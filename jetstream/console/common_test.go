package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/projection"
)

type (
	opened struct {
		Cents int64 `json:"cents"`
	}
	credited struct {
		Cents int64 `json:"cents"`
	}
	account struct {
		Cents int64 `json:"cents"`
	}
	open struct {
		Cents int64 `json:"cents"`
	}
	credit struct {
		Cents int64 `json:"cents"`
	}
)

func events() *jetstream.Schema {
	return jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[credited]("credited"))
}

func accountType(schema *jetstream.Schema) *aggregate.Type[account] {
	return aggregate.New[account](schema,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) {
			if c.Cents <= 0 {
				return nil, aggregate.Reject("too-little", "%d cents are no money", c.Cents)
			}
			return []any{credited(c)}, nil
		}),
	)
}

// world is a store with a command service, a view, and a console.
type world struct {
	t     *testing.T
	nc    *nats.Conn
	store *jetstream.Store
	repo  *aggregate.Repository[account]
	url   string
}

const view = "balances"

// newWorld starts all of it. change may change the console's configuration.
func newWorld(t *testing.T, change func(*console.Config)) *world {
	t.Helper()
	return newWorldOn(t, natstest.Conn(t, natstest.Run(t).URL()), 1, change)
}

func newWorldOn(t *testing.T, nc *nats.Conn, replicas int, change func(*console.Config)) *world {
	t.Helper()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{
		Name: natstest.Name(t), Codec: jetstream.JSON, Replicas: replicas,
	})
	if err != nil {
		t.Fatal(err)
	}
	schema, quiet := events(), slog.New(slog.DiscardHandler)
	repo, err := aggregate.NewRepository(store, accountType(schema), aggregate.RepositoryConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	updater, err := projection.NewUpdater(store, projection.NewKeyed(view,
		projection.On(schema, func(v *account, e opened, _ jetstream.Meta) { v.Cents = e.Cents }),
		projection.On(schema, func(v *account, e credited, _ jetstream.Meta) { v.Cents += e.Cents }),
	), projection.UpdaterConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, nc: nc, store: store, repo: repo}
	w.run(svc.Run, updater.Run)
	select {
	case <-svc.Ready():
	case <-time.After(natstest.Patience):
		t.Fatal("no service")
	}
	cfg := console.Config{Store: store, Actions: true, Logger: quiet}
	if change != nil {
		change(&cfg)
	}
	w.mount(cfg)
	return w
}

// mount serves a console, which is the one that is asked from now on.
func (w *world) mount(cfg console.Config) {
	w.t.Helper()
	con, err := console.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	srv := httptest.NewServer(http.StripPrefix("/any/where", con))
	w.t.Cleanup(srv.Close)
	w.url = srv.URL + "/any/where/"
}

// run runs parts until the test ends.
func (w *world) run(parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var g errgroup.Group
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	w.t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			w.t.Error(err)
		}
	})
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request and reads the answer.
func (w *world) do(method, path string, body any, header http.Header) reply {
	w.t.Helper()
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, text}
}

// fault is what a problem says.
type fault struct {
	Type     string `json:"type"`
	Code     string `json:"code"`
	Instance string `json:"instance"`
}

// decided sends a request until the answer is more than that somebody did not answer in
// time, or is of the status that is wanted, and tells whether it was sent again: then it
// may have been done before.
func (w *world) decided(want int, method, path string, body any, header http.Header) (got reply, p fault, again bool) {
	w.t.Helper()
	natstest.Eventually(w.t, method+" "+path, func() error {
		got, p = w.do(method, path, body, header), fault{}
		_ = json.Unmarshal(got.body, &p)
		late := p.Code == "not-running" || p.Code == "unavailable" || p.Code == "timeout"
		if got.status != want && late {
			again = true
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	return got, p, again
}

// read is what an answer of 200 says.
func read[T any](got reply) (v T, err error) {
	if err = json.Unmarshal(got.body, &v); err != nil || got.status != http.StatusOK {
		return v, fmt.Errorf("%d %s: %w", got.status, got.body, err)
	}
	return v, nil
}

// get is an answer, which must be 200.
func get[T any](w *world, path string) T {
	w.t.Helper()
	return answer[T](w, http.MethodGet, path, nil)
}

// post is the answer to an action; nothing when it is told that it was done before.
func post[T any](w *world, path string, body any) T {
	w.t.Helper()
	return answer[T](w, http.MethodPost, path, body)
}

func answer[T any](w *world, method, path string, body any) T {
	w.t.Helper()
	var v T
	got, _, again := w.decided(http.StatusOK, method, path, body, nil)
	if again && got.status == http.StatusConflict && method == http.MethodPost {
		return v
	}
	if got.status != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, path, got.status, got.body)
	}
	if err := json.Unmarshal(got.body, &v); err != nil {
		w.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
	}
	return v
}

// problem is what a request that must fail is answered.
func (w *world) problem(status int, code, method, path string, body any, header http.Header) {
	w.t.Helper()
	got, p, _ := w.decided(status, method, path, body, header)
	if got.status != status || p.Code != code || p.Type != "urn:rossby:console:"+code || p.Instance == "" ||
		got.header.Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("%s %s: %d %v %s, want %d %s", method, path, got.status, got.header, got.body, status, code)
	}
}
