package roles_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

// bothWays runs a test with client certificates and with credentials.
func bothWays(t *testing.T, test func(w *world)) {
	t.Helper()
	for name, credentials := range map[string]bool{"Certificates": false, "Credentials": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newWorld(t, credentials))
		})
	}
}

// TestAllowed: every module does all that it does under its own role, and the
// server denies none of it.
func TestAllowed(t *testing.T) {
	t.Parallel()
	bothWays(t, func(w *world) {
		ctx := within(w)
		quiet := slog.New(slog.DiscardHandler)
		if _, err := jetstream.Open(ctx, w.as("operator"), jetstream.Config{Name: "bank"}); err != nil {
			w.Fatal(err)
		}
		repo := serve(w, "orders", orders())
		serve(w, "invoices", invoices())
		w.modules(quiet)
		figures := w.figures(quiet)

		// A client, which sees no more than the services.
		nc := w.as("front")
		client, err := aggregate.NewClient(nc, "bank", orders(), aggregate.ClientConfig{})
		if err != nil {
			w.Fatal(err)
		}
		note := strings.Repeat("long ", 500) // a state that has to go into the bucket
		var last jetstream.Position
		for i := range 3 {
			res, err := client.Create(ctx, fmt.Sprint("o", i), place{Cents: int64(i), Note: note}, aggregate.CommandID(fmt.Sprint("key-", i)))
			if err != nil {
				w.Fatal(err)
			}
			last = res.Position
		}
		for _, c := range collect(w, repo.History(ctx, "o0")) {
			if c.Name != "placed" && c.Name != "mailed" {
				w.Errorf("history: %+v", c)
			}
		}
		queries := projection.NewQueryClient[row](nc, "bank", "orders")
		natstest.Eventually(w, "the view has the order, mailed", func() error {
			e, err := queries.Get(ctx, "o2", projection.AtLeast(last))
			if err == nil && (e.Value.Cents != 2 || e.Value.Mails != 1) {
				err = fmt.Errorf("%+v", e.Value)
			}
			return err
		})
		natstest.Eventually(w, "the view in a database has an order", figures.follows)
		n := 0
		for _, err := range queries.List(ctx, projection.ListOptions{}) {
			if err != nil {
				w.Fatal(err)
			}
			n++
		}
		if n != 4 {
			w.Errorf("%d orders are listed", n)
		}
		invoiced := repository(w, "invoices", invoices())
		natstest.Eventually(w, "the timer reminds of the invoice", func() error {
			i, err := invoiced.Load(ctx, "o0")
			if err == nil && !i.State.Overdue {
				err = errors.New("not overdue")
			}
			return err
		})
		stateReader := w.as("orders")
		natstest.Eventually(w, "states are in the bucket", func() error {
			_, err := wire.LeaderLast(ctx, stateReader, "KV_bank__state", "$KV.bank__state.order.>")
			return err
		})
		w.keys()
		w.admins()
		w.archives()
		w.nothingDenied()
	})
}

// modules runs those that follow the events.
func (w *world) modules(quiet *slog.Logger) {
	w.Helper()
	ctx := w.Context()
	fail := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	updater, err := projection.NewUpdater(w.attach("list", "bank"), list(), projection.UpdaterConfig{Logger: quiet})
	fail(err)
	w.run("list", updater.Run)

	readers := w.as("reader")
	reader, err := projection.NewReader[row](ctx, readers, "bank", "orders", projection.ReaderConfig{OpenWait: natstest.Patience})
	fail(err)
	queries, err := projection.NewQueryService(readers, projection.QueryConfig{}, reader)
	fail(err)
	w.Cleanup(func() { _ = queries.Stop() })
	w.run("watch", func(ctx context.Context) error {
		for _, err := range reader.Watch(ctx, projection.WatchOptions{}) {
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})

	store := w.attach("billing", "bank")
	bills, err := aggregate.NewClient(store.Conn(), "bank", invoices(), aggregate.ClientConfig{})
	fail(err)
	timerStore := w.attach("timers", "bank")
	timed, err := aggregate.NewClient(timerStore.Conn(), "bank", invoices(), aggregate.ClientConfig{})
	fail(err)
	timers, err := aggregate.NewTimers(ctx, timerStore, aggregate.TimersConfig{Logger: quiet, Sweep: 50 * time.Millisecond}, timed)
	fail(err)
	w.run("timers", timers.Run)
	reactor, err := aggregate.NewReactor(store, "billing", aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		aggregate.On(orderEvents, func(ctx context.Context, e placed, m jetstream.Meta, do *aggregate.Do) error {
			if _, err := do.Create(ctx, bills, m.ID, issue{e.Cents}); err != nil {
				return err
			}
			if err := do.After(ctx, soon, bills, m.ID, remind{}); err != nil {
				return err
			}
			return do.Cancel(ctx, bills, m.ID, "none")
		}))
	fail(err)
	w.run("billing", reactor.Run)

	mailer, err := gateway.New(w.attach("mailer", "bank"), "mailer",
		gateway.Config{Start: jetstream.FromBeginning(), Logger: quiet},
		gateway.On(orderEvents, func(ctx context.Context, _ placed, d gateway.Delivery) error {
			return d.Command(ctx, gateway.Command{Type: "order", ID: d.ID, Name: "mark", Body: struct{}{}})
		}))
	fail(err)
	w.run("mailer", mailer.Run)

	returnsStore := w.attach("returns", "bank")
	marks, err := aggregate.NewClient(returnsStore.Conn(), "bank", orders(), aggregate.ClientConfig{})
	fail(err)
	type trip struct{ Order string }
	process, err := saga.NewProcess(ctx, returnsStore, saga.New("returns", saga.Step[trip]{
		Name: "mark", Timeout: time.Minute,
		Do: func(i saga.Instance[trip]) saga.Command { return saga.Send(marks, i.Data.Order, mark{}) },
	}), saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet},
		Timers:  aggregate.TimersConfig{Logger: quiet, Sweep: 50 * time.Millisecond},
	})
	fail(err)
	w.run("returns", process.Run)
	repo, err := marks.Create(within(w), "taken-back", place{Cents: 9})
	fail(err)
	_, err = process.Start(within(w), "r1", trip{Order: repo.ID})
	fail(err)
	natstest.Eventually(w, "the saga has ended", func() error {
		i, err := process.Instances().Load(ctx, "r1")
		if err == nil && i.State.Phase != saga.Completed {
			err = fmt.Errorf("%+v", i.State)
		}
		return err
	})
}

// keys takes a unique key, under the role of a command module.
func (w *world) keys() {
	w.Helper()
	store := w.attach("orders", "bank")
	data, err := orderEvents.Encode(placed{Cents: 1}, store.Codec())
	if err != nil {
		w.Fatal(err)
	}
	write := jetstream.Write{
		Type: "order", ID: "unique", Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
		Reserve: []jetstream.Key{{Name: "number", Value: "1"}},
	}
	if _, err := store.Append(within(w), write); err != nil {
		w.Error(err)
	}
	if _, err := store.Owner(within(w), write.Reserve[0]); err != nil {
		w.Error(err)
	}
}

// admins do what people do.
func (w *world) admins() {
	w.Helper()
	ctx := within(w)
	keeper := followers.New(w.attach("keeper", "bank"))
	watcher := followers.New(w.attach("watcher", "bank"))
	for name, a := range map[string]*followers.Admin{"keeper": keeper, "watcher": watcher} {
		natstest.Eventually(w, name, func() error { // a slow one may not answer in time
			all, err := a.List(ctx)
			if err != nil || len(all) < 4 {
				return fmt.Errorf("%d followers, %w", len(all), err)
			}
			for _, s := range all {
				if s.Kind == "" {
					return fmt.Errorf("nobody answers for %s", s.Name)
				}
			}
			return nil
		})
	}
	natstest.Eventually(w, "a pause", func() error { return keeper.Pause(ctx, "mailer", "ada", "x") })
	natstest.Eventually(w, "its end", func() error { return keeper.Resume(ctx, "mailer", "ada") })
	for _, err := range watcher.Actions(ctx, "mailer") {
		if err != nil {
			w.Error(err)
		}
	}

	w.attach("list-admin", "bank") // to read the types that a view follows, say
	admin, err := projection.NewAdmin(w.as("list-admin"), "bank", "orders")
	if err != nil {
		w.Fatal(err)
	}
	if err := errors.Join(admin.Pause(ctx, "x"), admin.Resume(ctx)); err != nil {
		w.Error(err)
	}
	if _, err := admin.Rebuild(ctx, projection.RebuildOptions{Switch: true}); err != nil {
		w.Error(err)
	}
	var old int
	natstest.Eventually(w, "the view is rebuilt", func() error {
		gens, err := admin.Generations(ctx)
		if err != nil {
			return err
		}
		if len(gens) == 2 && gens[1].Live {
			old = gens[0].Number
			return nil
		}
		return fmt.Errorf("%+v", gens)
	})
	if err := admin.Remove(ctx, old); err != nil {
		w.Error(err)
	}
	if done, err := admin.RebuildAggregate(ctx, "order", "o1", "x"); err != nil {
		w.Errorf("rebuild of one aggregate: %+v, %v", done, err)
	}
	if s, err := admin.Status(ctx); err != nil || s.View != "orders" {
		w.Errorf("%+v, %v", s, err)
	}
}

// archives reads the whole store, and makes a copy of it.
func (w *world) archives() {
	w.Helper()
	ctx := within(w)
	from := w.attach("archive", "bank")
	for d, err := range from.Verify(ctx, jetstream.Verification{Schemas: []*jetstream.Schema{orderEvents}}) {
		if err != nil || d != nil {
			w.Errorf("verify: %v, %v", d, err)
		}
	}
	var file bytes.Buffer
	end, err := archive.Export(ctx, from, &file, archive.Config{})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := jetstream.Open(ctx, w.as("copy-operator"), jetstream.Config{Name: "copy"}); err != nil {
		w.Fatal(err)
	}
	to := w.attach("copy", "copy")
	p, err := archive.Import(ctx, &file, to, archive.ImportConfig{})
	if err != nil || p.Commits != end.Commits {
		w.Errorf("imported %+v of %+v, %v", p, end, err)
	}
}

func collect[T any](w *world, seq func(func(T, error) bool)) (all []T) {
	w.Helper()
	for v, err := range seq {
		if err != nil {
			w.Error(err)
		}
		all = append(all, v)
	}
	return all
}
