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

// NewReactor makes the process that drives a transfer from its creation to its
// end: debit, credit, and the refund when the credit is refused. Where the
// accounts and transfers are, in this process or another, it does not care.
func NewReactor(
	store *jetstream.Store, accounts, transfers aggregate.Target, deadline time.Duration, cfg aggregate.ReactorConfig,
) (*aggregate.Reactor, error) {
	return aggregate.NewReactor(
		store,
		ReactorName,
		cfg,
		aggregate.On(
			transfer.Events,
			func(ctx context.Context, e transfer.Created, m jetstream.Meta, do *aggregate.Do) error {
				if err := do.After(ctx, deadline, transfers, m.ID, Expire{}); err != nil {
					return err
				}
				_, err := do.Update(
					ctx,
					accounts,
					e.Details.FromAccountID,
					Debit{TransferID: m.ID, Cents: e.Details.Cents},
				)
				if code, refused := refusal(err); refused {
					_, err = do.Update(ctx, transfers, m.ID, RecordDebitFailed{Code: code})
					return err
				}
				if err != nil {
					return err
				}
				_, err = do.Update(ctx, transfers, m.ID, RecordDebit{})
				return err
			},
		),
		aggregate.On(
			transfer.Events,
			func(ctx context.Context, e transfer.DebitRecorded, m jetstream.Meta, do *aggregate.Do) error {
				_, err := do.Update(
					ctx,
					accounts,
					e.Details.ToAccountID,
					Credit{TransferID: m.ID, Cents: e.Details.Cents},
				)
				if code, refused := refusal(err); refused {
					_, err = do.Update(ctx, transfers, m.ID, RecordCreditRefused{Code: code})
					return err
				}
				if err != nil {
					return err
				}
				_, err = do.Update(ctx, transfers, m.ID, RecordCredit{})
				return err
			},
		),
		aggregate.On(
			transfer.Events,
			func(ctx context.Context, e transfer.CreditRefused, m jetstream.Meta, do *aggregate.Do) error {
				_, err := do.Update(
					ctx,
					accounts,
					e.Details.FromAccountID,
					Refund{TransferID: m.ID, Cents: e.Details.Cents},
				)
				if err != nil {
					return err
				}
				_, err = do.Update(ctx, transfers, m.ID, RecordRefund{Code: e.Code})
				return err
			},
		),
	)
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
