package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Books say whether any money was lost or made.
type Books struct {
	// DepositedCents is what accounts were opened with. It must be what the
	// accounts hold plus what is under way. All three are the ledger's, as of one
	// position.
	DepositedCents int64 `json:"depositedCents"`
	BalancesCents  int64 `json:"balancesCents"`
	UnderWayCents  int64 `json:"underWayCents"`
	// UnderWay counts the transfers whose money has left one account and not
	// arrived.
	UnderWay int `json:"underWay"`
	// AccountsCents is the sum over the view of accounts, which is another fold of
	// the same events. Where both views stand at one position it must be
	// BalancesCents.
	AccountsCents int64 `json:"accountsCents"`
	// Holds tells that no money was lost or made: both sides are equal, no transfer
	// has credited what it did not debit, and the accounts agree with the ledger
	// wherever they can be compared.
	Holds bool `json:"holds"`
	// Settled tells that nothing is under way and both views stand at one position:
	// then AccountsCents is DepositedCents, or something is wrong.
	Settled bool `json:"settled"`
	// Position and AccountsPosition are where the two views stand.
	Position         jetstream.Position `json:"position"`
	AccountsPosition jetstream.Position `json:"accountsPosition"`
}

// Status is the state of the bank.
type Status struct {
	Store      string               `json:"store"`
	Time       time.Time            `json:"time"`
	Position   jetstream.Position   `json:"position"`
	NATS       string               `json:"nats"`
	Followers  []Follower           `json:"followers"`
	Invariant  *Books               `json:"invariant"`
	Durability jetstream.Durability `json:"durability"`
	// Notifications is null when the notification service is elsewhere.
	Notifications *notify.Stats `json:"notifications"`
}

// status asks everybody at once.
func (a *API) status(ctx context.Context, books func(context.Context) (*Books, error)) (*Status, error) {
	s := &Status{Store: a.cfg.Store.Name(), Time: time.Now().UTC(), NATS: a.cfg.Store.Conn().ConnectedUrlRedacted()}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s.Followers, err = a.cfg.Followers(ctx)
		return err
	})
	g.Go(func() (err error) {
		s.Invariant, err = books(ctx)
		return err
	})
	g.Go(func() (err error) {
		s.Durability, err = a.cfg.Durability(ctx)
		return err
	})
	g.Go(func() (err error) {
		s.Position, err = a.cfg.Store.LastPosition(ctx)
		return err
	})
	if stats, ok := a.cfg.Notifications(); ok {
		s.Notifications = &stats
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if s.Followers == nil {
		s.Followers = []Follower{}
	}
	return s, nil
}

func (a *API) getStatus(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), a.commandTimeout)
	defer cancel()
	s, err := a.status(ctx, a.books)
	if err != nil {
		if ctx.Err() != nil || !a.cfg.Store.Conn().IsConnected() {
			return errors.Join(away("the servers do not answer"), err)
		}
		return err
	}
	setPosition(w, s.Position)
	return answer(w, http.StatusOK, s)
}

// booksTries is how often the two views are read anew to find them at one
// position.
const booksTries = 3

// books compares the ledger with the accounts.
func (a *API) books(ctx context.Context) (*Books, error) {
	accounts, err := a.accounts(ctx)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		ledger, err := a.cfg.Ledger.Get(ctx, views.LedgerKey)
		if err != nil && !errors.Is(err, projection.ErrNotFound) {
			return nil, err
		}
		sum, position, err := a.total(ctx, accounts)
		if err != nil {
			return nil, err
		}
		if a.ahead(ledger.Sequence, ledger.Position) {
			position = jetstream.Position{}
		}
		if position != ledger.Position && try < booksTries {
			continue
		}
		return compare(ledger.Value, ledger.Position, sum, position), nil
	}
}

// compare says whether the books agree. The zero position stands for a sum that is
// not of one position.
func compare(l views.Ledger, at jetstream.Position, sum int64, sumAt jetstream.Position) *Books {
	b := &Books{
		DepositedCents: l.DepositedCents, BalancesCents: l.BalancesCents, UnderWayCents: l.UnderWayCents,
		UnderWay: len(l.UnderWay), AccountsCents: sum, Position: at, AccountsPosition: sumAt,
	}
	b.Holds = b.DepositedCents == b.BalancesCents+b.UnderWayCents
	for _, cents := range l.UnderWay {
		b.Holds = b.Holds && cents > 0
	}
	if at == sumAt && !at.IsZero() {
		b.Holds = b.Holds && sum == b.BalancesCents
		b.Settled = b.UnderWay == 0
	}
	return b
}

// ahead tells whether a value holds an event that its view's position does not: views
// of one server write a key first, and its position a moment later.
func (a *API) ahead(sequence uint64, at jetstream.Position) bool {
	known, err := a.cfg.Store.Sequence(at)
	return err != nil || sequence > known
}

// total sums up the accounts, and returns the position of the sum: zero when the
// view went on while it was read.
func (a *API) total(ctx context.Context, accounts *projection.Reader[Account]) (int64, jetstream.Position, error) {
	var sum int64
	var at jetstream.Position
	n := 0
	for e, err := range accounts.List(ctx, projection.ListOptions{}) {
		switch {
		case err != nil:
			return 0, at, err
		case n == 0:
			at = e.Position
		case at != e.Position:
			at = jetstream.Position{}
		}
		if a.ahead(e.Sequence, e.Position) {
			at = jetstream.Position{}
		}
		n++
		sum += e.Value.BalanceCents
	}
	if n > 0 {
		return sum, at, nil
	}
	at, err := accounts.Position(ctx)
	return 0, at, err
}

// healthz tells that the process is there.
func (a *API) healthz(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz tells whether requests can be answered now.
func (a *API) readyz(w http.ResponseWriter, r *http.Request) error {
	if err := a.Ready(r.Context()); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]string{"status": "ready"})
}

// Ready says why requests cannot be answered now, nil when they can.
func (a *API) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusEvery*2)
	defer cancel()
	if !a.cfg.Store.Conn().IsConnected() {
		return away("there is no connection to NATS")
	}
	if _, ready := a.hub.newestTransfers(0); !ready {
		return notReady("the views are still being read")
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, position := range []func(context.Context, ...projection.ReadOption) (jetstream.Position, error){
		a.cfg.AccountViews.Position, a.cfg.CustomerViews.Position, a.cfg.TransferViews.Position, a.cfg.Ledger.Position,
	} {
		g.Go(func() error {
			_, err := position(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return errors.Join(away("a view cannot be read"), err)
	}
	return nil
}
