// Package api is the bank's HTTP side: the JSON API of docs/demo-http.md, and the
// stream of events that the bank's page shows.
package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/page"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

// The kinds of followers.
const (
	KindReactor = "reactor"
	KindGateway = "gateway"
	KindView    = "view"
	KindTimers  = "timers"
)

// Follower is how far something that follows the events is.
type Follower struct {
	Name string `json:"name"`
	// Kind is one of [KindReactor], [KindGateway], [KindView] and [KindTimers].
	Kind string `json:"kind"`
	// State is the follower's own word for what it does, Owner the instance that
	// does it.
	State string `json:"state"`
	Owner string `json:"owner"`
	// Position is how far it is, Head where the store ends.
	Position string `json:"position"`
	Head     string `json:"head"`
	// Lag counts the events, or commits, that it has not handled; LagSeconds is how
	// long ago it was up to date.
	Lag        uint64  `json:"lag"`
	LagSeconds float64 `json:"lagSeconds"`
	// Blocked counts the aggregates whose events wait for a retry or a person.
	Blocked   int    `json:"blocked"`
	LastError string `json:"lastError"`
}

// Config is what the API needs of the bank. All but Logger is required.
type Config struct {
	Store *jetstream.Store
	// Accounts, Customers and Transfers are where commands go, in this process or
	// another.
	Accounts, Customers, Transfers aggregate.Target

	AccountViews  *projection.Reader[views.Account]
	CustomerViews *projection.Reader[views.Customer]
	TransferViews *projection.Reader[views.Transfer]
	Ledger        *projection.Reader[views.Ledger]

	// Followers asks how far each follower is.
	Followers func(ctx context.Context) ([]Follower, error)
	// Durability asks what the servers promise.
	Durability func(ctx context.Context) (jetstream.Durability, error)
	// Notifications are what the notification service in this process has received;
	// false when there is none.
	Notifications func() (notify.Stats, bool)
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name    string
		missing bool
	}{
		{"Store", c.Store == nil},
		{"Accounts", c.Accounts == nil},
		{"Customers", c.Customers == nil},
		{"Transfers", c.Transfers == nil},
		{"AccountViews", c.AccountViews == nil},
		{"CustomerViews", c.CustomerViews == nil},
		{"TransferViews", c.TransferViews == nil},
		{"Ledger", c.Ledger == nil},
		{"Followers", c.Followers == nil},
		{"Durability", c.Durability == nil},
		{"Notifications", c.Notifications == nil},
	} {
		if f.missing {
			errs = append(errs, errors.New("api: Config."+f.name+" is missing"))
		}
	}
	return errors.Join(errs...)
}

// Bounds of what one request may cost.
const (
	bodyMax        = 64 << 10
	bodyTimeout    = 10 * time.Second
	commandTimeout = 5 * time.Second
	afterWait      = 5 * time.Second
	waitMax        = time.Minute
	customerWait   = 2 * time.Second
	reconnectWait  = 500 * time.Millisecond
)

// API is the bank's HTTP side. It serves at once; the page, the list of transfers
// and readiness need [API.Run].
type API struct {
	cfg     Config
	log     *slog.Logger
	handler http.Handler
	decoder *jetstream.Decoder
	hub     *hub
	// followers administers what follows the events.
	followers *followers.Admin

	bodyTimeout, commandTimeout, afterWait, customerWait time.Duration

	recent recentBooks

	mu sync.Mutex
	// briefs reads the accounts without their histories.
	briefs *projection.Reader[Account]
}

// New makes the API. Returns the configuration's mistakes.
func New(cfg Config) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	files, err := page.Handler()
	if err != nil {
		return nil, err
	}
	a := &API{
		cfg: cfg, log: cmp.Or(cfg.Logger, slog.Default()), decoder: decoder, hub: newHub(),
		followers:   followers.New(cfg.Store),
		bodyTimeout: bodyTimeout, commandTimeout: commandTimeout, afterWait: afterWait, customerWait: customerWait,
	}
	a.handler = a.routes(files)
	return a, nil
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }
