package commands

import (
	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

// Transfer is the state of a money transfer.
type Transfer struct {
	Details  transfer.Details `json:"details"`
	State    transfer.State   `json:"state"`
	Notified bool             `json:"notified,omitempty"`
}

type (
	// CreateTransfer begins a transfer.
	CreateTransfer struct {
		FromAccountID string `json:"fromAccountId"`
		ToAccountID   string `json:"toAccountId"`
		Cents         int64  `json:"cents"`
		Description   string `json:"description,omitempty"`
	}
	// RecordDebit notes that the money has left.
	RecordDebit struct{}
	// RecordDebitFailed notes that it has not.
	RecordDebitFailed struct {
		Code string `json:"code"`
	}
	// RecordCredit notes that the money has arrived.
	RecordCredit struct{}
	// RecordCreditRefused notes that it cannot.
	RecordCreditRefused struct {
		Code string `json:"code"`
	}
	// RecordRefund notes that the money has gone back.
	RecordRefund struct {
		Code string `json:"code"`
	}
	// Expire ends a transfer whose money has not left yet.
	Expire struct{}
	// RecordNotification notes that somebody was told of the end.
	RecordNotification struct {
		Key string `json:"key"`
	}
)

// TransferType is the aggregate type of transfers.
func TransferType() *aggregate.Type[Transfer] {
	to := func(s transfer.State) func(*Transfer) { return func(t *Transfer) { t.State = s } }
	return aggregate.New[Transfer](
		transfer.Events,
		aggregate.Apply(func(t *Transfer, e transfer.Created, _ jetstream.Meta) {
			t.Details, t.State = e.Details, transfer.Initial
		}),
		aggregate.Apply(func(t *Transfer, _ transfer.DebitRecorded, _ jetstream.Meta) { to(transfer.Debited)(t) }),
		aggregate.Apply(func(t *Transfer, e transfer.DebitFailed, _ jetstream.Meta) { to(transfer.Failed(e.Code))(t) }),
		aggregate.Apply(func(t *Transfer, _ transfer.CreditRecorded, _ jetstream.Meta) { to(transfer.Completed)(t) }),
		aggregate.Apply(func(t *Transfer, _ transfer.CreditRefused, _ jetstream.Meta) { to(transfer.Refunding)(t) }),
		aggregate.Apply(func(t *Transfer, e transfer.Refunded, _ jetstream.Meta) { to(transfer.Failed(e.Code))(t) }),
		aggregate.Apply(func(t *Transfer, _ transfer.TimedOut, _ jetstream.Meta) { to(transfer.FailedTimeout)(t) }),
		aggregate.Apply(func(t *Transfer, _ transfer.NotificationSent, _ jetstream.Meta) { t.Notified = true }),

		aggregate.Create("create", createTransfer),
		aggregate.Handle("record-debit", func(t Transfer, _ RecordDebit, _ aggregate.Decision) ([]any, error) {
			switch t.State {
			case transfer.Initial:
				return []any{transfer.DebitRecorded{Details: t.Details}}, nil
			case transfer.FailedTimeout:
				// The money left after the transfer was given up: send it back.
				return []any{transfer.CreditRefused{Details: t.Details, Code: transfer.CodeTimedOut}}, nil
			default:
				return nil, unexpected(t, "record-debit")
			}
		}),
		aggregate.Handle(
			"record-debit-failed",
			func(t Transfer, c RecordDebitFailed, _ aggregate.Decision) ([]any, error) {
				switch t.State {
				case transfer.Initial:
					return []any{transfer.DebitFailed{Details: t.Details, Code: c.Code}}, nil
				case transfer.FailedTimeout:
					return nil, nil
				default:
					return nil, unexpected(t, "record-debit-failed")
				}
			},
		),
		aggregate.Handle("record-credit", func(t Transfer, _ RecordCredit, _ aggregate.Decision) ([]any, error) {
			if t.State != transfer.Debited {
				return nil, unexpected(t, "record-credit")
			}
			return []any{transfer.CreditRecorded{Details: t.Details}}, nil
		}),
		aggregate.Handle(
			"record-credit-refused",
			func(t Transfer, c RecordCreditRefused, _ aggregate.Decision) ([]any, error) {
				if t.State != transfer.Debited {
					return nil, unexpected(t, "record-credit-refused")
				}
				return []any{transfer.CreditRefused{Details: t.Details, Code: c.Code}}, nil
			},
		),
		aggregate.Handle("record-refund", func(t Transfer, c RecordRefund, _ aggregate.Decision) ([]any, error) {
			if t.State != transfer.Refunding {
				return nil, unexpected(t, "record-refund")
			}
			return []any{transfer.Refunded{Details: t.Details, Code: c.Code}}, nil
		}),
		aggregate.Handle("expire", func(t Transfer, _ Expire, _ aggregate.Decision) ([]any, error) {
			if t.State != transfer.Initial {
				return nil, nil
			}
			return []any{transfer.TimedOut{Details: t.Details}}, nil
		}),
		aggregate.Handle(
			"record-notification",
			func(t Transfer, c RecordNotification, _ aggregate.Decision) ([]any, error) {
				if t.Notified {
					return nil, nil
				}
				if !t.State.Final() {
					return nil, unexpected(t, "record-notification")
				}
				return []any{transfer.NotificationSent(c)}, nil
			},
		),
	)
}

func createTransfer(c CreateTransfer, _ aggregate.Decision) ([]any, error) {
	if err := positive(c.Cents); err != nil {
		return nil, err
	}
	if err := short("description", c.Description); err != nil {
		return nil, err
	}
	for _, a := range []struct{ field, id string }{{"fromAccountId", c.FromAccountID}, {"toAccountId", c.ToAccountID}} {
		if err := jetstream.ValidateID(a.id); err != nil {
			return nil, aggregate.Reject("invalid-account", "%s: %v", a.field, err)
		}
	}
	if c.FromAccountID == c.ToAccountID {
		return nil, aggregate.Reject("same-account", "a transfer needs two accounts, both are %q", c.FromAccountID)
	}
	return []any{transfer.Created{Details: transfer.Details(c)}}, nil
}

// unexpected refuses a step that the transfer's state does not allow.
func unexpected(t Transfer, step string) error {
	return aggregate.Reject("unexpected-state", "%s while the transfer is %s", step, t.State)
}
