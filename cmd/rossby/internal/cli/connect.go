package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rossby-go/rossby/jetstream"
)

// connFlags say how NATS is reached. They and their environment variables are named
// as those of the nats command are.
type connFlags struct {
	server, context, creds, nkey, user, password, token string
	tlsCert, tlsKey, tlsCA, inboxPrefix                 string
	tlsFirst, noContext                                 bool
	timeout                                             time.Duration
	// timeoutErr is what is wrong with the environment's.
	timeoutErr error
}

// envStore says which store is meant.
const envStore = "ROSSBY_STORE"

const (
	envTimeout     = "NATS_TIMEOUT"
	timeoutDefault = 5 * time.Second
)

func (f *connFlags) add(fs *pflag.FlagSet) {
	fs.StringVarP(&f.server, "server", "s", "", "NATS server `urls` ($NATS_URL)")
	fs.StringVar(&f.context, "context", "", "`name` of a context of the nats command ($NATS_CONTEXT, or the selected)")
	fs.BoolVar(&f.noContext, "no-context", false, "use no context")
	fs.StringVar(&f.creds, "creds", "", "`file` with a user's credentials ($NATS_CREDS)")
	fs.StringVar(&f.nkey, "nkey", "", "`file` with a user's NKey seed ($NATS_NKEY)")
	fs.StringVar(&f.user, "user", "", "user `name` ($NATS_USER)")
	fs.StringVar(&f.password, "password", "", "the user's `password` ($NATS_PASSWORD)")
	fs.StringVar(&f.token, "token", "", "the server's `token` ($NATS_TOKEN)")
	fs.StringVar(&f.tlsCert, "tlscert", "", "`file` with the client's certificate ($NATS_CERT)")
	fs.StringVar(&f.tlsKey, "tlskey", "", "`file` with the client's key ($NATS_KEY)")
	fs.StringVar(&f.tlsCA, "tlsca", "", "`file` with the authorities of servers ($NATS_CA)")
	fs.BoolVar(&f.tlsFirst, "tlsfirst", false, "start TLS before the server's greeting")
	fs.StringVar(&f.inboxPrefix, "inbox-prefix", "", "`prefix` of the subjects of replies")
	usual := timeoutDefault
	if text := os.Getenv(envTimeout); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			f.timeoutErr = &usageError{fmt.Sprintf("$%s %q: is no duration such as 10s", envTimeout, text), err}
		}
		usual = d
	}
	fs.DurationVar(&f.timeout, "timeout", usual, "how long an answer is waited for ($NATS_TIMEOUT)")
}

// config is the connection that flags, environment and context ask for.
func (f *connFlags) config() (jetstream.ConnectConfig, error) {
	env := func(flag, name string) string { return cmp.Or(flag, os.Getenv(name)) }
	c := jetstream.ConnectConfig{
		URL: env(f.server, "NATS_URL"), Creds: env(f.creds, "NATS_CREDS"), NKeySeedFile: env(f.nkey, "NATS_NKEY"),
		User: env(f.user, "NATS_USER"), Password: env(f.password, "NATS_PASSWORD"), Token: env(f.token, "NATS_TOKEN"),
		TLSCert: env(f.tlsCert, "NATS_CERT"), TLSKey: env(f.tlsKey, "NATS_KEY"), TLSCA: env(f.tlsCA, "NATS_CA"),
		TLSFirst: f.tlsFirst, InboxPrefix: f.inboxPrefix, Name: "rossby", Wait: f.timeout,
	}
	if f.timeout <= 0 {
		if f.timeoutErr != nil {
			return c, f.timeoutErr
		}
		return c, &usageError{fmt.Sprintf("--timeout %v: must be more than 0", f.timeout), nil}
	}
	if !f.noContext {
		c.Context = env(f.context, "NATS_CONTEXT")
	}
	if c.Context == "" && !f.noContext {
		selected, err := selectedContext()
		if err != nil {
			return c, err
		}
		c.Context = selected
	}
	return c, nil
}

// selectedContext is the one that `nats context select` chose, "" for none.
func selectedContext() (string, error) {
	parent := os.Getenv("XDG_CONFIG_HOME")
	if parent == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil //nolint:nilerr // without a home there are no contexts
		}
		parent = filepath.Join(home, ".config")
	}
	name, err := os.ReadFile(filepath.Join(parent, "nats", "context.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the selected context: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}

// connect connects to NATS. The caller calls the function that it returns.
func (a *app) connect(ctx context.Context) (*nats.Conn, func(), error) {
	cfg, err := a.conn.config()
	if err != nil {
		return nil, nil, err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(a.env.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Options = []nats.Option{nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		// What is not permitted fails by itself, with a better text.
		if !errors.Is(err, nats.ErrPermissionViolation) {
			a.notef("rossby: NATS: %v", err)
		}
	})}
	nc, err := jetstream.Connect(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	return nc, nc.Close, nil
}

// open opens the store that is asked for. The caller calls the function that it
// returns.
func (a *app) open(ctx context.Context) (*jetstream.Store, func(), error) {
	nc, end, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := a.short(ctx)
	defer cancel()
	store, err := a.attach(ctx, nc)
	if err != nil {
		end()
		return nil, nil, err
	}
	return store, end, nil
}

func (a *app) attach(ctx context.Context, nc *nats.Conn) (*jetstream.Store, error) {
	name := cmp.Or(a.store, os.Getenv(envStore))
	if name != "" {
		store, err := jetstream.Attach(ctx, nc, name)
		if errors.Is(err, jetstream.ErrStoreNotFound) {
			if stores, listErr := listStores(ctx, nc); listErr == nil {
				return nil, missing("store", name, storeNames(stores))
			}
		}
		return store, err
	}
	name, err := onlyStore(ctx, nc)
	if err != nil {
		return nil, err
	}
	return jetstream.Attach(ctx, nc, name)
}

// place is a store that nobody has looked at.
type place struct {
	nc    *nats.Conn
	store string
}

func placeOf(store *jetstream.Store) place { return place{store.Conn(), store.Name()} }

// named connects, and finds the name of the store that is asked for: who sends commands
// or administers a view may not be permitted to open it. The caller calls the function that it returns.
func (a *app) named(ctx context.Context) (place, func(), error) {
	nc, end, err := a.connect(ctx)
	if err != nil {
		return place{}, nil, err
	}
	name := cmp.Or(a.store, os.Getenv(envStore))
	if name != "" {
		err = jetstream.ValidateName("store name", name)
	} else {
		ctx, cancel := a.short(ctx)
		defer cancel()
		name, err = onlyStore(ctx, nc)
	}
	if err != nil {
		end()
		return place{}, nil, err
	}
	return place{nc, name}, end, nil
}

// onlyStore is the name of the store when there is one only.
func onlyStore(ctx context.Context, nc *nats.Conn) (string, error) {
	stores, err := listStores(ctx, nc)
	switch {
	case err != nil:
		return "", err
	case len(stores) == 0:
		return "", fmt.Errorf("store: %w: there is none", errNotFound)
	case len(stores) > 1:
		return "", &usageError{
			"there are several stores: say which one with --store" + hint("", nil, storeNames(stores)), nil,
		}
	}
	return stores[0].Name, nil
}

// listStores finds the streams that are stores, by name.
func listStores(ctx context.Context, nc *nats.Conn) ([]storeRow, error) {
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, err
	}
	var rows []storeRow
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		if info.Config.Metadata["rossby.store"] != "" {
			rows = append(rows, rowOf(info))
		}
	}
	if err := list.Err(); err != nil {
		if matches(err, natsjs.ErrJetStreamNotEnabled, natsjs.ErrJetStreamNotEnabledForAccount, nats.ErrNoResponders) {
			err = errors.Join(jetstream.ErrNoJetStream, err)
		}
		return nil, fmt.Errorf("list the stores: %w", err)
	}
	// Servers of a cluster list a stream twice when its leader resigns between two pages.
	return uniqueBy(rows, func(r storeRow) string { return r.Name }), nil
}

func storeNames(rows []storeRow) []string {
	all := make([]string, len(rows))
	for i, r := range rows {
		all[i] = r.Name
	}
	return all
}

type completion = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeStores offers the names of stores.
func (a *app) completeStores(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	nc, end, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer end()
	stores, err := listStores(ctx, nc)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return storeNames(stores), cobra.ShellCompDirectiveNoFileComp
}

// completes offers names of a store for a command's first argument.
func (a *app) completes(list func(ctx context.Context, at place) ([]string, error)) completion {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
		defer cancel()
		at, end, err := a.named(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer end()
		all, err := list(ctx, at)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
