package commands

import (
	"context"
	"errors"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

// ReactorName is the name of the reactor that drives transfers.
const ReactorName = "money-transfer"

// DeadlineDefault is how long a transfer may wait for its debit.
const DeadlineDefault = time.Minute

// expiry names a transfer's deadline.
const expiry = "expire"

// NewReactor makes the process that drives transfers: see [Handlers].
func NewReactor(
	store *jetstream.Store, accounts, transfers aggregate.Target, deadline time.Duration, cfg aggregate.ReactorConfig,
) (*aggregate.Reactor, error) {
	return aggregate.NewReactor(store, ReactorName, cfg, Handlers(accounts, transfers, deadline)...)
}

// Handlers drive a transfer from its creation to its end: debit, credit, and the
// refund when the credit is refused. Where the accounts and transfers are, in this
// process or another, they do not care.
func Handlers(accounts, transfers aggregate.Target, deadline time.Duration) []aggregate.ReactorOption {
	p := process{accounts: accounts, transfers: transfers, deadline: deadline}
	return []aggregate.ReactorOption{
		aggregate.On(transfer.Events, p.debit),
		aggregate.On(transfer.Events, p.credit),
		aggregate.On(transfer.Events, p.refund),
	}
}

type process struct {
	accounts, transfers aggregate.Target
	deadline            time.Duration
}

// debit takes the money. It must be gone before the deadline.
func (p process) debit(ctx context.Context, e transfer.Created, m jetstream.Meta, do *aggregate.Do) error {
	if err := do.After(ctx, p.deadline, p.transfers, m.ID, Expire{}, aggregate.Step(expiry)); err != nil {
		return err
	}
	_, err := do.Update(ctx, p.accounts, e.Details.FromAccountID, Debit{TransferID: m.ID, Cents: e.Details.Cents})
	if code, refused := refusal(err); refused {
		_, err = do.Update(ctx, p.transfers, m.ID, RecordDebitFailed{Code: code})
		return err
	}
	if err != nil {
		return err
	}
	_, err = do.Update(ctx, p.transfers, m.ID, RecordDebit{})
	return err
}

// credit brings the money.
func (p process) credit(ctx context.Context, e transfer.DebitRecorded, m jetstream.Meta, do *aggregate.Do) error {
	if err := do.Cancel(ctx, p.transfers, m.ID, expiry); err != nil {
		return err
	}
	_, err := do.Update(ctx, p.accounts, e.Details.ToAccountID, Credit{TransferID: m.ID, Cents: e.Details.Cents})
	if code, refused := refusal(err); refused {
		_, err = do.Update(ctx, p.transfers, m.ID, RecordCreditRefused{Code: code})
		return err
	}
	if err != nil {
		return err
	}
	_, err = do.Update(ctx, p.transfers, m.ID, RecordCredit{})
	return err
}

// refund sends the money back.
func (p process) refund(ctx context.Context, e transfer.CreditRefused, m jetstream.Meta, do *aggregate.Do) error {
	_, err := do.Update(ctx, p.accounts, e.Details.FromAccountID, Refund{TransferID: m.ID, Cents: e.Details.Cents})
	if err != nil {
		return err
	}
	_, err = do.Update(ctx, p.transfers, m.ID, RecordRefund{Code: e.Code})
	return err
}

// refusal is the code of what an account refused with, or of its absence.
func refusal(err error) (code string, refused bool) {
	var rejected *aggregate.RejectedError
	switch {
	case errors.As(err, &rejected):
		return rejected.Code, true
	case errors.Is(err, aggregate.ErrNotFound):
		return transfer.CodeAccountNotFound, true
	default:
		return "", false
	}
}
