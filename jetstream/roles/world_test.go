package roles_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/jetstream/roles"
	"github.com/rossby-go/rossby/projection"
)

// The world of the tests: orders, invoices that a reactor makes of them, a view of
// the orders, a gateway that mails them and reports to them, a saga that takes an
// order back. And another store, "shop", of which nobody here may see anything.
type (
	placed struct {
		Cents int64
		Note  string
	}
	mailed struct{}

	order struct {
		Cents int64
		Note  string
		Mails int
	}

	place struct {
		Cents int64
		Note  string
	}
	mark struct{}
)

var orderEvents = jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Event[mailed]("mailed"))

func orders() *aggregate.Type[order] {
	return aggregate.New[order](orderEvents,
		aggregate.Apply(func(o *order, e placed, _ jetstream.Meta) { o.Cents, o.Note = e.Cents, e.Note }),
		aggregate.Apply(func(o *order, _ mailed, _ jetstream.Meta) { o.Mails++ }),
		aggregate.Create("place", func(c place, _ aggregate.Decision) ([]any, error) { return []any{placed(c)}, nil }),
		aggregate.Handle("mark", func(order, mark, aggregate.Decision) ([]any, error) { return []any{mailed{}}, nil }),
	)
}

type (
	issued  struct{ Cents int64 }
	overdue struct{}
	invoice struct{ Overdue bool }
	issue   struct{ Cents int64 }
	remind  struct{}
)

func invoices() *aggregate.Type[invoice] {
	return aggregate.New[invoice](
		jetstream.NewSchema("invoice", jetstream.Event[issued]("issued"), jetstream.Event[overdue]("overdue")),
		aggregate.Apply(func(*invoice, issued, jetstream.Meta) {}),
		aggregate.Apply(func(i *invoice, _ overdue, _ jetstream.Meta) { i.Overdue = true }),
		aggregate.Create("issue", func(c issue, _ aggregate.Decision) ([]any, error) { return []any{issued(c)}, nil }),
		aggregate.Handle("remind", func(invoice, remind, aggregate.Decision) ([]any, error) { return []any{overdue{}}, nil }),
	)
}

type row struct {
	Cents int64
	Mails int
}

func list() *projection.Definition[row] {
	return projection.NewKeyed("orders",
		projection.On(orderEvents, func(r *row, e placed, _ jetstream.Meta) { r.Cents = e.Cents }),
		projection.On(orderEvents, func(r *row, _ mailed, _ jetstream.Meta) { r.Mails++ }),
	).Index("mails", func(r row) []string { return []string{strconv.Itoa(r.Mails)} })
}

// users are those of the world. Those of the modules make what is theirs.
func users() []roles.User {
	one := func(name string, r roles.Role) roles.User {
		if r.Store == "" {
			r.Store = "bank"
		}
		return roles.User{Name: name, Roles: []roles.Role{r}}
	}
	return []roles.User{
		one("operator", roles.Role{Kind: roles.Operator}),
		one("orders", roles.Role{Kind: roles.Command, Name: "order", Makes: true}),
		one("invoices", roles.Role{Kind: roles.Command, Name: "invoice", Makes: true}),
		one("everything", roles.Role{Kind: roles.Command, Makes: true}),
		one("front", roles.Role{Kind: roles.Client, Types: []string{"order"}, Views: []string{"orders"}}),
		one("billing", roles.Role{Kind: roles.Reactor, Name: "billing", Types: []string{"invoice"}, Makes: true}),
		one("timers", roles.Role{Kind: roles.Timers, Types: []string{"invoice"}, Makes: true}),
		one("returns", roles.Role{Kind: roles.Saga, Name: "returns", Types: []string{"order"}, Makes: true}),
		one("list", roles.Role{Kind: roles.Projection, Name: "orders", Makes: true}),
		one("list-admin", roles.Role{Kind: roles.ProjectionAdmin, Name: "orders"}),
		one("reader", roles.Role{Kind: roles.Query, Name: "orders"}),
		one("mailer", roles.Role{Kind: roles.Gateway, Name: "mailer", Types: []string{"order"}, Makes: true}),
		one("mailer-later", roles.Role{Kind: roles.Gateway, Name: "mailer", Types: []string{"order"}}),
		one("keeper", roles.Role{Kind: roles.FollowersAdmin}),
		one("watcher", roles.Role{Kind: roles.FollowersWatcher}),
		one("console", roles.Role{Kind: roles.Console, Views: []string{"orders"}}),
		one("archive", roles.Role{Kind: roles.Archive}),
		one("copy", roles.Role{Kind: roles.Import, Store: "copy", Makes: true}),
		one("copy-operator", roles.Role{Kind: roles.Operator, Store: "copy"}),
		one("shop", roles.Role{Kind: roles.Command, Store: "shop", Makes: true}),
		one("shop-mailer", roles.Role{Kind: roles.Gateway, Store: "shop", Name: "mailer", Makes: true}),
	}
}

// world is a server that only its users may use, over TLS.
type world struct {
	*testing.T

	srv *embedded.Server

	mu     sync.Mutex
	denied []string
}

func newWorld(t *testing.T, credentials bool) *world {
	t.Helper()
	return newWorldOf(t, credentials, users())
}

func newWorldOf(t *testing.T, credentials bool, users []roles.User) *world {
	t.Helper()
	srv, err := embedded.Start(embedded.Config{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), LazySync: true, Users: users, Credentials: credentials,
		ReadyTimeout: natstest.Patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &world{T: t, srv: srv}
}

// as connects as a user. What the server denies the user is kept.
func (w *world) as(user string) *nats.Conn { return w.connect(user, w) }

// as another, whose denials are wanted.
func (w *world) trying(user string) *nats.Conn { return w.connect(user, nil) }

func (w *world) connect(user string, keep *world) *nats.Conn {
	w.Helper()
	cfg, err := w.srv.ConnectConfig(user)
	if err != nil {
		w.Fatal(err)
	}
	cfg.Logger, cfg.Wait = slog.New(slog.DiscardHandler), natstest.Patience
	cfg.Options = []nats.Option{nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if keep != nil {
			keep.note(user + ": " + err.Error())
		}
	})}
	nc, err := jetstream.Connect(w.Context(), cfg)
	if err != nil {
		w.Fatalf("%s: %v", user, err)
	}
	w.Cleanup(nc.Close)
	return nc
}

func (w *world) note(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denied = append(w.denied, text)
}

// nothingDenied wants that the modules needed no more than they may.
func (w *world) nothingDenied() {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.denied {
		w.Error(text)
	}
}

func (w *world) attach(user, store string) *jetstream.Store {
	w.Helper()
	s, err := jetstream.Attach(w.Context(), w.as(user), store)
	if err != nil {
		w.Fatalf("%s: %v", user, err)
	}
	return s
}

// run runs a module until the test ends.
func (w *world) run(name string, run func(context.Context) error) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("%s: %v", name, err)
		}
	})
	w.Cleanup(stop)
	return stop
}

func repository[S any](w *world, user string, typ *aggregate.Type[S]) *aggregate.Repository[S] {
	w.Helper()
	store, err := jetstream.Open(w.Context(), w.as(user), jetstream.Config{Name: "bank"})
	if err != nil {
		w.Fatalf("%s: %v", user, err)
	}
	repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{
		StateEvery: 1, Logger: slog.New(&denials{w: w, user: user}),
	})
	if err != nil {
		w.Fatal(err)
	}
	return repo
}

func serve[S any](w *world, user string, typ *aggregate.Type[S]) *aggregate.Repository[S] {
	w.Helper()
	repo := repository(w, user, typ)
	svc, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	w.run(user, svc.Run)
	<-svc.Ready()
	return repo
}

// denials keeps warnings that tell of permissions.
type denials struct {
	slog.Handler

	w    *world
	user string
}

func (d *denials) Enabled(context.Context, slog.Level) bool { return true }

func (d *denials) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if text := a.Value.String(); strings.Contains(text, "permission") {
			d.w.note(fmt.Sprintf("%s: %s: %s", d.user, r.Message, text))
		}
		return true
	})
	return nil
}

func (d *denials) WithAttrs([]slog.Attr) slog.Handler { return d }
func (d *denials) WithGroup(string) slog.Handler      { return d }

// wantDenied wants what the server says, and not a timeout: whatever waits for one
// has not got a deadline as long as this.
func (w *world) wantDenied(what, op, subject string, err error) {
	w.Helper()
	denied, ok := errors.AsType[*jetstream.PermissionError](err)
	if !ok || denied.Op != op || !strings.HasPrefix(denied.Subject, subject) {
		w.Errorf("%s: %T %v, want %s to %q denied", what, err, err, op, subject)
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	t.Cleanup(cancel)
	return ctx
}

const soon = 10 * time.Millisecond
