// Package load drives a running bank with random transfers, says how fast it was,
// and checks its books.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	TransfersDefault    = 1000
	ClientsDefault      = 16
	AccountsDefault     = 50
	InitialCentsDefault = 100_000
	PatienceDefault     = 2 * time.Minute
)

// Config says what to drive, and how hard. One of HTTP and NATS is required.
type Config struct {
	// HTTP is the base address of the bank's HTTP API.
	HTTP string
	// NATS is a connection to the bank's servers, Store the name of its store.
	NATS  *nats.Conn
	Store string
	// Transfers is how many to make. Defaults to [TransfersDefault].
	Transfers int
	// Clients is how many make them at once. Defaults to [ClientsDefault].
	Clients int
	// Accounts is how many to open for them, at least 2. Defaults to
	// [AccountsDefault].
	Accounts int
	// InitialCents is what each account is opened with. Defaults to
	// [InitialCentsDefault].
	InitialCents int64
	// Patience is how long nothing may happen before it gives up. Defaults to
	// [PatienceDefault].
	Patience time.Duration
	// Out gets the progress and the results. Defaults to none.
	Out io.Writer
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Validate reports every field that [Run] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if (c.HTTP == "") == (c.NATS == nil) {
		errs = append(errs, errors.New("load: say either HTTP or NATS"))
	}
	if c.HTTP != "" {
		if u, err := url.Parse(c.HTTP); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("load: HTTP %q is no address such as http://127.0.0.1:8080", c.HTTP))
		}
	}
	if c.NATS != nil {
		errs = append(errs, jetstream.ValidateName("store name", c.Store))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"Transfers", int64(c.Transfers)},
		{"Clients", int64(c.Clients)},
		{"Accounts", int64(c.Accounts)},
		{"InitialCents", c.InitialCents},
		{"Patience", int64(c.Patience)},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("load: %s %d is negative", n.name, n.value))
		}
	}
	if c.Accounts == 1 {
		errs = append(errs, errors.New("load: transfers need at least 2 accounts"))
	}
	return errors.Join(errs...)
}

// ErrInvariant is returned when money was lost or made.
var ErrInvariant = errors.New("the books do not balance")

// Run opens accounts of its own, makes the transfers, waits until each has ended,
// prints how it went, and checks every balance to the cent. It returns
// [ErrInvariant] when one is wrong, and an error when the bank stays away for
// longer than Config.Patience.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.Transfers = cmp.Or(cfg.Transfers, TransfersDefault)
	cfg.Clients = cmp.Or(cfg.Clients, ClientsDefault)
	cfg.Accounts = cmp.Or(cfg.Accounts, AccountsDefault)
	cfg.InitialCents = cmp.Or(cfg.InitialCents, InitialCentsDefault)
	cfg.Patience = cmp.Or(cfg.Patience, PatienceDefault)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.NATS == nil {
		b := newHTTPBank(cfg.HTTP, cfg.Clients)
		defer b.client.CloseIdleConnections()
		return newDriver(cfg, b).run(ctx)
	}
	b, err := newNATSBank(ctx, cfg.NATS, cfg.Store)
	if err != nil {
		return err
	}
	return newDriver(cfg, b).run(ctx)
}
