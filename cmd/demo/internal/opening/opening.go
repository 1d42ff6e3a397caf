// Package opening is the bank's saga: who opens an account gets a bonus, if money
// comes in soon.
package opening

import (
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/jetstream"
)

// Name is the name of the saga.
const Name = "account-opening"

// The names of its steps.
const (
	Reserve = "reserve-bonus"
	Open    = "open"
	Pay     = "pay-bonus"
)

// Application is what an opening is started with. Its id is the new account's.
type Application struct {
	CustomerID string `json:"customerId,omitempty"`
	Title      string `json:"title"`
	// Payer is the account that the bonus comes from.
	Payer      string `json:"payer"`
	BonusCents int64  `json:"bonusCents"`
}

// New is the saga: the bonus is taken from the payer, the account is opened and waits
// for its first money, and then the bonus is paid. No money for as long as patience
// lasts, and the account is closed again and the bonus given back.
func New(accounts aggregate.Target, patience time.Duration) *saga.Saga[Application] {
	type instance = saga.Instance[Application]
	return saga.New(Name,
		saga.Step[Application]{
			Name: Reserve,
			Do: func(i instance) saga.Command {
				return saga.Send(accounts, i.Data.Payer, commands.Debit{TransferID: i.ID, Cents: i.Data.BonusCents})
			},
			Undo: func(i instance) saga.Command {
				return saga.Send(accounts, i.Data.Payer, commands.Refund{TransferID: i.ID, Cents: i.Data.BonusCents})
			},
		},
		saga.Step[Application]{
			Name: Open, Await: true, Timeout: patience,
			Do: func(i instance) saga.Command {
				return saga.Create(accounts, i.ID, commands.OpenAccount{CustomerID: i.Data.CustomerID, Title: i.Data.Title})
			},
			Undo: func(i instance) saga.Command { return saga.Send(accounts, i.ID, commands.DeleteAccount{}) },
		},
		saga.Step[Application]{
			Name: Pay,
			Do: func(i instance) saga.Command {
				return saga.Send(accounts, i.ID, commands.Credit{TransferID: i.ID, Cents: i.Data.BonusCents})
			},
		},
	)
}

// Links report the money that comes into an account, whoever sends it. Accounts that
// were opened without the saga are nobody's.
func Links() []saga.Link {
	return []saga.Link{saga.ReportOn(account.Events, func(_ account.Credited, m jetstream.Meta) saga.Report {
		return saga.Report{Instance: m.ID, Step: Open}
	})}
}
