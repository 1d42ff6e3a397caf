package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
)

// runAll runs the whole bank in this process, its server too.
func runAll(ctx context.Context, args []string, out, errOut io.Writer) error {
	fs := newFlags("demo", "demo [flags] | demo run MODULE… [flags] | demo load [flags]", errOut)
	httpAddr := fs.String("http", "127.0.0.1:8080", "address of the page and the HTTP API")
	natsAddr := fs.String("nats-listen", "127.0.0.1:4222", "address where other NATS clients can join")
	store := fs.String("store", "", "directory that keeps the data (default: a temporary one, removed at exit)")
	seed := fs.Bool("seed", true, "make customers and accounts, and a trickle of transfers")
	notifyURL := fs.String("notify", "", "URL of another notification service (default: a small one in this process)")
	deadline := fs.Duration("deadline", commands.DeadlineDefault,
		"how long a transfer may wait for its debit, and a new account for its first money")
	lazy := fs.Bool("lazy-sync", false, "let the server fsync every two minutes instead of at every write")
	count := fs.Int("servers", 1, "NATS servers: 1 in this process, or 3 or 5 that are processes which the page can kill")
	secure := fs.Bool("secure", false,
		"let each module log in as a user of its own, over TLS, that may do what the module needs and nothing else")
	verbose := fs.Bool("v", false, "log what the modules do")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("unknown argument %q: the commands are run and load; see --help", rest[0])
	}
	log := newLogger(errOut, *verbose)

	listener, err := listen(ctx, "--http", *httpAddr)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	srv, err := startServers(ctx, serversConfig{
		count: *count, listen: *natsAddr, store: *store, lazy: *lazy, secure: *secure, errOut: errOut,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := srv.stop(); err != nil {
			log.Error("the server did not stop cleanly", "error", err)
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	cfg := app.Config{
		Listener: listener, Logger: log, NotifyURL: *notifyURL, Deadline: *deadline,
		Line: app.NewLine(), Switches: srv.switches, Replicas: *count,
	}
	cfg.DurabilitySources.Known = srv.fsync
	if cfg.NotifyURL == "" {
		cfg.Service = notify.NewService()
		if cfg.NotifyURL, err = serveNotifications(ctx, g, "127.0.0.1:0", cfg.Service); err != nil {
			return err
		}
	}
	banks, end, err := openBank(ctx, srv, *secure, cfg)
	defer end()
	if err != nil {
		return err
	}
	for _, bank := range banks {
		g.Go(func() error { return bank.Run(ctx) })
	}
	bank := banks[len(banks)-1]
	if *seed {
		if err := bank.Seed(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		g.Go(func() error {
			bank.Trickle(ctx, log)
			return nil
		})
		g.Go(func() error {
			bank.Applications(ctx, log)
			return nil
		})
	}
	nats := "--server " + srv.url
	if *secure {
		cc, err := srv.one.ConnectConfig(string(app.HTTP))
		if err != nil {
			return err
		}
		nats = fmt.Sprintf("--server %s --tlsca %s --tlscert %s --tlskey %s --inbox-prefix %s",
			cc.URL, cc.TLSCA, cc.TLSCert, cc.TLSKey, cc.InboxPrefix)
	}
	g.Go(func() error { return greet(ctx, out, bank, listener.Addr().String(), srv.url, nats, *seed) })
	return g.Wait()
}

// greet waits until the page answers and says what to do with it.
func greet(ctx context.Context, out io.Writer, bank *app.App, httpAddr, natsURL, nats string, seeded bool) error {
	base := "http://" + httpAddr
	if err := awaitReady(ctx, base+"/readyz"); err != nil {
		return nil //nolint:nilerr // ended before it was ready
	}
	durability, err := bank.Durability(ctx)
	if err != nil {
		return err
	}
	account := "<accountId>"
	body := `{"title":"mine","initialCents":10000}`
	if seeded {
		account = "ada-giro"
		body = `{"fromAccountId":"ada-giro","toAccountId":"bela-giro","cents":500}`
	}
	post := base + "/api/accounts"
	if seeded {
		post = base + "/api/transfers"
	}
	_, err = fmt.Fprintf(out, `The bank is open: %s
NATS clients join at %s
Durability: %s

Try:
  curl -s -X POST %s -d '%s'
  nats %s kv get bank_accounts 1.%s
  nats %s req bank.command.account.open.mine '{"title":"mine","initialCents":5000}'

Ctrl-C closes it.
`, base, natsURL, durability, post, body, nats, account, nats)
	return err
}

// awaitReady asks until the answer is 200.
func awaitReady(ctx context.Context, url string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// listen reports which flag's address cannot be had.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w (is another demo running?)", flag, addr, err)
	}
	return l, nil
}

// serveNotifications serves the small notification service until ctx ends.
func serveNotifications(
	ctx context.Context,
	g *errgroup.Group,
	addr string,
	svc *notify.Service,
) (url string, err error) {
	l, err := listen(ctx, "notification service", addr)
	if err != nil {
		return "", err
	}
	srv := &http.Server{
		Handler: svc, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelWarn),
	}
	g.Go(func() error {
		if err := srv.Serve(l); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return "http://" + l.Addr().String() + "/", nil
}
