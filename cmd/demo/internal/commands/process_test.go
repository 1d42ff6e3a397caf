package commands_test

import (
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
)

var details = transfer.Details{FromAccountID: "from", ToAccountID: "to", Cents: 80}

// What the process does about each event, and each outcome.
func TestHandlers(t *testing.T) {
	t.Parallel()
	newHandlers := func() *aggregatetest.Handlers {
		s := aggregatetest.NewStore(t)
		return aggregatetest.NewHandlers(s, commands.Handlers(
			aggregatetest.NewRepository(s, commands.AccountType()), aggregatetest.NewRepository(s, commands.TransferType()),
			time.Minute)...)
	}
	type effect = aggregatetest.Effect
	deadline := effect{Target: "transfer", ID: "t1", Step: "expire", Command: commands.Expire{}, After: time.Minute}
	debit := effect{Target: "account", ID: "from", Command: commands.Debit{TransferID: "t1", Cents: 80}}
	credit := effect{Target: "account", ID: "to", Command: commands.Credit{TransferID: "t1", Cents: 80}}
	refund := effect{Target: "account", ID: "from", Command: commands.Refund{TransferID: "t1", Cents: 80}}
	inTime := effect{Target: "transfer", ID: "t1", Step: "expire", Cancel: true}
	record := func(command any) effect { return effect{Target: "transfer", ID: "t1", Command: command} }
	created, debited := transfer.Created{Details: details}, transfer.DebitRecorded{Details: details}
	refused := transfer.CreditRefused{Details: details, Code: "x"}

	newHandlers().When(transfer.Events, "t1", created).Then(deadline, debit, record(commands.RecordDebit{}))
	newHandlers().Answer(effect{ID: "from"}, aggregate.Reject("x", "")).
		When(transfer.Events, "t1", created).Then(deadline, debit, record(commands.RecordDebitFailed{Code: "x"}))
	newHandlers().Answer(effect{ID: "from"}, aggregate.ErrNotFound).
		When(transfer.Events, "t1", created).
		Then(deadline, debit, record(commands.RecordDebitFailed{Code: transfer.CodeAccountNotFound}))
	newHandlers().When(transfer.Events, "t1", debited).Then(inTime, credit, record(commands.RecordCredit{}))
	newHandlers().Answer(effect{ID: "to"}, aggregate.Reject("x", "")).
		When(transfer.Events, "t1", debited).Then(inTime, credit, record(commands.RecordCreditRefused{Code: "x"}))
	newHandlers().When(transfer.Events, "t1", refused).Then(refund, record(commands.RecordRefund{Code: "x"}))

	// Whatever is away is tried again: nothing is recorded.
	for _, down := range []effect{{After: time.Minute}, {ID: "from"}} {
		newHandlers().Answer(down, aggregate.ErrBusy).When(transfer.Events, "t1", created).Fails(aggregate.ErrBusy)
	}
	for _, down := range []effect{{Cancel: true}, {ID: "to"}} {
		newHandlers().Answer(down, aggregate.ErrBusy).When(transfer.Events, "t1", debited).Fails(aggregate.ErrBusy)
	}
	newHandlers().Answer(effect{ID: "from"}, aggregate.ErrBusy).When(transfer.Events, "t1", refused).Fails(aggregate.ErrBusy)
}

// A transfer whose debit comes too late is given up, and what left goes back.
func TestDeadline(t *testing.T) {
	t.Parallel()
	s := aggregatetest.NewStore(t)
	accounts := aggregatetest.NewRepository(s, commands.AccountType())
	transfers := aggregatetest.NewRepository(s, commands.TransferType())
	s.Append(account.Events, "from", account.Opened{Cents: 160})
	s.Append(account.Events, "to", account.Opened{Cents: 300})
	s.Append(transfer.Events, "late", transfer.Created{Details: details}, transfer.TimedOut{Details: details})
	s.Append(transfer.Events, "good", transfer.Created{Details: details})
	s.Run(commands.ReactorName, commands.Handlers(accounts, transfers, time.Minute)...)
	s.Advance(2 * time.Minute)
	for id, want := range map[string]transfer.State{"late": transfer.FailedTimeout, "good": transfer.Completed} {
		snap, err := transfers.Load(t.Context(), id)
		if err != nil || snap.State.State != want {
			t.Errorf("%s: %+v %v", id, snap, err)
		}
	}
	for id, want := range map[string]int64{"from": 80, "to": 380} {
		snap, err := accounts.Load(t.Context(), id)
		if err != nil || snap.State.Cents != want {
			t.Errorf("%s: %+v %v", id, snap, err)
		}
	}
}

// The same transfer as a saga: where the aggregate is nothing but the state of the
// process, the list of steps says it all, the way back included. The demo keeps its
// own aggregate, whose events the views and the gateway are made for.
func TestTransferAsASaga(t *testing.T) {
	t.Parallel()
	newSaga := func(accounts aggregate.Target) *saga.Saga[transfer.Details] {
		type instance = saga.Instance[transfer.Details]
		return saga.New("transfer-saga",
			saga.Step[transfer.Details]{
				Name: "debit", Timeout: time.Minute,
				Do: func(i instance) saga.Command {
					return saga.Send(accounts, i.Data.FromAccountID, commands.Debit{TransferID: i.ID, Cents: i.Data.Cents})
				},
				Undo: func(i instance) saga.Command {
					return saga.Send(accounts, i.Data.FromAccountID, commands.Refund{TransferID: i.ID, Cents: i.Data.Cents})
				},
			},
			saga.Step[transfer.Details]{
				Name: "credit",
				Do: func(i instance) saga.Command {
					return saga.Send(accounts, i.Data.ToAccountID, commands.Credit{TransferID: i.ID, Cents: i.Data.Cents})
				},
			},
		)
	}
	for name, test := range map[string]struct {
		details  transfer.Details
		phase    saga.Phase
		code     string
		from, to int64
	}{
		"Completed":         {details, saga.Completed, "", 70, 380},
		"InsufficientFunds": {transfer.Details{FromAccountID: "from", ToAccountID: "to", Cents: 200}, saga.Compensated, transfer.CodeInsufficientFunds, 150, 300},
		"ToDeleted":         {transfer.Details{FromAccountID: "from", ToAccountID: "gone", Cents: 80}, saga.Compensated, transfer.CodeAccountDeleted, 150, 300},
		"ToUnknown":         {transfer.Details{FromAccountID: "from", ToAccountID: "nobody", Cents: 80}, saga.Compensated, saga.CodeNotFound, 150, 300},
		"FromUnknown":       {transfer.Details{FromAccountID: "nobody", ToAccountID: "to", Cents: 80}, saga.Compensated, saga.CodeNotFound, 150, 300},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := aggregatetest.NewStore(t)
			accounts := aggregatetest.NewRepository(s, commands.AccountType())
			s.Append(account.Events, "from", account.Opened{Cents: 150})
			s.Append(account.Events, "to", account.Opened{Cents: 300})
			s.Append(account.Events, "gone", account.Opened{}, account.Deleted{})
			transfers := newSaga(accounts)
			instances := aggregatetest.NewRepository(s, transfers.Type())
			s.Run(transfers.Name(), transfers.Handlers(instances)...)
			if _, err := instances.Create(t.Context(), "t1", saga.Start[transfer.Details]{Data: test.details}); err != nil {
				t.Fatal(err)
			}
			s.Settle()
			snap, err := instances.Load(t.Context(), "t1")
			if err != nil || snap.State.Phase != test.phase || snap.State.Failure.Code != test.code {
				t.Errorf("%+v %v", snap.State, err)
			}
			for id, want := range map[string]int64{"from": test.from, "to": test.to} {
				if a, err := accounts.Load(t.Context(), id); err != nil || a.State.Cents != want {
					t.Errorf("%s: %+v %v, want %d", id, a.State, err, want)
				}
			}
		})
	}
}
