package commands

import (
	"errors"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/jetstream"
)

// maxToAccounts bounds the accounts that a customer sends money to.
const maxToAccounts = 100

// Customer is the state of a customer: what its commands depend on.
type Customer struct {
	ToAccounts []ToAccount `json:"toAccounts,omitempty"`
}

// ToAccount is an account that a customer sends money to.
type ToAccount struct {
	AccountID string `json:"accountId"`
	Title     string `json:"title"`
	Owner     string `json:"owner"`
}

type (
	// CreateCustomer makes a customer.
	CreateCustomer struct {
		Name    string `json:"name"`
		Email   string `json:"email"`
		Phone   string `json:"phone,omitempty"`
		Address string `json:"address,omitempty"`
	}
	// AddToAccount links an account.
	AddToAccount struct {
		AccountID string `json:"accountId"`
		Title     string `json:"title"`
		Owner     string `json:"owner"`
	}
	// DeleteToAccount unlinks an account.
	DeleteToAccount struct {
		AccountID string `json:"accountId"`
	}
)

// CustomerType is the aggregate type of customers.
func CustomerType() *aggregate.Type[Customer] {
	return aggregate.New[Customer](customer.Events,
		aggregate.Apply(func(*Customer, customer.Created, jetstream.Meta) {}),
		aggregate.Apply(func(c *Customer, e customer.AddedToAccount, _ jetstream.Meta) {
			c.remove(e.AccountID)
			c.ToAccounts = append(c.ToAccounts, ToAccount(e))
		}),
		aggregate.Apply(func(c *Customer, e customer.ToAccountDeleted, _ jetstream.Meta) { c.remove(e.AccountID) }),

		aggregate.Create("create", func(c CreateCustomer, _ aggregate.Decision) ([]any, error) {
			if err := errors.Join(short("name", c.Name), short("email", c.Email), short("phone", c.Phone),
				short("address", c.Address)); err != nil {
				return nil, err
			}
			if strings.TrimSpace(c.Name) == "" {
				return nil, aggregate.Reject("invalid-name", "the name is empty")
			}
			if !strings.Contains(c.Email, "@") {
				return nil, aggregate.Reject("invalid-email", "email %q holds no @", c.Email)
			}
			return []any{customer.Created(c)}, nil
		}),
		aggregate.Handle("add-to-account", func(s Customer, c AddToAccount, _ aggregate.Decision) ([]any, error) {
			if err := jetstream.ValidateID(c.AccountID); err != nil {
				return nil, aggregate.Reject("invalid-account", "%v", err)
			}
			if err := errors.Join(short("title", c.Title), short("owner", c.Owner)); err != nil {
				return nil, err
			}
			if len(s.ToAccounts) >= maxToAccounts {
				return nil, aggregate.Reject("too-many", "a customer has at most %d to-accounts", maxToAccounts)
			}
			if slices.Contains(s.ToAccounts, ToAccount(c)) {
				return nil, nil
			}
			return []any{customer.AddedToAccount(c)}, nil
		}),
		aggregate.Handle("delete-to-account", func(s Customer, c DeleteToAccount, _ aggregate.Decision) ([]any, error) {
			for _, have := range s.ToAccounts {
				if have.AccountID == c.AccountID {
					return []any{customer.ToAccountDeleted(c)}, nil
				}
			}
			return nil, nil
		}),
	)
}

func (c *Customer) remove(accountID string) {
	kept := c.ToAccounts[:0]
	for _, t := range c.ToAccounts {
		if t.AccountID != accountID {
			kept = append(kept, t)
		}
	}
	c.ToAccounts = kept
}
