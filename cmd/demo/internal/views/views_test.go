package views_test

import (
	"testing"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

var details = transfer.Details{FromAccountID: "a1", ToAccountID: "a2", Cents: 200, Description: "rent"}

// at is when the n-th given event happened.
func at(n int) time.Time { return time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC) }

func TestAccounts(t *testing.T) {
	t.Parallel()
	s := projectiontest.New(t, views.Accounts()).
		Given(account.Events, "a1", account.Opened{CustomerID: "c1", Title: "mine", Cents: 700}).
		Given(account.Events, "a2", account.Opened{Title: "yours"}).
		Given(transfer.Events, "t1", transfer.Created{Details: details}).
		Given(account.Events, "a1", account.Debited{TransferID: "t1", Cents: 200}).
		Given(transfer.Events, "t1", transfer.DebitRecorded{Details: details}).
		Given(account.Events, "a2", account.Credited{TransferID: "t1", Cents: 200}).
		Given(transfer.Events, "t1", transfer.CreditRecorded{Details: details}).
		Given(account.Events, "a2", account.Deleted{}).
		Given(transfer.Events, "t2", transfer.Created{Details: transfer.Details{FromAccountID: "nobody", ToAccountID: "a2"}}).
		Lacks("nobody")
	mine, _ := s.Get("a1")
	if mine.BalanceCents != 500 || mine.CustomerID != "c1" || !mine.Active || !mine.OpenedAt.Equal(at(0)) {
		t.Errorf("a1 is %+v", mine)
	}
	if h := mine.History; len(h) != 3 || h[1].Type != views.EntryTransfer || h[1].State != transfer.Completed ||
		h[2].Type != views.EntryDebited || h[2].Cents != -200 || h[2].BalanceCents != 500 {
		t.Errorf("a1's history is %+v", h)
	}
	yours, _ := s.Get("a2")
	if yours.BalanceCents != 200 || yours.Active || len(yours.History) != 5 {
		t.Errorf("a2 is %+v", yours)
	}
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	projectiontest.New(t, views.Customers()).
		Given(customer.Events, "c1", customer.Created{Name: "Ann", Email: "ann@example.org"}).
		Given(account.Events, "a1", account.Opened{CustomerID: "c1"}).
		Given(account.Events, "a2", account.Opened{CustomerID: "c1"}).
		Given(account.Events, "a3", account.Opened{CustomerID: "nobody"}).
		Given(customer.Events, "c1", customer.AddedToAccount{AccountID: "a3", Title: "rent", Owner: "Bob"}).
		Given(account.Events, "a1", account.Deleted{}).
		Then(map[string]views.Customer{"c1": {
			CustomerID: "c1", Name: "Ann", Email: "ann@example.org", Accounts: []string{"a2"},
			ToAccounts: []views.ToAccount{{AccountID: "a3", Title: "rent", Owner: "Bob"}},
		}}).
		Given(account.Events, "a3", account.Deleted{}).
		Holds("c1", views.Customer{
			CustomerID: "c1", Name: "Ann", Email: "ann@example.org", Accounts: []string{"a2"}, ToAccounts: []views.ToAccount{},
		})
}

func TestTransfers(t *testing.T) {
	t.Parallel()
	projectiontest.New(t, views.Transfers()).
		Given(transfer.Events, "t1", transfer.Created{Details: details}, transfer.DebitRecorded{Details: details}).
		Given(transfer.Events, "t2", transfer.Created{Details: details},
			transfer.DebitFailed{Details: details, Code: transfer.CodeInsufficientFunds}, transfer.NotificationSent{}).
		Then(map[string]views.Transfer{
			"t1": {TransferID: "t1", Details: details, State: transfer.Debited, CreatedAt: at(0), UpdatedAt: at(1)},
			"t2": {
				TransferID: "t2", Details: details, State: transfer.FailedInsufficientFunds, CreatedAt: at(2), UpdatedAt: at(4),
				Notified: true,
			},
		})
}

func TestLedger(t *testing.T) {
	t.Parallel()
	projectiontest.New(t, views.LedgerView()).
		Given(account.Events, "a1", account.Opened{Cents: 700}).
		Given(account.Events, "a2", account.Opened{Cents: 5}).
		Given(account.Events, "a1", account.Debited{TransferID: "t1", Cents: 200}).
		Then(map[string]views.Ledger{views.LedgerKey: {
			DepositedCents: 705, BalancesCents: 505, UnderWayCents: 200, UnderWay: map[string]int64{"t1": 200}, Accounts: 2,
		}}).
		Given(account.Events, "a2", account.Credited{TransferID: "t1", Cents: 200}).
		Then(map[string]views.Ledger{views.LedgerKey: {
			DepositedCents: 705, BalancesCents: 705, UnderWay: map[string]int64{}, Accounts: 2,
		}})
}
