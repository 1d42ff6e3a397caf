package queryhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

type (
	credited struct{ Cents int64 }
	closed   struct{}
)

var events = jetstream.NewSchema("account", jetstream.Event[credited]("credited"), jetstream.Event[closed]("closed"))

type balance struct {
	Cents int64  `json:"cents"`
	Note  string `json:"note"`
}

func balances(version int) *projection.Definition[balance] {
	return projection.NewKeyed("balances",
		projection.On(events, func(b *balance, e credited, m jetstream.Meta) { b.Cents, b.Note = b.Cents+e.Cents, "<"+m.ID+">" }),
		projection.OnRow(events, func(r *projection.Row[balance], _ closed, _ jetstream.Meta) error {
			r.Delete()
			return nil
		}),
	).Index("cents", func(b balance) []string { return []string{projection.IntValue(b.Cents)} }).Version(version)
}

// fixture is a store with a view, and what appends to it.
type fixture struct {
	t     *testing.T
	nc    *nats.Conn
	store *jetstream.Store
	stop  func() // ends the updater
	heads map[string]jetstream.Head
	last  jetstream.Position
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: natstest.Name(t), AppendTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, nc: nc, store: store, heads: map[string]jetstream.Head{}}
	f.stop = f.run(1)
	return f
}

// run runs an updater of a definition version.
func (f *fixture) run(version int) (stop func()) {
	f.t.Helper()
	up, err := projection.NewUpdater(f.store, balances(version), projection.UpdaterConfig{
		Logger: slog.New(slog.DiscardHandler), OnStop: projection.ReturnWhenStopped,
		LeaseTTL: natstest.Patience / 3, // which is how long it may take to give the view free
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := up.Run(ctx); err != nil && !errors.Is(err, projection.ErrSuperseded) {
			f.t.Errorf("updater: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) append(id string, event any) jetstream.Position {
	f.t.Helper()
	data, err := events.Encode(event, f.store.Codec())
	if err != nil {
		f.t.Fatal(err)
	}
	head, err := f.store.Append(f.t.Context(), jetstream.Write{
		Type: "account", ID: id, After: f.heads[id],
		Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.heads[id] = head
	f.last = f.store.Position(head.Sequence)
	return f.last
}

func (f *fixture) reader() *projection.Reader[balance] {
	f.t.Helper()
	r, err := projection.NewReader[balance](f.t.Context(), f.nc, f.store.Name(), "balances",
		projection.ReaderConfig{Wait: natstest.Patience, OpenWait: natstest.Patience})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// serve serves the view at /balances/.
func (f *fixture) serve(cfg queryhttp.Config) string {
	f.t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Timeout == 0 {
		cfg.Timeout = natstest.Patience
	}
	h, err := queryhttp.New(f.reader(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/balances/", http.StripPrefix("/balances", h))
	srv := httptest.NewServer(mux)
	f.t.Cleanup(func() {
		h.Close()
		srv.Close()
	})
	return srv.URL + "/balances/"
}

type response struct {
	*http.Response

	body []byte
}

func (r response) json(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	return out
}

// do sends a request with headers, by name and value.
func do(t *testing.T, method, url string, headers ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp, body}
}
