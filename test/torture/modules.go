package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/torture/check"
	"github.com/rossby-go/rossby/test/torture/rig"
)

// moduleNames are the processes of modules.
var moduleNames = []string{"m0", "m1"}

const (
	modulesKind = "modules"
	reactorName = "payments"
	gatewayName = "notify"
)

// moduleConfig is what a process of modules is given.
type moduleConfig struct {
	Name     string        `json:"name"`
	URL      string        `json:"url"`
	Store    string        `json:"store"`
	Receiver string        `json:"receiver"`
	TTL      time.Duration `json:"ttl"`
	// Cache bounds each cache, 0 is its default.
	Cache int `json:"cache,omitempty"`
}

// connect connects as the modules and the writers do, past no proxy.
// The first address is tried first.
func connect(ctx context.Context, name, url string, log *slog.Logger) (*nats.Conn, error) {
	return jetstream.Connect(ctx, jetstream.ConnectConfig{
		URL: url, Name: name, Logger: log, Wait: time.Minute,
		Options: []nats.Option{
			nats.IgnoreDiscoveredServers(), nats.DontRandomize(), nats.ReconnectWait(50 * time.Millisecond),
			nats.ReconnectJitter(20*time.Millisecond, 20*time.Millisecond), nats.PingInterval(2 * time.Second),
		},
	})
}

func openStore(ctx context.Context, nc *nats.Conn, name string, replicas int) (store *jetstream.Store, err error) {
	err = rig.Until(ctx, time.Minute, "open the store", func(ctx context.Context) error {
		store, err = jetstream.Open(ctx, nc, jetstream.Config{Name: name, Replicas: replicas, AttemptTimeout: time.Second})
		return err
	})
	return store, err
}

// runModules is a process with every kind of module. All instances but one of each
// follower stand by.
func runModules(config string) error {
	var c moduleConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx, cancel := rig.Orphaned()
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	nc, err := connect(ctx, c.Name, c.URL, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	store, err := openStore(ctx, nc, c.Store, 0)
	if err != nil {
		return err
	}
	repo, err := aggregate.NewRepository(store, accountType, aggregate.RepositoryConfig{Logger: log, CacheBytes: c.Cache})
	if err != nil {
		return err
	}
	runs, err := c.modules(ctx, store, repo, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range runs {
		g.Go(func() error { return run(ctx) })
	}
	if _, err := fmt.Fprintln(os.Stdout, "running"); err != nil {
		return err
	}
	return g.Wait()
}

type runner func(context.Context) error

func (c *moduleConfig) modules(
	ctx context.Context, store *jetstream.Store, repo *aggregate.Repository[state], log *slog.Logger,
) ([]runner, error) {
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: log})
	if err != nil {
		return nil, err
	}
	to := &reporter{url: c.Receiver, instance: c.Name, client: &http.Client{Timeout: 5 * time.Second}}
	reactor, err := aggregate.NewReactor(store, reactorName, aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), TTL: c.TTL, MinBackoff: 10 * time.Millisecond, MaxBackoff: 500 * time.Millisecond,
		Timeout: 10 * time.Second, Logger: log,
	}, on[opened](to, nil), on[credited](to, nil), on[claimed](to, nil), on[debited](to, repo))
	if err != nil {
		return nil, err
	}
	gate, err := gateway.New(store, gatewayName, gateway.Config{
		Start: jetstream.FromBeginning(), TTL: c.TTL, MinBackoff: 10 * time.Millisecond, MaxBackoff: 500 * time.Millisecond,
		Concurrency: gatewayConcurrency, MaxUnrecorded: gatewayUnrecorded, Timeout: 10 * time.Second, Logger: log,
		Limits: gateway.Limits{BreakerFailures: -1},
	}, gateway.OnAll(accountEvents, func(ctx context.Context, _ any, d gateway.Delivery) error {
		return to.tell(ctx, gatewayName, d.Meta, d.IdempotencyKey)
	}))
	if err != nil {
		return nil, err
	}
	var timers *aggregate.Timers
	err = rig.Until(ctx, time.Minute, "timers", func(ctx context.Context) error {
		timers, err = aggregate.NewTimers(ctx, store, aggregate.TimersConfig{Logger: log, TTL: c.TTL}, repo)
		return err
	})
	if err != nil {
		return nil, err
	}
	runs := []runner{service.Run, reactor.Run, gate.Run, timers.Run}
	for _, def := range []projection.AnyDefinition{accounts(), totals()} {
		u, err := projection.NewUpdater(store, def, projection.UpdaterConfig{
			LeaseTTL: c.TTL, Instance: c.Name, Logger: log, CacheBytes: c.Cache,
		})
		if err != nil {
			return nil, err
		}
		runs = append(runs, u.Run)
	}
	return runs, nil
}

// A crash may repeat the deliveries that are under way, but not those that the
// ledger knows, though they are not recorded yet.
const (
	gatewayConcurrency = 4
	gatewayUnrecorded  = 256
)

// on pays what a debit sends to another account, and gives it back when there is
// none. Every event is told to the receiver when it is done.
func on[E any](to *reporter, repo *aggregate.Repository[state]) aggregate.ReactorOption {
	return aggregate.On(accountEvents, func(ctx context.Context, e E, m jetstream.Meta, do *aggregate.Do) error {
		if d, ok := any(e).(debited); ok && d.To != "" {
			if err := pay(ctx, do, repo, m.ID, d); err != nil {
				return err
			}
		}
		return to.tell(ctx, reactorName, m, "")
	})
}

func pay(ctx context.Context, do *aggregate.Do, repo *aggregate.Repository[state], from string, d debited) error {
	_, err := do.Update(ctx, repo, d.To, deposit{Cents: d.Cents, Tag: effectTag(d.Tag)})
	if aggregate.IsRefusal(err) {
		_, err = do.Update(ctx, repo, from, deposit{Cents: d.Cents, Tag: effectTag(d.Tag)}, aggregate.Step("refund"))
	}
	if tag := deadlineTag(d.Tag); err == nil && tag != "" {
		err = do.After(ctx, deadline, repo, from, deposit{Tag: tag}, aggregate.Step("deadline"))
	}
	return err
}

// deadline is how long after a payment its timer fires. One payment in so many has one.
const (
	deadline      = time.Second
	deadlineOneIn = 4
)

// deadlineTag is that of what a payment's timer does, "" for one without.
func deadlineTag(debit string) string {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(debit))
	if sum.Sum32()%deadlineOneIn > 0 {
		return ""
	}
	return "t-" + debit
}

// effectTag is that of what a debit leads to: one credit, wherever it goes.
func effectTag(debit string) string { return "x-" + debit }

// reporter tells the receiver what was handled.
type reporter struct {
	url, instance string
	client        *http.Client
}

func (r *reporter) tell(ctx context.Context, follower string, m jetstream.Meta, key string) error {
	body, err := json.Marshal(check.Handled{
		Follower: follower, Aggregate: m.ID, Version: m.Version, EventID: m.EventID, Key: key, Instance: r.instance,
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the receiver says %s", resp.Status)
	}
	return nil
}
