package compat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

var quiet = slog.New(slog.DiscardHandler)

type (
	opened   struct{ Owner string }
	credited struct{ Cents int64 }
	account  struct {
		Owner string
		Cents int64
	}
	open   struct{ Owner string }
	credit struct{ Cents int64 }
)

var events = jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[credited]("credited"))

func accounts() *aggregate.Type[account] {
	return aggregate.New[account](events,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) {
			return []any{credited(c)}, nil
		}),
	)
}

func view(version int) *projection.Definition[account] {
	return projection.NewKeyed("accounts",
		projection.On(events, func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner }),
		projection.On(events, func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
	).Version(version)
}

// TestVersions: what Rossby does, it does on the oldest server and on the newest.
func TestVersions(t *testing.T) {
	t.Parallel()
	for name, v := range versions {
		for _, replicas := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/R%d", name, replicas), func(t *testing.T) {
				t.Parallel()
				s := v.start(t, t.TempDir(), replicas)
				w := newWorkload(t, s, replicas)
				if got := w.store.Conn().ConnectedServerVersion(); name == "Oldest" && got != jetstream.OldestServer {
					t.Errorf("the oldest server is %s, Rossby works with %s", got, jetstream.OldestServer)
				}
				w.appends()
				w.commands()
				w.follows()
				w.verifies()
				w.archives()
			})
		}
	}
}

// TestUpgrade: what a server of the oldest version has stored, is there after an
// upgrade to the newest, and goes on.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := versions["Oldest"].start(t, dir, 1)
	w := newWorkload(t, old, 1)
	w.appends()
	w.commands()
	w.follows()
	w.end()
	old.stop()

	upgraded := versions["Newest"].start(t, dir, 1)
	next := newWorkload(t, upgraded, 1)
	if next.store.ID() != w.store.ID() {
		t.Fatalf("another store: %s, was %s", next.store.ID(), w.store.ID())
	}
	loaded, err := next.repo.Load(next.ctx, "a0")
	if err != nil || loaded.State != (account{Owner: "ada", Cents: 6}) {
		t.Errorf("%+v, %v", loaded, err)
	}
	next.view(account{Owner: "ada", Cents: 6})
	if _, err := next.repo.Execute(next.ctx, "a0", credit{Cents: 4}); err != nil {
		t.Fatal(err)
	}
	next.view(account{Owner: "ada", Cents: 10})
	next.verifies()
}

// workload is what runs against a server.
type workload struct {
	*testing.T

	ctx   context.Context
	store *jetstream.Store
	repo  *aggregate.Repository[account]
	views *projection.Updater

	mu    sync.Mutex
	stops []func()
}

func newWorkload(t *testing.T, s *servers, replicas int) *workload {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*natstest.Patience)
	t.Cleanup(cancel)
	w := &workload{T: t, ctx: ctx}
	nc := s.connect(t)
	natstest.Eventually(t, "open the store", func() (err error) {
		w.store, err = jetstream.Open(ctx, nc, jetstream.Config{Name: "bank", Replicas: replicas})
		return err
	})
	var err error
	if w.repo, err = aggregate.NewRepository(w.store, accounts(), aggregate.RepositoryConfig{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
}

func (w *workload) run(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stops = append(w.stops, func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("%s: %v", name, err)
		}
	})
}

// end ends the modules.
func (w *workload) end() {
	w.mu.Lock()
	stops := w.stops
	w.stops = nil
	w.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

// write is a commit of one event.
func (w *workload) write(id string, event any, after jetstream.Head) jetstream.Write {
	w.Helper()
	data, err := events.Encode(event, w.store.Codec())
	if err != nil {
		w.Fatal(err)
	}
	return jetstream.Write{
		Type: "account", ID: id, After: after,
		Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	}
}

// appends are what the store promises.
func (w *workload) appends() {
	w.Helper()
	head, err := w.store.Append(w.ctx, w.write("x", opened{Owner: "x"}, jetstream.Head{}))
	if err != nil {
		w.Fatal(err)
	}
	_, err = w.store.Append(w.ctx, w.write("x", credited{Cents: 1}, jetstream.Head{}))
	if conflict, ok := errors.AsType[*jetstream.ConflictError](err); !ok || conflict.Actual != head.Sequence {
		w.Errorf("a stale append: %T %v", err, err)
	}
	if _, err := w.store.AppendAll(w.ctx,
		w.write("x", credited{Cents: 1}, head), w.write("y", opened{Owner: "y"}, jetstream.Head{})); err != nil {
		w.Errorf("a transaction: %v", err)
	}
	_, err = w.store.AppendAll(w.ctx,
		w.write("z", opened{Owner: "z"}, jetstream.Head{}), w.write("y", opened{Owner: "y"}, jetstream.Head{}))
	if _, ok := errors.AsType[*jetstream.ConflictError](err); !ok {
		w.Errorf("a stale transaction: %T %v", err, err)
	}
	if _, err := w.store.Last(w.ctx, "account", "z", jetstream.Leader); !errors.Is(err, jetstream.ErrNotFound) {
		w.Errorf("a half of it: %v", err)
	}
	key := jetstream.Key{Name: "email", Value: "ada@example.com"}
	reserving := w.write("k1", opened{Owner: "k"}, jetstream.Head{})
	reserving.Reserve = []jetstream.Key{key}
	if _, err := w.store.Append(w.ctx, reserving); err != nil {
		w.Errorf("a unique key: %v", err)
	}
	reserving = w.write("k2", opened{Owner: "k"}, jetstream.Head{})
	reserving.Reserve = []jetstream.Key{key}
	if _, err := w.store.Append(w.ctx, reserving); err == nil {
		w.Error("a unique key is given out twice")
	}
}

// commands go over the wire, twice with one id.
func (w *workload) commands() {
	w.Helper()
	svc, err := aggregate.NewService(w.repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	w.run("service", svc.Run)
	<-svc.Ready()
	client, err := aggregate.NewClient(w.store.Conn(), "bank", accounts(), aggregate.ClientConfig{})
	if err != nil {
		w.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		id := fmt.Sprint("a", i)
		wg.Go(func() {
			if _, err := client.Create(w.ctx, id, open{Owner: "ada"}); err != nil {
				w.Error(err)
			}
			for cents := range int64(4) {
				if _, err := client.Execute(w.ctx, id, credit{Cents: cents}); err != nil {
					w.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Sent again it is a duplicate. The first may be one, too: the client repeats what is
	// not answered in time.
	n := 0
	natstest.Eventually(w, "a command is no duplicate", func() error {
		n++
		id := aggregate.CommandID(fmt.Sprint("an id of the caller ", n))
		first, err1 := client.Execute(w.ctx, "a1", credit{}, id)
		second, err2 := client.Execute(w.ctx, "a1", credit{}, id)
		if err := errors.Join(err1, err2); err != nil || !second.Duplicate || second.Version != first.Version {
			w.Errorf("a command with an id: %+v, then %+v, %v", first, second, err)
		}
		if first.Duplicate {
			return fmt.Errorf("%+v", first)
		}
		return nil
	})
}

// follows runs each kind of follower.
func (w *workload) follows() {
	w.Helper()
	w.view(account{Owner: "ada", Cents: 6})
	var mu sync.Mutex
	mails := map[string]map[string]bool{} // keys by account
	gw, err := gateway.New(w.store, "mails", gateway.Config{Start: jetstream.FromBeginning(), Logger: quiet},
		gateway.On(events, func(_ context.Context, _ opened, d gateway.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if mails[d.ID] == nil {
				mails[d.ID] = map[string]bool{}
			}
			mails[d.ID][d.IdempotencyKey] = true
			return nil
		}))
	if err != nil {
		w.Fatal(err)
	}
	w.run("gateway", gw.Run)
	timers, err := aggregate.NewTimers(w.ctx, w.store, aggregate.TimersConfig{Logger: quiet}, w.repo)
	if err != nil {
		w.Fatal(err)
	}
	w.run("timers", timers.Run)
	reactor, err := aggregate.NewReactor(w.store, "bonus", aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
			if m.ID != "a2" {
				return nil
			}
			return do.After(ctx, time.Second, w.repo, m.ID, credit{Cents: 100})
		}))
	if err != nil {
		w.Fatal(err)
	}
	w.run("reactor", reactor.Run)
	natstest.Eventually(w, "mails", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(mails) != 23 {
			return fmt.Errorf("%d accounts", len(mails))
		}
		for id, keys := range mails {
			if len(keys) != 1 {
				w.Errorf("the mail to %s has %d keys", id, len(keys))
			}
		}
		return nil
	})
	natstest.Eventually(w, "the bonus comes", func() error {
		a, err := w.repo.Load(w.ctx, "a2")
		if err == nil && a.State.Cents != 106 {
			err = fmt.Errorf("%+v", a.State)
		}
		return err
	})
	admin := followers.New(w.store)
	natstest.Eventually(w, "the gateway is paused", func() error { return admin.Pause(w.ctx, "mails", "ada", "x") })
	natstest.Eventually(w, "the gateway goes on", func() error { return admin.Resume(w.ctx, "mails", "ada") })
	w.rebuild()
}

// view wants what the view has of a0, and runs its updater.
func (w *workload) view(want account) {
	w.Helper()
	if w.views == nil {
		var err error
		if w.views, err = projection.NewUpdater(w.store, view(1), projection.UpdaterConfig{Logger: quiet}); err != nil {
			w.Fatal(err)
		}
		w.run("updater", w.views.Run)
	}
	reader, err := projection.NewReader[account](w.ctx, w.store.Conn(), "bank", "accounts",
		projection.ReaderConfig{OpenWait: natstest.Patience})
	if err != nil {
		w.Fatal(err)
	}
	last, err := w.store.LastPosition(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	natstest.Eventually(w, "the view", func() error {
		e, err := reader.Get(w.ctx, "a0", projection.AtLeast(last))
		if err == nil && e.Value != want {
			err = fmt.Errorf("%+v", e.Value)
		}
		return err
	})
}

func (w *workload) rebuild() {
	w.Helper()
	admin, err := projection.NewAdmin(w.store.Conn(), "bank", "accounts")
	if err != nil {
		w.Fatal(err)
	}
	if _, err := admin.Rebuild(w.ctx, projection.RebuildOptions{Switch: true}); err != nil {
		w.Fatal(err)
	}
	natstest.Eventually(w, "the view is rebuilt", func() error {
		gens, err := admin.Generations(w.ctx)
		if err == nil && (len(gens) != 2 || !gens[1].Live) {
			err = fmt.Errorf("%+v", gens)
		}
		return err
	})
	w.view(account{Owner: "ada", Cents: 6})
}

// verifies wants the whole store whole.
func (w *workload) verifies() {
	w.Helper()
	for damage, err := range w.store.Verify(w.ctx, jetstream.Verification{Schemas: []*jetstream.Schema{events}}) {
		if err != nil || damage != nil {
			w.Errorf("%v, %v", damage, err)
		}
	}
}

// archives copies the store into another one.
func (w *workload) archives() {
	w.Helper()
	var file bytes.Buffer
	end, err := archive.Export(w.ctx, w.store, &file, archive.Config{Compress: true})
	if err != nil {
		w.Fatal(err)
	}
	to, err := jetstream.Open(w.ctx, w.store.Conn(), jetstream.Config{Name: "copy", Replicas: w.store.Replicas()})
	if err != nil {
		w.Fatal(err)
	}
	if p, err := archive.Import(w.ctx, strings.NewReader(file.String()), to, archive.ImportConfig{}); err != nil || p.Commits != end.Commits {
		w.Errorf("imported %+v of %+v, %v", p, end, err)
	}
}
