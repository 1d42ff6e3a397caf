package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/jetstream"
)

// runModules runs some of the bank's modules against a server elsewhere.
func runModules(ctx context.Context, args []string, out, errOut io.Writer) error {
	fs := newFlags("demo run", "demo run MODULE… --nats URL | --context NAME [flags]", errOut)
	var where natsFlags
	where.add(fs)
	httpAddr := fs.String("http", "127.0.0.1:8080", "address of the http module")
	signalsAddr := fs.String("signals", "", "address of /metrics, /healthz and /readyz, which the http module has, too")
	notifyURL := fs.String("notify", "", "URL for the notifications module (default: a small service in this process)")
	replicas := fs.Int("replicas", 0, "servers that keep the store, when this process makes it: 1, 3 or 5")
	deadline := fs.Duration("deadline", commands.DeadlineDefault,
		"how long a transfer may wait for its debit, and a new account for its first money")
	ttl := fs.Duration("ttl", 0, "how long a dead instance keeps its place (default 3s)")
	wait := fs.Duration("wait", 10*time.Second, "how long to wait for the server")
	monitor := fs.String("monitor", "", "URLs of the servers' monitoring ports, comma separated, which tell of fsync")
	durability := fs.String("require-durability", "unknown",
		"the least that must be certain of the servers: single-lazy, quorum-lazy or fsynced")
	verbose := fs.Bool("v", false, "log what the modules do")
	names, err := parse(fs, args)
	if err != nil {
		return err
	}
	modules, err := app.ParseModules(names)
	if err != nil {
		return err
	}
	if len(modules) == 0 {
		return fmt.Errorf("say which modules to run, of: %v", app.Modules())
	}
	required, err := jetstream.ParseDurabilityLevel(*durability)
	if err != nil {
		return fmt.Errorf("--require-durability: %w", err)
	}
	log := newLogger(errOut, *verbose)
	cc, err := where.config(fmt.Sprint(modules))
	if err != nil {
		return err
	}
	cc.Logger, cc.Wait = log, *wait
	nc, err := jetstream.Connect(ctx, cc)
	if err != nil {
		return err
	}
	defer nc.Close()

	g, ctx := errgroup.WithContext(ctx)
	cfg := app.Config{
		Conn: nc, Modules: modules, Logger: log, NotifyURL: *notifyURL, Deadline: *deadline, Replicas: *replicas, TTL: *ttl,
		RequireDurability: required,
	}
	if *monitor != "" {
		cfg.DurabilitySources.Monitoring = strings.Split(*monitor, ",")
	}
	if !slices.Contains(modules, app.HTTP) {
		*httpAddr = ""
	}
	if err := listenAt(ctx, &cfg, *httpAddr, *signalsAddr); err != nil {
		return err
	}
	defer closeListeners(&cfg)
	if slices.Contains(modules, app.Notifications) && cfg.NotifyURL == "" {
		cfg.Service = notify.NewService()
		if cfg.NotifyURL, err = serveNotifications(ctx, g, "127.0.0.1:0", cfg.Service); err != nil {
			return err
		}
	}
	bank, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	g.Go(func() error { return bank.Run(ctx) })
	report, err := bank.Durability(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error {
		if _, err := fmt.Fprintf(out, "durability: %s\n", report); err != nil {
			return err
		}
		return announce(ctx, out, &cfg)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listenAt takes the addresses that are not empty.
func listenAt(ctx context.Context, cfg *app.Config, httpAddr, signalsAddr string) (err error) {
	if httpAddr != "" {
		if cfg.Listener, err = listen(ctx, "--http", httpAddr); err != nil {
			return err
		}
	}
	if signalsAddr != "" {
		if cfg.Signals, err = listen(ctx, "--signals", signalsAddr); err != nil {
			closeListeners(cfg)
			return err
		}
	}
	return nil
}

func closeListeners(cfg *app.Config) {
	for _, l := range []net.Listener{cfg.Listener, cfg.Signals} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// announce says where the process can be reached, when it can.
func announce(ctx context.Context, out io.Writer, cfg *app.Config) error {
	at := ""
	if cfg.Signals != nil {
		at = fmt.Sprintf(", signals at http://%s", cfg.Signals.Addr())
	}
	if cfg.Listener != nil {
		base := "http://" + cfg.Listener.Addr().String()
		if awaitReady(ctx, base+"/readyz") != nil {
			return nil //nolint:nilerr // it ended before
		}
		at = " at " + base + at
	}
	_, err := fmt.Fprintf(out, "running %v%s\n", cfg.Modules, at)
	return err
}
