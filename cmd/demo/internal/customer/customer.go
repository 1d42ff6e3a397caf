// Package customer holds the events of the bank's customers, and nothing else.
package customer

import "github.com/rossby-go/rossby/jetstream"

type (
	// Created is the first event of a customer.
	Created struct {
		Name    string `json:"name"`
		Email   string `json:"email"`
		Phone   string `json:"phone,omitempty"`
		Address string `json:"address,omitempty"`
	}
	// AddedToAccount is an account that the customer sends money to.
	AddedToAccount struct {
		AccountID string `json:"accountId"`
		Title     string `json:"title"`
		Owner     string `json:"owner"`
	}
	// ToAccountDeleted is an account that the customer no longer sends money to.
	ToAccountDeleted struct {
		AccountID string `json:"accountId"`
	}
)

// Events are the customer's events.
var Events = jetstream.NewSchema("customer",
	jetstream.Event[Created]("created"),
	jetstream.Event[AddedToAccount]("added-to-account"),
	jetstream.Event[ToAccountDeleted]("to-account-deleted"),
)
