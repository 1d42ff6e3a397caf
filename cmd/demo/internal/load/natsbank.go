package load

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// natsBank is a bank behind its command services, read from its views' buckets.
type natsBank struct {
	store     *jetstream.Store
	accounts  *aggregate.Client
	transfers *aggregate.Client

	balances *projection.Reader[balance]
	ended    *projection.Reader[state]
	ledger   *projection.Reader[views.Ledger]
}

// balance and state are the parts of the views that matter here.
type (
	balance struct {
		BalanceCents int64 `json:"balanceCents"`
	}
	state struct {
		State transfer.State `json:"state"`
	}
)

func newNATSBank(ctx context.Context, nc *nats.Conn, name string) (*natsBank, error) {
	b := new(natsBank)
	var errs [6]error
	b.store, errs[0] = jetstream.Attach(ctx, nc, name)
	b.accounts, errs[1] = aggregate.NewClient(nc, name, commands.AccountType(), aggregate.ClientConfig{})
	b.transfers, errs[2] = aggregate.NewClient(nc, name, commands.TransferType(), aggregate.ClientConfig{})
	b.balances, errs[3] = projection.NewReader[balance](ctx, nc, name, views.AccountsName, projection.ReaderConfig{})
	b.ended, errs[4] = projection.NewReader[state](ctx, nc, name, views.TransfersName, projection.ReaderConfig{})
	b.ledger, errs[5] = projection.NewReader[views.Ledger](ctx, nc, name, views.LedgerName, projection.ReaderConfig{})
	return b, errors.Join(errs[:]...)
}

func (b *natsBank) open(ctx context.Context, key, title string, cents int64) (string, error) {
	r, err := b.accounts.Create(ctx, "", commands.OpenAccount{Title: title, InitialCents: cents}, aggregate.CommandID(key))
	return r.ID, mendable(err)
}

func (b *natsBank) transfer(ctx context.Context, key string, o order) (string, error) {
	r, err := b.transfers.Create(ctx, "", commands.CreateTransfer(o), aggregate.CommandID(key))
	return r.ID, mendable(err)
}

func (b *natsBank) states(ctx context.Context, ids []string) (map[string]transfer.State, error) {
	entries, err := b.ended.GetMany(ctx, ids)
	if err != nil {
		return nil, mendable(err)
	}
	states := map[string]transfer.State{}
	for _, e := range entries {
		states[e.Key] = e.Value.State
	}
	return states, nil
}

func (b *natsBank) head(ctx context.Context) (jetstream.Position, error) {
	p, err := b.store.LastPosition(ctx)
	return p, mendable(err)
}

func (b *natsBank) balance(ctx context.Context, id string, after jetstream.Position) (int64, error) {
	e, err := b.balances.Get(ctx, id, projection.AtLeast(after))
	return e.Value.BalanceCents, mendable(err)
}

func (b *natsBank) books(ctx context.Context) (books, error) {
	e, err := b.ledger.Get(ctx, views.LedgerKey)
	if err != nil {
		return books{}, mendable(err)
	}
	l := e.Value
	out := books{deposited: l.DepositedCents, balances: l.BalancesCents, underWay: l.UnderWayCents}
	out.holds = out.deposited == out.balances+out.underWay
	for _, cents := range l.UnderWay {
		out.holds = out.holds && cents > 0
	}
	return out, nil
}

// mendable marks the errors that another attempt may mend.
func mendable(err error) error {
	for _, e := range []error{
		aggregate.ErrBusy, aggregate.ErrContended, jetstream.ErrUnavailable,
		jetstream.ErrUnknownOutcome, jetstream.ErrIncomplete, projection.ErrUnavailable, projection.ErrStale,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", errAgain, err)
		}
	}
	return err
}
