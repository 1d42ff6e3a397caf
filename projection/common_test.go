package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The events of the tests.
type (
	opened   struct{ Owner string }
	credited struct{ Cents int64 }
	moved    struct {
		From, To string
		Cents    int64
	}
	closed struct{}
)

var accountEvents = jetstream.NewSchema("account",
	jetstream.Event[opened]("opened"),
	jetstream.Event[credited]("credited"),
	jetstream.Event[moved]("moved"),
	jetstream.Event[closed]("closed"),
)

// account is a view's value that would show an event that was lost, doubled or
// out of order.
type account struct {
	Owner   string  `json:"owner"`
	Cents   int64   `json:"cents"`
	Events  int     `json:"events"`
	History []int64 `json:"history,omitempty"`
}

func accounts() *projection.Definition[account] {
	return projection.NewKeyed("accounts",
		projection.On(accountEvents, func(a *account, e opened, _ jetstream.Meta) {
			a.Owner, a.Events = e.Owner, a.Events+1
		}),
		projection.On(accountEvents, func(a *account, e credited, _ jetstream.Meta) {
			a.Cents, a.Events = a.Cents+e.Cents, a.Events+1
			a.History = append(a.History, e.Cents)
			if len(a.History) > 10 {
				a.History = a.History[1:]
			}
		}),
		projection.OnRow(accountEvents, func(r *projection.Row[account], e moved, _ jetstream.Meta) error {
			if r.Key == e.From {
				r.Value.Cents -= e.Cents
			} else {
				r.Value.Cents += e.Cents
			}
			r.Value.Events++
			return nil
		}, projection.Keys(func(e moved, _ jetstream.Meta) []string { return []string{e.From, e.To} })),
		projection.OnRow(accountEvents, func(r *projection.Row[account], _ closed, _ jetstream.Meta) error {
			r.Delete()
			return nil
		}),
	)
}

// fixture is a store and what appends to it.
type fixture struct {
	t     testing.TB
	url   string
	nc    *nats.Conn
	store *jetstream.Store

	mu    sync.Mutex
	heads map[string]jetstream.Head
	last  jetstream.Position
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return fixtureAt(t, natstest.Run(t).URL(), 1)
}

func fixtureAt(t testing.TB, url string, replicas int) *fixture {
	t.Helper()
	nc := natstest.Conn(t, url)
	var store *jetstream.Store
	name := natstest.Name(t)
	opened := natstest.Eventually(t, "open the store", func() (err error) {
		store, err = jetstream.Open(t.Context(), nc, jetstream.Config{
			Name: name, Replicas: replicas, AppendTimeout: natstest.Patience,
		})
		return err
	})
	if !opened {
		t.FailNow()
	}
	return &fixture{t: t, url: url, nc: nc, store: store, heads: map[string]jetstream.Head{}}
}

// append stores events of one aggregate as one commit.
func (f *fixture) append(id string, events ...any) jetstream.Position {
	f.t.Helper()
	data := make([]jetstream.EventData, len(events))
	for i, e := range events {
		var err error
		if data[i], err = accountEvents.Encode(e, f.store.Codec()); err != nil {
			f.t.Fatal(err)
		}
	}
	return f.appendData("account", id, data...)
}

func (f *fixture) appendData(typ, id string, data ...jetstream.EventData) jetstream.Position {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	head, err := f.store.Append(f.t.Context(), jetstream.Write{
		Type: typ, ID: id, After: f.heads[typ+id], Decisions: []jetstream.Decision{{Time: time.Now(), Events: data}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.heads[typ+id] = head
	f.last = f.store.Position(head.Sequence)
	return f.last
}

// attach opens the store over a connection of its own.
func (f *fixture) attach() (*nats.Conn, *jetstream.Store) {
	f.t.Helper()
	nc := natstest.Conn(f.t, f.url)
	return nc, f.attachOn(nc)
}

// attachOn opens the store over a connection.
func (f *fixture) attachOn(nc *nats.Conn) *jetstream.Store {
	f.t.Helper()
	var store *jetstream.Store
	attached := natstest.Eventually(f.t, "attach to the store", func() (err error) {
		store, err = jetstream.Attach(f.t.Context(), nc, f.store.Name())
		return err
	})
	if !attached {
		f.t.FailNow()
	}
	return store
}

// quiet is a configuration that does not log, with the lease of programs.
func quiet() projection.UpdaterConfig {
	return projection.UpdaterConfig{Logger: slog.New(slog.DiscardHandler), OnStop: projection.ReturnWhenStopped}
}

// mortal is quiet, for updaters that die and whose place others take soon. Where the
// machine stands still they lose the view while they live, too.
func mortal() projection.UpdaterConfig {
	cfg := quiet()
	cfg.LeaseTTL = 300 * time.Millisecond
	return cfg
}

// lasting is quiet, for owners that nobody takes for dead: who owns the view and what
// its checkpoint says is then what they have done, however slow the machine is.
func lasting() projection.UpdaterConfig {
	cfg := quiet()
	cfg.LeaseTTL = 2 * natstest.Patience
	return cfg
}

// patient is a context that ends when a test's patience does.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// running is an updater that runs.
type running struct {
	*projection.Updater

	cancel context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

func start(t testing.TB, store *jetstream.Store, def projection.AnyDefinition, cfg projection.UpdaterConfig) *running {
	t.Helper()
	up, err := projection.NewUpdater(store, def, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, up)
}

// launch runs an updater until the test ends.
func launch(t testing.TB, up *projection.Updater) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Updater: up, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- up.Run(ctx) }()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// wait returns what Run returned.
func (r *running) wait() error {
	r.once.Do(func() {
		select {
		case r.err = <-r.done:
		case <-time.After(natstest.Patience):
			r.err = errors.New("the updater did not end")
		}
	})
	return r.err
}

func (r *running) stop() error {
	r.cancel()
	return r.wait()
}

func reader[V any](t testing.TB, f *fixture, view string) *projection.Reader[V] {
	t.Helper()
	r, err := projection.NewReader[V](t.Context(), f.nc, f.store.Name(), view,
		projection.ReaderConfig{Wait: natstest.Patience, OpenWait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func get[V any](t testing.TB, r *projection.Reader[V], key string, opts ...projection.ReadOption) projection.Entry[V] {
	t.Helper()
	e, err := r.Get(t.Context(), key, opts...)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return e
}

func id(i int) string { return fmt.Sprintf("a%d", i) }

// natsMsg is a message with headers, by name and value.
func natsMsg(subject, data string, headers ...string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = []byte(data)
	for i := 0; i < len(headers); i += 2 {
		m.Header[headers[i]] = []string{headers[i+1]}
	}
	return m
}
