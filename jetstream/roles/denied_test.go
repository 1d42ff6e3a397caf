package roles_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

// TestDenied: what a role is not for is denied, and said so by name.
func TestDenied(t *testing.T) {
	t.Parallel()
	bothWays(t, func(w *world) {
		ctx := within(w)
		for store, user := range map[string]string{"bank": "everything", "shop": "shop"} {
			s, err := jetstream.Open(ctx, w.as(user), jetstream.Config{Name: store})
			if err != nil {
				w.Fatal(err)
			}
			repo, err := aggregate.NewRepository(s, orders(), aggregate.RepositoryConfig{})
			if err != nil {
				w.Fatal(err)
			}
			if _, err := repo.Create(ctx, "o1", place{Cents: 1}); err != nil {
				w.Fatal(err)
			}
		}
		w.Run("Subjects", func(t *testing.T) { w.in(t).subjects() })
		w.Run("Inboxes", func(t *testing.T) { w.in(t).inboxes() })
		w.Run("Modules", func(t *testing.T) { w.in(t).modulesOfOthers() })
		w.Run("Services", func(t *testing.T) { w.in(t).servicesOfOthers() })
		w.nothingDenied()
	})
}

// in is the world for a part of the test.
func (w *world) in(t *testing.T) *world {
	t.Helper()
	return &world{T: t, srv: w.srv}
}

// subjects publishes what each role must not.
func (w *world) subjects() {
	w.Helper()
	const event = "bank.event.order.1.o1"
	for user, subjects := range map[string][]string{
		// A query reads its view, and nothing else.
		"reader": {
			event, "$KV.bank_orders.1.o1", "$KV.bank_orders._rossby.view", "$JS.API.DIRECT.GET.bank",
			"$JS.API.STREAM.MSG.GET.bank", "$JS.API.CONSUMER.CREATE.bank.reader", "$JS.API.STREAM.PURGE.KV_bank_orders",
			"bank.command.order.mark.o1", "$JS.API.DIRECT.GET.KV_bank_ledger",
		},
		// A projection writes its view, and appends nothing.
		"list": {
			event, "bank.event._key.1.x", "$KV.bank_ledger.1.o1", "$JS.API.STREAM.DELETE.bank", "$JS.API.STREAM.UPDATE.bank",
			"$JS.API.STREAM.PURGE.KV_bank_orders", "$JS.API.STREAM.DELETE.KV_bank_orders", "bank.command.order.mark.o1",
			"$JS.API.CONSUMER.CREATE.bank.mailer", "$KV.bank__followers.mailer", "$JS.API.DIRECT.GET.shop",
		},
		"list-admin": {event, "$KV.bank_orders.1.o1", "$JS.API.STREAM.DELETE.KV_bank_orders", "$JS.API.DIRECT.GET.bank"},
		// A gateway sees its store, and reports to the types that it was given.
		"mailer": {
			event, "$KV.bank_orders.1.o1", "bank.command.invoice.remind.o1", "$KV.bank__followers.billing",
			"$KV.bank__deliveries.other.x", "$JS.API.DIRECT.GET.shop", "$JS.API.STREAM.MSG.GET.shop",
			"$JS.API.STREAM.INFO.shop", "$JS.API.CONSUMER.CREATE.shop.mailer", "$JS.API.CONSUMER.MSG.NEXT.shop.mailer",
			"bank.follower.mailer.discard", "$JS.API.STREAM.DELETE.bank__timers", "bank.timer.set.order.a.b",
		},
		"shop-mailer": {"$JS.API.DIRECT.GET.bank", "$JS.API.STREAM.INFO.bank", event, "bank.command.order.mark.o1"},
		// A reactor commands; it does not append.
		"billing": {event, "bank.event.invoice.1.o1", "bank.command.order.mark.o1", "bank.timer.set.order.a.b"},
		"timers":  {event, "bank.event.invoice.1.o1", "bank.timer.set.invoice.a.b", "bank.timer.due.invoice.a.b"},
		"returns": {event, "$KV.bank__sagas.other.x"},
		// A command module keeps its own type, and deletes nothing.
		"orders": {
			"bank.event.invoice.1.o1", "$KV.bank__state.invoice.f.x", "$JS.API.STREAM.DELETE.bank", "$JS.API.STREAM.PURGE.bank",
			"$JS.API.STREAM.MSG.DELETE.bank", "$JS.API.STREAM.UPDATE.bank", "$JS.API.STREAM.SNAPSHOT.bank",
			"shop.event.order.1.o1", "$KV.bank_orders.1.o1",
		},
		"everything": {"$JS.API.STREAM.DELETE.bank", "$JS.API.STREAM.PURGE.bank", "$JS.API.STREAM.UPDATE.bank"},
		"front": {
			event, "bank.command.invoice.remind.o1", "bank.query.ledger.get.o1", "$JS.API.INFO", "$JS.API.DIRECT.GET.bank",
			"shop.command.order.mark.o1",
		},
		"watcher":       {event, "bank.follower.mailer.pause", "bank.follower.mailer.discard", "$KV.bank__followers.mailer"},
		"keeper":        {event, "$KV.bank__followers.mailer", "bank.action.mailer"},
		"console":       {event, "bank.follower.mailer.pause", "$KV.bank_orders._rossby.control", "bank.command.order.mark.o1"},
		"archive":       {event, "$JS.API.STREAM.DELETE.bank", "$JS.API.DIRECT.GET.shop"},
		"copy":          {event, "$JS.API.DIRECT.GET.bank", "$JS.API.STREAM.DELETE.copy"},
		"operator":      {event, "$JS.API.STREAM.DELETE.bank", "$JS.API.STREAM.PURGE.bank"},
		"copy-operator": {"$JS.API.STREAM.UPDATE.bank"},
		"mailer-later":  {"$JS.API.STREAM.CREATE.KV_bank__deliveries", "$JS.API.STREAM.CREATE.KV_bank__followers"},
	} {
		nc := w.trying(user)
		for _, subject := range subjects {
			_, err := wire.Ask(within(w), nc, subject, nil)
			w.wantDenied(user, "publish", subject, err)
		}
	}
}

// inboxes listens to the replies of others, and to what modules are sent.
func (w *world) inboxes() {
	w.Helper()
	for _, u := range users() {
		nc := w.trying(u.Name)
		for _, subject := range []string{"_INBOX.>", "_INBOX_shop.>", "_INBOX_orders.>", ">", "*.>", "$KV.>", "bank.event.>"} {
			if strings.HasPrefix(subject, u.InboxPrefix()+".") {
				continue
			}
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				w.Fatal(err)
			}
			if _, err := sub.NextMsg(natstest.Patience); !errors.Is(err, nats.ErrPermissionViolation) {
				w.Errorf("%s listens to %s: %v", u.Name, subject, err)
			}
		}
	}
	// Who has another's prefix is told so at the first request, and at every one.
	cfg, err := w.srv.ConnectConfig("mailer")
	if err != nil {
		w.Fatal(err)
	}
	cfg.InboxPrefix, cfg.Logger, cfg.Wait = "_INBOX_orders", slog.New(slog.DiscardHandler), natstest.Patience
	nc, err := jetstream.Connect(w.Context(), cfg)
	if err != nil {
		w.Fatal(err)
	}
	defer nc.Close()
	for range 2 {
		_, err := jetstream.Attach(within(w), nc, "bank")
		w.wantDenied("mailer", "subscribe", "_INBOX_orders.", err)
	}
}

// modulesOfOthers runs modules under roles of others.
func (w *world) modulesOfOthers() {
	w.Helper()
	quiet := slog.New(slog.DiscardHandler)
	attach := func(user, store string) (*jetstream.Store, error) {
		return jetstream.Attach(within(w), w.trying(user), store)
	}
	_, err := attach("mailer", "shop")
	w.wantDenied("a gateway reads another store", "publish", "$JS.API.STREAM.INFO.shop", err)
	_, err = attach("shop-mailer", "bank")
	w.wantDenied("a gateway reads another store", "publish", "$JS.API.STREAM.INFO.bank", err)
	_, err = attach("front", "bank")
	w.wantDenied("a client reads a store", "publish", "$JS.API.INFO", err)

	s, err := attach("list", "bank")
	if err != nil {
		w.Fatal(err)
	}
	data, err := orderEvents.Encode(placed{Cents: 1}, s.Codec())
	if err != nil {
		w.Fatal(err)
	}
	_, err = s.Append(within(w), jetstream.Write{
		Type: "order", ID: "o2", Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
	})
	w.wantDenied("a projection appends", "publish", "bank.event.order.", err)
	if _, refused := errors.AsType[*jetstream.RefusedError](err); !refused {
		w.Errorf("%T: nothing of it is stored", err)
	}

	other, err := projection.NewUpdater(s, projection.NewKeyed("ledger",
		projection.On(orderEvents, func(r *row, e placed, _ jetstream.Meta) { r.Cents += e.Cents })),
		projection.UpdaterConfig{Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	w.untilDenied("a projection keeps another view", "$JS.API.STREAM.INFO.KV_bank_ledger", other.Run,
		func() error { return other.Status().Err })

	s, err = attach("mailer", "bank")
	if err != nil {
		w.Fatal(err)
	}
	gw, err := gateway.New(s, "letters", gateway.Config{Start: jetstream.FromBeginning(), Logger: quiet},
		gateway.On(orderEvents, func(context.Context, placed, gateway.Delivery) error { return nil }))
	if err != nil {
		w.Fatal(err)
	}
	w.untilDenied("a gateway of another name", "", gw.Run, func() error { return gw.Status().LastError })

	watcher, err := attach("watcher", "bank")
	if err != nil {
		w.Fatal(err)
	}
	w.wantDenied("a watcher pauses", "publish", "bank.follower.mailer.pause",
		followers.New(watcher).Pause(within(w), "mailer", "eve", "x"))
}

// untilDenied runs a module until it says that it is denied.
func (w *world) untilDenied(what, subject string, run func(context.Context) error, status func() error) {
	w.Helper()
	stop := w.run(what, run)
	defer stop()
	var err error
	if natstest.Eventually(w, what, func() error {
		if err = status(); !wire.Denied(err) {
			return fmt.Errorf("its status is %w", err)
		}
		return nil
	}) {
		w.wantDenied(what, "publish", subject, err)
	}
}

// servicesOfOthers answers what is meant for others.
func (w *world) servicesOfOthers() {
	w.Helper()
	nc := w.trying("invoices")
	s, err := jetstream.Attach(within(w), nc, "bank")
	if err != nil {
		w.Fatal(err)
	}
	repo, err := aggregate.NewRepository(s, orders(), aggregate.RepositoryConfig{})
	if err != nil {
		w.Fatal(err)
	}
	svc, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	w.wantDenied("a service takes commands of another type", "subscribe", "bank.command.order.", svc.Run(within(w)))

	client, err := aggregate.NewClient(w.trying("front"), "bank", invoices(), aggregate.ClientConfig{})
	if err != nil {
		w.Fatal(err)
	}
	_, err = client.Create(within(w), "i1", issue{Cents: 1})
	w.wantDenied("a client commands another type", "publish", "bank.command.invoice.", err)
	_, err = projection.NewQueryClient[row](w.trying("front"), "bank", "ledger").Get(within(w), "o1")
	w.wantDenied("a client asks another view", "publish", "bank.query.ledger.", err)

	// A service answers who asked it, and nobody else.
	answers := w.trying("orders")
	sub, err := answers.SubscribeSync("bank.command.order.mark.x")
	if err != nil {
		w.Fatal(err)
	}
	if err := answers.FlushWithContext(within(w)); err != nil {
		w.Fatal(err)
	}
	asks := w.as("front")
	reply := make(chan *nats.Msg, 2)
	go func() {
		m, err := wire.Ask(within(w), asks, "bank.command.order.mark.x", nil)
		if err != nil {
			w.Error(err)
		}
		reply <- m
	}()
	asked, err := sub.NextMsgWithContext(within(w))
	if err != nil {
		w.Fatal(err)
	}
	if err := asked.Respond([]byte("yes")); err != nil {
		w.Fatal(err)
	}
	if m := <-reply; m == nil || string(m.Data) != "yes" {
		w.Errorf("%+v", m)
	}
	_, err = wire.Ask(within(w), answers, asked.Reply, nil)
	w.wantDenied("a second answer", "publish", asked.Reply, err)
	_, err = wire.Ask(within(w), answers, "_INBOX_front.x", nil)
	w.wantDenied("an answer to nobody", "publish", "_INBOX_front.x", err)
}
