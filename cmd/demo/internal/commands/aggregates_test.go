package commands_test

import (
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
