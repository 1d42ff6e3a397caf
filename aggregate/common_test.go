package aggregate_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	opened   struct{ Cents int64 }
	debited  struct{ Cents int64 }
	credited struct{ Cents int64 }

	account struct{ Cents int64 }

	open   struct{ Cents int64 }
	debit  struct{ Cents int64 }
	credit struct{ Cents int64 }
	// move debits and credits at once: several events of one decision.
	move struct{ Out, In int64 }
	// fail ends in what its Kind says.
	fail struct{ Kind string }
)

var events = jetstream.NewSchema("account",
	jetstream.Event[opened]("opened"),
	jetstream.Event[debited]("debited"),
	jetstream.Event[credited]("credited"),
)

var quiet = slog.New(slog.DiscardHandler)

var errPlain = errors.New("a plain error")

var accounts = newAccounts()

// newAccounts defines the same type anew, with more options.
func newAccounts(more ...aggregate.Option) *aggregate.Type[account] {
	return aggregate.New[account](events, append([]aggregate.Option{
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) {
			if e.Cents < 0 {
				panic("a negative credit")
			}
			a.Cents += e.Cents
		}),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) {
			return []any{opened(c)}, nil
		}),
		aggregate.Handle("debit", func(a account, c debit, _ aggregate.Decision) ([]any, error) {
			if a.Cents < c.Cents {
				return nil, aggregate.Reject("insufficient-funds", "balance %d is below %d", a.Cents, c.Cents)
			}
			return []any{debited(c)}, nil
		}),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) {
			if c.Cents == 0 {
				return nil, nil
			}
			return []any{credited(c)}, nil
		}),
		aggregate.Handle("move", func(_ account, c move, _ aggregate.Decision) ([]any, error) {
			return []any{&debited{c.Out}, credited{c.In}}, nil
		}),
		aggregate.Handle("fail", func(_ account, c fail, _ aggregate.Decision) ([]any, error) {
			switch c.Kind {
			case "panic":
				panic("on purpose")
			case "plain":
				return nil, errPlain
			case "undeclared":
				return []any{fail{}}, nil
			case "nil":
				return []any{nil}, nil
			case "bare":
				return nil, aggregate.ErrRejected
			default:
				return nil, aggregate.Reject(c.Kind, "because \xff")
			}
		}),
	}, more...)...)
}

// newStore gives a store of its own, which is patient unless it is told not to be.
func newStore(t testing.TB, nc *nats.Conn, cfg jetstream.Config) *jetstream.Store {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = natstest.Name(t)
	}
	cfg.AppendTimeout = cmp.Or(cfg.AppendTimeout, natstest.Patience)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	store, err := jetstream.Open(ctx, nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// newRepo gives a repository of accounts with a cache of its own.
func newRepo(t testing.TB, store *jetstream.Store) *aggregate.Repository[account] {
	t.Helper()
	return repoOf(t, store, accounts)
}

func repoOf[S any](t testing.TB, store *jetstream.Store, typ *aggregate.Type[S]) *aggregate.Repository[S] {
	t.Helper()
	repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{Logger: outages.logger()})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// newRepository gives a store of its own, and a repository in it.
func newRepository(t testing.TB, nc *nats.Conn) (*jetstream.Store, *aggregate.Repository[account]) {
	t.Helper()
	store := newStore(t, nc, jetstream.Config{})
	return store, newRepo(t, store)
}

// reopen opens the store again over another connection.
func reopen(t testing.TB, nc *nats.Conn, store *jetstream.Store) *jetstream.Store {
	t.Helper()
	return newStore(t, nc, jetstream.Config{Name: store.Name()})
}

// must executes a command that succeeds.
func must(t testing.TB, to aggregate.Target, id string, command any, opts ...aggregate.CallOption) aggregate.Result {
	t.Helper()
	res, err := to.Execute(t.Context(), id, command, opts...)
	if err != nil {
		t.Fatalf("%T on %s: %v", command, id, err)
	}
	return res
}

// balance wants an account to have a balance and a version.
func balance(t testing.TB, repo *aggregate.Repository[account], id string, cents int64, version uint64) {
	t.Helper()
	snap, err := repo.Load(t.Context(), id)
	if err != nil || snap.State.Cents != cents || snap.Version != version {
		t.Fatalf("%s is %+v (%v), want %d cents at version %d", id, snap, err, cents, version)
	}
}

func head(t testing.TB, store *jetstream.Store) uint64 {
	t.Helper()
	seq, err := store.LastSequence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func as[T error](t testing.TB, err error) T {
	t.Helper()
	var target T
	if !errors.As(err, &target) {
		t.Fatalf("%T %v, want a %T", err, err, target)
	}
	return target
}

func wantAs[T error](t testing.TB, err error) {
	t.Helper()
	_ = as[T](t, err)
}

// invalid wants an error that names a field.
func invalid(t testing.TB, err error, field string) {
	t.Helper()
	if got := as[*jetstream.InvalidError](t, err).Field; got != field {
		t.Fatalf("field %q in %q, want %q", got, err, field)
	}
}

// runner is a service, a reactor or timers.
type runner interface {
	Run(ctx context.Context) error
}

// run runs until the test ends, or until stop is called.
func run(t testing.TB, r runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// times is how often something is repeated: less with -short, as with the race detector.
func times(all, short int) int {
	if testing.Short() {
		return short
	}
	return all
}

// tell hands a value to the test, which may have heard enough: an event may be handled
// again at any time.
func tell[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// line is a connection's wire, which a test may hold or cut.
type line struct {
	net.Conn

	ears *ears
}

// ears dials lines. While deaf, what the server sends does not arrive.
type ears struct {
	mu    sync.Mutex
	cond  *sync.Cond
	deaf  bool
	lines []net.Conn
}

func newEars() *ears {
	e := new(ears)
	e.cond = sync.NewCond(&e.mu)
	return e
}

func (e *ears) Dial(network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).Dial(network, address)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, c)
	return &line{Conn: c, ears: e}, nil
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.ears.mu.Lock()
	defer l.ears.mu.Unlock()
	for l.ears.deaf {
		l.ears.cond.Wait()
	}
	return n, err
}

func (e *ears) setDeaf(deaf bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = deaf
	e.cond.Broadcast()
}

// cut breaks every line.
func (e *ears) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.lines {
		_ = c.Close()
	}
	e.lines = nil
}
