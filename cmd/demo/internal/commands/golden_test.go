package commands_test

import (
	"testing"

	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
)

// What the events mean to the balances that are stored already.
func TestGoldenAccount(t *testing.T) {
	t.Parallel()
	aggregatetest.Golden(t, commands.AccountType(), "testdata/account",
		aggregatetest.History{Name: "closed", Events: []any{
			account.Opened{CustomerID: "c1", Title: "rent", Cents: 70_000},
			account.Debited{TransferID: "t1", Cents: 20_000},
			account.Credited{TransferID: "t2", Cents: 1},
			account.Deleted{},
			account.Refunded{TransferID: "t1", Cents: 20_000},
		}},
	)
}

func TestGoldenCustomer(t *testing.T) {
	t.Parallel()
	aggregatetest.Golden(t, commands.CustomerType(), "testdata/customer",
		aggregatetest.History{Name: "linked", Events: []any{
			customer.Created{Name: "Ada", Email: "ada@example.org"},
			customer.AddedToAccount{AccountID: "a1", Title: "rent", Owner: "Bob"},
			customer.AddedToAccount{AccountID: "a2", Title: "food", Owner: "Eve"},
			customer.ToAccountDeleted{AccountID: "a1"},
		}},
	)
}
