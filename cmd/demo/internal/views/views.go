// Package views is the bank's query side: what its views hold and how events
// become them. It knows events only, no commands.
package views

import (
	"slices"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The views' names.
const (
	AccountsName  = "accounts"
	CustomersName = "customers"
	TransfersName = "transfers"
	LedgerName    = "ledger"
)

// historyMax bounds the rows that an account's view keeps, newest last.
const historyMax = 50

// Account is an account with what happened to it.
type Account struct {
	AccountID    string `json:"accountId"`
	CustomerID   string `json:"customerId,omitempty"`
	Title        string `json:"title"`
	BalanceCents int64  `json:"balanceCents"`
	// Active is false once the account is deleted.
	Active   bool      `json:"active"`
	OpenedAt time.Time `json:"openedAt"`
	// History is the account's last rows, oldest first.
	History []Entry `json:"history"`
}

// The types of an account's history rows.
const (
	EntryOpened   = "opened"
	EntryTransfer = "transfer"
	EntryDebited  = "debited"
	EntryCredited = "credited"
	EntryRefunded = "refunded"
	EntryDeleted  = "deleted"
)

// Entry is a row of an account's history: a change of its balance, keyed by the
// event, or a transfer from or to it with the transfer's state.
type Entry struct {
	EventID       string         `json:"eventId"`
	Type          string         `json:"type"`
	At            time.Time      `json:"at"`
	Cents         int64          `json:"cents,omitempty"`
	BalanceCents  int64          `json:"balanceCents"`
	TransferID    string         `json:"transferId,omitempty"`
	FromAccountID string         `json:"fromAccountId,omitempty"`
	ToAccountID   string         `json:"toAccountId,omitempty"`
	Description   string         `json:"description,omitempty"`
	State         transfer.State `json:"state,omitempty"`
}

// Accounts is the view of accounts, by account id.
func Accounts() *projection.Definition[Account] {
	ends := func(d transfer.Details) []string {
		if d.FromAccountID == d.ToAccountID {
			return []string{d.FromAccountID}
		}
		return []string{d.FromAccountID, d.ToAccountID}
	}
	return projection.NewKeyed(
		AccountsName,
		projection.On(account.Events, func(v *Account, e account.Opened, m jetstream.Meta) {
			*v = Account{
				AccountID:    m.ID,
				CustomerID:   e.CustomerID,
				Title:        e.Title,
				BalanceCents: e.Cents,
				Active:       true,
				OpenedAt:     m.Time,
			}
			v.add(m, Entry{Type: EntryOpened, Cents: e.Cents})
		}),
		projection.On(account.Events, func(v *Account, e account.Debited, m jetstream.Meta) {
			v.BalanceCents -= e.Cents
			v.add(m, Entry{Type: EntryDebited, Cents: -e.Cents, TransferID: e.TransferID})
		}),
		projection.On(account.Events, func(v *Account, e account.Credited, m jetstream.Meta) {
			v.BalanceCents += e.Cents
			v.add(m, Entry{Type: EntryCredited, Cents: e.Cents, TransferID: e.TransferID})
		}),
		projection.On(account.Events, func(v *Account, e account.Refunded, m jetstream.Meta) {
			v.BalanceCents += e.Cents
			v.add(m, Entry{Type: EntryRefunded, Cents: e.Cents, TransferID: e.TransferID})
		}),
		projection.On(account.Events, func(v *Account, _ account.Deleted, m jetstream.Meta) {
			v.Active = false
			v.add(m, Entry{Type: EntryDeleted})
		}),
		projection.OnRow(
			transfer.Events,
			func(row *projection.Row[Account], e transfer.Created, m jetstream.Meta) error {
				if !row.Exists {
					row.Delete() // nobody's account: nothing to show
					return nil
				}
				row.Value.add(m, Entry{
					Type: EntryTransfer, Cents: e.Details.Cents, TransferID: m.ID, FromAccountID: e.Details.FromAccountID,
					ToAccountID: e.Details.ToAccountID, Description: e.Details.Description, State: transfer.Initial,
				})
				return nil
			},
			projection.Keys(func(e transfer.Created, _ jetstream.Meta) []string { return ends(e.Details) }),
		),
		state(func(transfer.DebitRecorded) transfer.State { return transfer.Debited },
			func(e transfer.DebitRecorded) []string { return ends(e.Details) }),
		state(func(e transfer.DebitFailed) transfer.State { return transfer.Failed(e.Code) },
			func(e transfer.DebitFailed) []string { return ends(e.Details) }),
		state(func(transfer.CreditRecorded) transfer.State { return transfer.Completed },
			func(e transfer.CreditRecorded) []string { return ends(e.Details) }),
		state(func(transfer.CreditRefused) transfer.State { return transfer.Refunding },
			func(e transfer.CreditRefused) []string { return ends(e.Details) }),
		state(func(e transfer.Refunded) transfer.State { return transfer.Failed(e.Code) },
			func(e transfer.Refunded) []string { return ends(e.Details) }),
		state(func(transfer.TimedOut) transfer.State { return transfer.FailedTimeout },
			func(e transfer.TimedOut) []string { return ends(e.Details) }),
	)
}

// state folds a transfer's progress into the rows of both of its accounts.
func state[E any](of func(E) transfer.State, keys func(E) []string) projection.Handler[Account] {
	return projection.OnRow(transfer.Events, func(row *projection.Row[Account], e E, m jetstream.Meta) error {
		if !row.Exists {
			row.Delete()
			return nil
		}
		for i := range row.Value.History {
			if r := &row.Value.History[i]; r.Type == EntryTransfer && r.TransferID == m.ID {
				r.State = of(e)
			}
		}
		return nil
	}, projection.Keys(func(e E, _ jetstream.Meta) []string { return keys(e) }))
}

func (a *Account) add(m jetstream.Meta, e Entry) {
	e.EventID, e.At, e.BalanceCents = m.EventID, m.Time, a.BalanceCents
	a.History = append(a.History, e)
	if n := len(a.History); n > historyMax {
		a.History = slices.Delete(a.History, 0, n-historyMax)
	}
}

// accountsMax bounds the accounts that a customer's view lists, newest last.
const accountsMax = 1000

// Customer is a customer with the accounts that it owns and sends money to.
type Customer struct {
	CustomerID string      `json:"customerId"`
	Name       string      `json:"name"`
	Email      string      `json:"email"`
	Phone      string      `json:"phone,omitempty"`
	Address    string      `json:"address,omitempty"`
	Accounts   []string    `json:"accounts"`
	ToAccounts []ToAccount `json:"toAccounts"`
}

// ToAccount is an account that a customer sends money to.
type ToAccount struct {
	AccountID string `json:"accountId"`
	Title     string `json:"title"`
	Owner     string `json:"owner"`
}

// Customers is the view of customers, by customer id. It is a lookup view: the
// deletion of an account does not say which customers it is linked to.
func Customers() *projection.Definition[Customer] {
	return projection.NewLookup(
		CustomersName,
		projection.OnTx(customer.Events, func(tx *projection.Tx[Customer], e customer.Created, m jetstream.Meta) error {
			tx.Put(m.ID, Customer{
				CustomerID: m.ID, Name: e.Name, Email: e.Email, Phone: e.Phone, Address: e.Address,
				Accounts: []string{}, ToAccounts: []ToAccount{},
			})
			return nil
		}),
		projection.OnTx(
			customer.Events,
			func(tx *projection.Tx[Customer], e customer.AddedToAccount, m jetstream.Meta) error {
				if c, ok := tx.Get(m.ID); ok {
					c.unlink(e.AccountID)
					c.ToAccounts = append(c.ToAccounts, ToAccount(e))
					tx.Put(m.ID, c)
				}
				return nil
			},
		),
		projection.OnTx(
			customer.Events,
			func(tx *projection.Tx[Customer], e customer.ToAccountDeleted, m jetstream.Meta) error {
				if c, ok := tx.Get(m.ID); ok {
					c.unlink(e.AccountID)
					tx.Put(m.ID, c)
				}
				return nil
			},
		),
		projection.OnTx(account.Events, func(tx *projection.Tx[Customer], e account.Opened, m jetstream.Meta) error {
			if e.CustomerID == "" {
				return nil
			}
			if c, ok := tx.Get(e.CustomerID); ok {
				c.Accounts = append(c.Accounts, m.ID)
				if n := len(c.Accounts); n > accountsMax {
					c.Accounts = slices.Delete(c.Accounts, 0, n-accountsMax)
				}
				tx.Put(e.CustomerID, c)
			}
			return nil
		}),
		projection.OnTx(account.Events, func(tx *projection.Tx[Customer], _ account.Deleted, m jetstream.Meta) error {
			for id, c := range tx.Prefix("") {
				if c.unlink(m.ID) {
					tx.Put(id, c)
				}
			}
			return nil
		}),
	)
}

// unlink takes an account out of the customer and tells whether it was there.
func (c *Customer) unlink(accountID string) bool {
	before := len(c.Accounts) + len(c.ToAccounts)
	c.Accounts = slices.DeleteFunc(c.Accounts, func(id string) bool { return id == accountID })
	c.ToAccounts = slices.DeleteFunc(c.ToAccounts, func(t ToAccount) bool { return t.AccountID == accountID })
	return len(c.Accounts)+len(c.ToAccounts) < before
}

// Transfer is a transfer.
type Transfer struct {
	TransferID string `json:"transferId"`
	transfer.Details
	State     transfer.State `json:"state"`
	CreatedAt time.Time      `json:"createdAt"`
	UpdatedAt time.Time      `json:"updatedAt"`
	// Notified tells that the notification service took the end of the transfer.
	Notified bool `json:"notified"`
}

// Transfers is the view of transfers, by transfer id.
func Transfers() *projection.Definition[Transfer] {
	return projection.NewKeyed(TransfersName,
		projection.On(transfer.Events, func(v *Transfer, e transfer.Created, m jetstream.Meta) {
			*v = Transfer{
				TransferID: m.ID,
				Details:    e.Details,
				State:      transfer.Initial,
				CreatedAt:  m.Time,
				UpdatedAt:  m.Time,
			}
		}),
		progress(func(transfer.DebitRecorded) transfer.State { return transfer.Debited }),
		progress(func(e transfer.DebitFailed) transfer.State { return transfer.Failed(e.Code) }),
		progress(func(transfer.CreditRecorded) transfer.State { return transfer.Completed }),
		progress(func(transfer.CreditRefused) transfer.State { return transfer.Refunding }),
		progress(func(e transfer.Refunded) transfer.State { return transfer.Failed(e.Code) }),
		progress(func(transfer.TimedOut) transfer.State { return transfer.FailedTimeout }),
		projection.On(transfer.Events, func(v *Transfer, _ transfer.NotificationSent, m jetstream.Meta) {
			v.Notified, v.UpdatedAt = true, m.Time
		}),
	)
}

func progress[E any](of func(E) transfer.State) projection.Handler[Transfer] {
	return projection.On(transfer.Events, func(v *Transfer, e E, m jetstream.Meta) {
		v.State, v.UpdatedAt = of(e), m.Time
	})
}

// LedgerKey is the one key of the ledger.
const LedgerKey = "bank"

// Ledger is the bank's books as of one position. Money is deposited once, and
// from then on it is in an account or under way: DepositedCents is always
// BalancesCents + UnderWayCents. A transfer debited twice, credited twice or
// credited without a debit would stay in UnderWay for ever.
type Ledger struct {
	DepositedCents int64 `json:"depositedCents"`
	BalancesCents  int64 `json:"balancesCents"`
	UnderWayCents  int64 `json:"underWayCents"`
	// UnderWay is, by transfer, what has left one account and not arrived.
	UnderWay map[string]int64 `json:"underWay"`
	Accounts int64            `json:"accounts"`
}

// LedgerView is the view of the bank's books, folded from the accounts' events
// alone.
func LedgerView() *projection.Definition[Ledger] {
	return projection.NewKeyed(LedgerName,
		ledger(func(l *Ledger, e account.Opened) {
			l.Accounts++
			l.DepositedCents += e.Cents
			l.BalancesCents += e.Cents
		}),
		ledger(func(l *Ledger, e account.Debited) { l.move(e.TransferID, e.Cents) }),
		ledger(func(l *Ledger, e account.Credited) { l.move(e.TransferID, -e.Cents) }),
		ledger(func(l *Ledger, e account.Refunded) { l.move(e.TransferID, -e.Cents) }),
	)
}

func ledger[E any](fold func(*Ledger, E)) projection.Handler[Ledger] {
	return projection.On(account.Events, func(l *Ledger, e E, _ jetstream.Meta) { fold(l, e) },
		projection.Keys(func(E, jetstream.Meta) []string { return []string{LedgerKey} }))
}

// move takes money out of the accounts for a transfer, or puts it back.
func (l *Ledger) move(transferID string, cents int64) {
	if l.UnderWay == nil {
		l.UnderWay = map[string]int64{}
	}
	l.BalancesCents -= cents
	l.UnderWayCents += cents
	l.UnderWay[transferID] += cents
	if l.UnderWay[transferID] == 0 {
		delete(l.UnderWay, transferID)
	}
}
