package commands_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
)

// AC-B7.
func TestAccount(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, commands.AccountType()).
		When(commands.Debit{TransferID: "t1", Cents: 1}).Fails(aggregate.ErrNotFound).
		When(commands.OpenAccount{Title: "mine", InitialCents: 700}).Then(account.Opened{Title: "mine", Cents: 700}).
		When(commands.OpenAccount{}).Fails(aggregate.ErrExists).
		When(commands.Debit{TransferID: "t1", Cents: 701}).Rejected(transfer.CodeInsufficientFunds).
		When(commands.Debit{TransferID: "t1", Cents: 700}).Then(account.Debited{TransferID: "t1", Cents: 700}).
		When(commands.Credit{TransferID: "t2", Cents: 5}).Then(account.Credited{TransferID: "t2", Cents: 5}).
		When(commands.DeleteAccount{}).Then(account.Deleted{}).
		When(commands.DeleteAccount{}).Nothing().
		When(commands.Debit{TransferID: "t3", Cents: 1}).Rejected(transfer.CodeAccountDeleted).
		When(commands.Credit{TransferID: "t3", Cents: 1}).Rejected(transfer.CodeAccountDeleted).
		When(commands.Refund{TransferID: "t1", Cents: 700}).Then(account.Refunded{TransferID: "t1", Cents: 700}).
		State(commands.Account{Cents: 705, Deleted: true})
}

// Money that belongs to no transfer could never be settled in the books.
func TestMoneyNeedsATransfer(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, commands.AccountType(), account.Opened{Cents: 100}).
		When(commands.Debit{Cents: 1}).Rejected("invalid-transfer").
		When(commands.Credit{Cents: 1}).Rejected("invalid-transfer").
		When(commands.Refund{Cents: 1}).Rejected("invalid-transfer").
		When(commands.Debit{TransferID: "t1"}).Rejected("invalid-amount").
		When(commands.Credit{TransferID: "t1", Cents: -1}).Rejected("invalid-amount").
		When(commands.Refund{TransferID: "t1", Cents: -1}).Rejected("invalid-amount").
		State(commands.Account{Cents: 100})
}

func TestAccountRefuses(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, commands.AccountType()).
		When(commands.OpenAccount{InitialCents: -1}).Rejected("invalid-amount").
		When(commands.OpenAccount{CustomerID: "a b"}).Rejected("invalid-customer").
		When(commands.OpenAccount{Title: strings.Repeat("x", 300)}).Rejected("too-long")
}

// AC-B7.
func TestCustomer(t *testing.T) {
	t.Parallel()
	link := commands.AddToAccount{AccountID: "a1", Title: "rent", Owner: "bob"}
	aggregatetest.Given(t, commands.CustomerType()).
		When(commands.CreateCustomer{Email: "a@b"}).Rejected("invalid-name").
		When(commands.CreateCustomer{Name: "ada", Email: "b"}).Rejected("invalid-email").
		When(commands.CreateCustomer{Name: strings.Repeat("x", 300), Email: "a@b"}).Rejected("too-long").
		When(commands.CreateCustomer{Name: "ada", Email: "a@b"}).Then(customer.Created{Name: "ada", Email: "a@b"}).
		When(link).Then(customer.AddedToAccount(link)).
		When(link).Nothing().
		State(commands.Customer{ToAccounts: []commands.ToAccount{commands.ToAccount(link)}}).
		When(commands.AddToAccount{AccountID: "a b"}).Rejected("invalid-account").
		When(commands.DeleteToAccount{AccountID: "a2"}).Nothing().
		When(commands.DeleteToAccount{AccountID: "a1"}).Then(customer.ToAccountDeleted{AccountID: "a1"}).
		State(commands.Customer{})
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	details := transfer.Details{FromAccountID: "a1", ToAccountID: "a2", Cents: 5}
	created := transfer.Created{Details: details}
	aggregatetest.Given(t, commands.TransferType()).
		When(commands.CreateTransfer(details)).Then(created).
		When(commands.RecordCredit{}).Rejected("unexpected-state").
		When(commands.RecordDebit{}).Then(transfer.DebitRecorded{Details: details}).
		When(commands.Expire{}).Nothing().
		When(commands.RecordDebit{}).Rejected("unexpected-state").
		When(commands.RecordNotification{Key: "k"}).Rejected("unexpected-state").
		When(commands.RecordCredit{}).Then(transfer.CreditRecorded{Details: details}).
		When(commands.RecordNotification{Key: "k"}).Then(transfer.NotificationSent{Key: "k"}).
		When(commands.RecordNotification{Key: "k"}).Nothing().
		State(commands.Transfer{Details: details, State: transfer.Completed, Notified: true})

	// The money leaves after the transfer was given up: it goes back.
	aggregatetest.Given(t, commands.TransferType(), created).
		When(commands.Expire{}).Then(transfer.TimedOut{Details: details}).
		When(commands.RecordDebit{}).Then(transfer.CreditRefused{Details: details, Code: transfer.CodeTimedOut}).
		When(commands.RecordRefund{Code: transfer.CodeTimedOut}).
		Then(transfer.Refunded{Details: details, Code: transfer.CodeTimedOut}).
		State(commands.Transfer{Details: details, State: transfer.FailedTimeout})

	aggregatetest.Given(t, commands.TransferType(), created, transfer.TimedOut{Details: details}).
		When(commands.RecordDebitFailed{Code: "x"}).Nothing()

	aggregatetest.Given(t, commands.TransferType(), created, transfer.DebitRecorded{Details: details}).
		When(commands.RecordRefund{}).Rejected("unexpected-state").
		When(commands.RecordDebitFailed{}).Rejected("unexpected-state").
		When(commands.RecordCreditRefused{Code: "x"}).Then(transfer.CreditRefused{Details: details, Code: "x"}).
		When(commands.RecordCreditRefused{Code: "x"}).Rejected("unexpected-state").
		State(commands.Transfer{Details: details, State: transfer.Refunding})
}

func TestTransferRefuses(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, commands.TransferType()).
		When(commands.CreateTransfer{FromAccountID: "a", ToAccountID: "b", Cents: -1}).Rejected("invalid-amount").
		When(commands.CreateTransfer{FromAccountID: "a", ToAccountID: "b"}).Rejected("invalid-amount").
		When(commands.CreateTransfer{FromAccountID: "a", ToAccountID: "a", Cents: 1}).Rejected("same-account").
		When(commands.CreateTransfer{FromAccountID: "a", ToAccountID: "a b", Cents: 1}).Rejected("invalid-account").
		When(commands.CreateTransfer{
			FromAccountID: "a", ToAccountID: "b", Cents: 1, Description: strings.Repeat("x", 300),
		}).Rejected("too-long")
}

// Whatever is done to an account, its balance never falls below nothing, only the
// amount asked for moves, and what is deleted stays deleted.
func TestAccountProperties(t *testing.T) {
	t.Parallel()
	aggregatetest.Check(t, commands.AccountType(), aggregatetest.Property[commands.Account]{
		Command: func(r *rand.Rand, _ commands.Account, exists bool) any {
			cents, id := r.Int64N(1000)-10, "t"+strconv.Itoa(r.IntN(3))
			switch n := r.IntN(20); {
			case !exists || n == 0:
				return commands.OpenAccount{InitialCents: cents}
			case n < 9:
				return commands.Debit{TransferID: id, Cents: cents}
			case n < 16:
				return commands.Credit{TransferID: id, Cents: cents}
			case n < 19:
				return commands.Refund{TransferID: id, Cents: cents}
			default:
				return commands.DeleteAccount{}
			}
		},
		Invariant: func(a commands.Account) error {
			if a.Cents < 0 {
				return fmt.Errorf("the balance is %d", a.Cents)
			}
			return nil
		},
		Transition: func(before commands.Account, command any, events []any, after commands.Account) error {
			var moved int64
			switch c := command.(type) {
			case commands.OpenAccount:
				moved = c.InitialCents
			case commands.Debit:
				moved = -c.Cents
			case commands.Credit:
				moved = c.Cents
			case commands.Refund:
				moved = c.Cents
			}
			if len(events) == 0 {
				moved = 0
			}
			if after.Cents != before.Cents+moved || before.Deleted && !after.Deleted {
				return fmt.Errorf("%+v became %+v", before, after)
			}
			return nil
		},
	})
}

// Whatever is recorded in whatever order, a transfer that has ended stays ended –
// but for money that leaves after the time-out, which has to go back – and money
// that left is credited or refunded before it ends.
func TestTransferProperties(t *testing.T) {
	t.Parallel()
	aggregatetest.Check(t, commands.TransferType(), aggregatetest.Property[commands.Transfer]{
		Command: func(r *rand.Rand, _ commands.Transfer, exists bool) any {
			if !exists {
				return commands.CreateTransfer{FromAccountID: "a", ToAccountID: "b", Cents: r.Int64N(5)}
			}
			return []any{
				commands.RecordDebit{}, commands.RecordDebitFailed{Code: "x"}, commands.RecordCredit{},
				commands.RecordCreditRefused{Code: "x"}, commands.RecordRefund{Code: "x"}, commands.Expire{},
				commands.RecordNotification{Key: "k"},
			}[r.IntN(7)]
		},
		Transition: func(before commands.Transfer, _ any, _ []any, after commands.Transfer) error {
			switch from, to := before.State, after.State; {
			case from == to, from == "":
			case from == transfer.Initial && to != transfer.Completed && to != transfer.Refunding:
			case from == transfer.Debited && (to == transfer.Completed || to == transfer.Refunding):
			case from == transfer.FailedTimeout && to == transfer.Refunding:
			case from == transfer.Refunding && to.Final() && to != transfer.Completed:
			default:
				return fmt.Errorf("%s became %s", from, to)
			}
			return nil
		},
	})
}
