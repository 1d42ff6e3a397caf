package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/api"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
	"github.com/rossby-go/rossby/cmd/demo/internal/traces"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/projection"
)

// StoreName is the name of the bank's store.
const StoreName = "bank"

// openingProcess is the part that drives openings; the module's other one takes their
// commands.
const openingProcess = "opening-process"

// Config says what a process of the bank needs. Conn and Modules are required.
type Config struct {
	// Conn is the connection to NATS, which the process shares.
	Conn *nats.Conn
	// Line gives each follower a connection of its own, so that the page can let it die
	// as if it were a process of its own, and break all their connections. Defaults to
	// none: all is on Conn.
	Line *Line
	// Modules are what the process runs.
	Modules []Module
	// Others are parts of the bank in this process whose modules the page can break,
	// too.
	Others []*App
	// Deadline is how long a transfer may wait for its debit, and a new account for its
	// first money. Defaults to [commands.DeadlineDefault].
	Deadline time.Duration
	// DurabilitySources are where to learn how the servers sync.
	DurabilitySources jetstream.DurabilitySources
	// Listener is where the HTTP module serves.
	Listener net.Listener
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// NotifyURL is where the notifications module POSTs.
	NotifyURL string
	// Replicas is the number of servers that keep a store that is made. Defaults
	// to 1.
	Replicas int
	// RequireDurability is the least the servers must do for a commit. Defaults to
	// no requirement.
	RequireDurability jetstream.DurabilityLevel
	// Service is the notification service in this process, if there is one.
	Service *notify.Service
	// Signals is where the process tells of itself, /metrics, /healthz and /readyz, which
	// the HTTP module does, too. Defaults to nowhere.
	Signals net.Listener
	// Switches are what else the page can break.
	Switches []console.Switch
	// ViewsOnly tells that the process may read the views, and not the store: it can
	// run nothing but [Queries].
	ViewsOnly bool
	// TTL is how long a dead instance keeps its place. Defaults to 3 s.
	TTL time.Duration
	// Recorder gets the spans of this process, and is what its page shows. Without one
	// they are sent over NATS, and the page hears those of all processes: their users
	// must be allowed to.
	Recorder *traces.Recorder
}

// Validate reports what [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Conn == nil {
		errs = append(errs, errors.New("app: no connection"))
	}
	if len(c.Modules) == 0 {
		errs = append(errs, errors.New("app: no modules"))
	}
	if c.ViewsOnly && slices.ContainsFunc(c.Modules, func(m Module) bool { return m != Queries }) {
		errs = append(errs, fmt.Errorf("app: modules %v need the store", c.Modules))
	}
	if c.ViewsOnly && c.Signals != nil {
		errs = append(errs, errors.New("app: what a process tells of itself needs the store"))
	}
	if slices.Contains(c.Modules, HTTP) && c.Listener == nil {
		errs = append(errs, fmt.Errorf("app: module %q has no address to listen on", HTTP))
	}
	if slices.Contains(c.Modules, Notifications) && c.NotifyURL == "" {
		errs = append(errs, fmt.Errorf("app: module %q has no URL to notify", Notifications))
	}
	return errors.Join(errs...)
}

// App is a process of the bank.
type App struct {
	cfg   Config
	store *jetstream.Store
	// decides is the store as the commands' modules reach it.
	decides *jetstream.Store
	// Accounts, Customers and Transfers are where commands go: repositories where
	// the module runs in this process, clients of the services where it does not.
	Accounts, Customers, Transfers, Openings aggregate.Target

	parts    []*part
	sagas    []console.Saga
	closes   []func()
	signals  *signals
	reported reported
}

// New opens the bank's store and prepares the modules. A process with a
// command-side module makes the store when it does not exist; any other returns
// an error that says so.
func New(ctx context.Context, cfg Config) (*App, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Deadline = cmp.Or(cfg.Deadline, commands.DeadlineDefault)
	a := &App{cfg: cfg}
	if err := a.openStore(ctx); err != nil {
		return nil, err
	}
	err := a.openLine(ctx)
	if err != nil {
		return nil, err
	}
	if a.signals, err = newSignals(a.store, cfg); err != nil {
		return nil, err
	}
	if a.Accounts, err = target(a, AccountCommands, commands.AccountType()); err != nil {
		return nil, err
	}
	if a.Customers, err = target(a, CustomerCommands, commands.CustomerType()); err != nil {
		return nil, err
	}
	if a.Transfers, err = target(a, TransferCommands, commands.TransferType()); err != nil {
		return nil, err
	}
	if a.Openings, err = target(a, AccountOpening, opening.New(a.Accounts, cfg.Deadline).Type()); err != nil {
		return nil, err
	}
	for _, m := range cfg.Modules {
		if err := a.prepare(ctx, m); err != nil {
			return nil, fmt.Errorf("module %s: %w", m, err)
		}
	}
	return a, nil
}

// openStore opens the bank's store, which who only reads views may not see.
func (a *App) openStore(ctx context.Context) (err error) {
	switch {
	case a.cfg.ViewsOnly:
		return nil
	case slices.ContainsFunc(a.cfg.Modules, Module.commandSide):
		a.store, err = jetstream.Open(ctx, a.cfg.Conn, jetstream.Config{Name: StoreName, Replicas: a.cfg.Replicas})
	default:
		a.store, err = jetstream.Attach(ctx, a.cfg.Conn, StoreName)
	}
	if err != nil {
		return err
	}
	if err := a.checkDurability(ctx); err != nil {
		return fmt.Errorf("store %q: %w", StoreName, err)
	}
	return nil
}

// openLine opens the store for the commands' modules: over the line, where there is
// one.
func (a *App) openLine(ctx context.Context) error {
	a.decides = a.store
	if a.cfg.Line == nil || !slices.ContainsFunc(a.cfg.Modules, Module.decides) {
		return nil
	}
	nc, err := a.cfg.Line.connect(a.cfg.Conn.Opts)
	if err != nil {
		return err
	}
	a.closes = append(a.closes, nc.Close)
	a.decides, err = jetstream.Attach(ctx, nc, StoreName)
	return err
}

// target is where the commands of a type go. Where the module runs here, its
// command service does, too.
//
//nolint:ireturn // a repository or a client, that is the point
func target[S any](a *App, m Module, typ *aggregate.Type[S]) (aggregate.Target, error) {
	if !slices.Contains(a.cfg.Modules, m) {
		return aggregate.NewClient(a.cfg.Conn, StoreName, typ, aggregate.ClientConfig{TracerProvider: a.signals.tracer()})
	}
	repo, err := aggregate.NewRepository(a.decides, typ, aggregate.RepositoryConfig{
		Logger: a.cfg.Logger, TracerProvider: a.signals.tracer(), MeterProvider: a.signals.meters,
	})
	if err != nil {
		return nil, err
	}
	if m := a.signals.monitor; m != nil {
		m.Repository(repo)
	}
	return repo, a.add(string(m), func() (runner, error) {
		svc, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: a.cfg.Logger})
		if err != nil {
			return nil, err
		}
		return watched(svc.Run, func() func() { return a.signals.monitor.Service(svc) }), nil
	})
}

func (a *App) prepare(ctx context.Context, m Module) error {
	switch m {
	case AccountCommands, CustomerCommands, TransferCommands:
		return nil // target has made them
	case TransferProcess:
		return a.prepareProcess(ctx)
	case AccountOpening:
		return a.prepareOpenings(ctx)
	case AccountView:
		return a.updater(ctx, m, views.Accounts())
	case CustomerView:
		return a.updater(ctx, m, views.Customers())
	case TransferView:
		return a.updater(ctx, m, views.Transfers())
	case LedgerView:
		return a.updater(ctx, m, views.LedgerView())
	case Queries:
		return a.add(string(m), func() (runner, error) { return a.serveQueries, nil })
	case Notifications:
		return a.follower(ctx, string(m), func(_ context.Context, store *jetstream.Store) (runner, error) {
			g, err := notify.NewGateway(store, a.cfg.NotifyURL, &http.Client{Timeout: 10 * time.Second}, gateway.Config{
				Start: jetstream.FromBeginning(), Logger: a.cfg.Logger, TTL: a.cfg.TTL, Timeout: 15 * time.Second,
				MaxBackoff: 5 * time.Second, Concurrency: 8, TracerProvider: a.signals.tracer(), MeterProvider: a.signals.meters,
			})
			if err != nil {
				return nil, err
			}
			return watched(g.Run, func() func() { return a.signals.monitor.Gateway(g) }), nil
		})
	case HTTP:
		return a.add(string(m), func() (runner, error) { return a.serveHTTP, nil })
	}
	return nil
}

func (a *App) prepareProcess(ctx context.Context) error {
	err := a.follower(ctx, "timers", func(ctx context.Context, store *jetstream.Store) (runner, error) {
		timers, err := aggregate.NewTimers(ctx, store, aggregate.TimersConfig{Logger: a.cfg.Logger, TTL: a.cfg.TTL},
			a.Transfers)
		if err != nil {
			return nil, err
		}
		return watched(timers.Run, func() func() { return a.signals.monitor.Timers(timers) }), nil
	})
	process := func(_ context.Context, store *jetstream.Store) (runner, error) {
		reactor, err := commands.NewReactor(store, a.Accounts, a.Transfers, a.cfg.Deadline, aggregate.ReactorConfig{
			Start: jetstream.FromBeginning(), Logger: a.cfg.Logger, TTL: a.cfg.TTL, MaxBackoff: 2 * time.Second,
			TracerProvider: a.signals.tracer(), MeterProvider: a.signals.meters,
		})
		if err != nil {
			return nil, err
		}
		return watched(reactor.Run, func() func() { return a.signals.monitor.Reactor(reactor) }), nil
	}
	return errors.Join(err, a.follower(ctx, string(TransferProcess), process))
}

// prepareOpenings adds the part that drives openings, and lets the page look into them.
func (a *App) prepareOpenings(ctx context.Context) error {
	process := func(ctx context.Context, store *jetstream.Store) (*saga.Process[opening.Application], error) {
		return saga.NewProcess(ctx, store, opening.New(a.Accounts, a.cfg.Deadline), saga.ProcessConfig{
			Links:      opening.Links(),
			Repository: aggregate.RepositoryConfig{Logger: a.cfg.Logger, TracerProvider: a.signals.tracer()},
			Reactor: aggregate.ReactorConfig{
				Start: jetstream.FromBeginning(), Logger: a.cfg.Logger, TTL: a.cfg.TTL, MaxBackoff: 2 * time.Second,
				TracerProvider: a.signals.tracer(), MeterProvider: a.signals.meters,
			},
			Timers: aggregate.TimersConfig{Logger: a.cfg.Logger, TTL: a.cfg.TTL},
		})
	}
	shown, err := process(ctx, a.store)
	if err != nil {
		return err
	}
	a.sagas = append(a.sagas, console.SagaOf(shown))
	return a.follower(ctx, openingProcess, func(ctx context.Context, store *jetstream.Store) (runner, error) {
		p, err := process(ctx, store)
		if err != nil {
			return nil, err
		}
		return watched(p.Run, func() func() { return a.signals.monitor.Saga(p) }), nil
	})
}

func (a *App) updater(ctx context.Context, m Module, def projection.AnyDefinition) error {
	return a.follower(ctx, string(m), func(_ context.Context, store *jetstream.Store) (runner, error) {
		u, err := projection.NewUpdater(store, def, projection.UpdaterConfig{
			Logger: a.cfg.Logger, LeaseTTL: a.cfg.TTL, TracerProvider: a.signals.tracer(), MeterProvider: a.signals.meters,
		})
		if err != nil {
			return nil, err
		}
		return watched(u.Run, func() func() { return a.signals.monitor.Updater(u) }), nil
	})
}

// readers are the bank's views, as the HTTP module reads them.
type readers struct {
	accounts  *projection.Reader[views.Account]
	customers *projection.Reader[views.Customer]
	transfers *projection.Reader[views.Transfer]
	ledger    *projection.Reader[views.Ledger]
}

// openWait is how long a process waits for views that another is to make.
const openWait = 30 * time.Second

func (a *App) open(ctx context.Context) (readers, error) {
	var r readers
	cfg := projection.ReaderConfig{OpenWait: openWait}
	var errs [4]error
	r.accounts, errs[0] = projection.NewReader[views.Account](ctx, a.cfg.Conn, StoreName, views.AccountsName, cfg)
	r.customers, errs[1] = projection.NewReader[views.Customer](ctx, a.cfg.Conn, StoreName, views.CustomersName, cfg)
	r.transfers, errs[2] = projection.NewReader[views.Transfer](ctx, a.cfg.Conn, StoreName, views.TransfersName, cfg)
	r.ledger, errs[3] = projection.NewReader[views.Ledger](ctx, a.cfg.Conn, StoreName, views.LedgerName, cfg)
	return r, errors.Join(errs[:]...)
}

// ended leaves out what failed because the process ends.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

func (a *App) serveHTTP(ctx context.Context) error {
	r, err := a.open(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	h, err := api.New(api.Config{
		Store: a.store, Accounts: a.Accounts, Customers: a.Customers, Transfers: a.Transfers,
		AccountViews: r.accounts, CustomerViews: r.customers, TransferViews: r.transfers, Ledger: r.ledger,
		Followers: a.Followers, Durability: a.Durability, Notifications: a.notifications, Logger: a.cfg.Logger,
	})
	if err != nil {
		return err
	}
	root, err := a.withConsole(h)
	if err != nil {
		return err
	}
	defer a.signals.monitor.Check("http", "api", h.Ready)()
	defer a.signals.record(ctx, a.cfg.Logger)()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.Run(ctx) })
	g.Go(func() error { return a.serve(ctx, a.cfg.Listener, root) })
	return g.Wait()
}

// serve answers HTTP requests until ctx ends.
func (a *App) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelWarn),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(stop) == nil {
			return nil
		}
		return srv.Close() // somebody keeps a request open for longer than that
	})
	return g.Wait()
}

func (a *App) notifications() (notify.Stats, bool) {
	if a.cfg.Service == nil {
		return notify.Stats{}, false
	}
	return a.cfg.Service.Stats(), true
}
