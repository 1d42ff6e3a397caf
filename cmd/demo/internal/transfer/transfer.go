// Package transfer holds the events of money transfers, and nothing else.
//
// A transfer is debited from one account, then credited to the other:
//
//	Created → DebitRecorded → CreditRecorded
//	        ↘ DebitFailed   ↘ CreditRefused → Refunded
//	        ↘ TimedOut
//
// A debit that arrives after the time-out is refunded, too. From the debit on, a
// transfer always ends with a credit or a refund.
package transfer

import "github.com/rossby-go/rossby/jetstream"

// State is how far a transfer has come.
type State string

// The states. All that begin with FAILED, and COMPLETED, are final.
const (
	Initial                 State = "INITIAL"
	Debited                 State = "DEBITED"
	Completed               State = "COMPLETED"
	Refunding               State = "REFUNDING"
	FailedInsufficientFunds State = "FAILED_DUE_TO_INSUFFICIENT_FUNDS"
	FailedAccountNotFound   State = "FAILED_DUE_TO_ACCOUNT_NOT_FOUND"
	FailedAccountDeleted    State = "FAILED_DUE_TO_ACCOUNT_DELETED"
	FailedTimeout           State = "FAILED_DUE_TO_TIMEOUT"
	FailedOther             State = "FAILED"
)

// Final tells whether the state is a transfer's last.
func (s State) Final() bool { return s != Initial && s != Debited && s != Refunding }

// The codes of what can be wrong with a transfer.
const (
	CodeInsufficientFunds = "insufficient-funds"
	CodeAccountNotFound   = "account-not-found"
	CodeAccountDeleted    = "account-deleted"
	CodeTimedOut          = "timed-out"
)

// Failed is the final state of a transfer that failed with the code.
func Failed(code string) State {
	switch code {
	case CodeInsufficientFunds:
		return FailedInsufficientFunds
	case CodeAccountNotFound:
		return FailedAccountNotFound
	case CodeAccountDeleted:
		return FailedAccountDeleted
	case CodeTimedOut:
		return FailedTimeout
	default:
		return FailedOther
	}
}

// Details are what is transferred. Each event repeats them, so that whoever
// follows it needs no other.
type Details struct {
	FromAccountID string `json:"fromAccountId"`
	ToAccountID   string `json:"toAccountId"`
	Cents         int64  `json:"cents"`
	Description   string `json:"description,omitempty"`
}

type (
	// Created is the first event of a transfer.
	Created struct {
		Details Details `json:"details"`
	}
	// DebitRecorded says that the money has left the one account.
	DebitRecorded struct {
		Details Details `json:"details"`
	}
	// DebitFailed ends a transfer whose money could not be taken.
	DebitFailed struct {
		Details Details `json:"details"`
		Code    string  `json:"code"`
	}
	// CreditRecorded ends a transfer whose money has arrived.
	CreditRecorded struct {
		Details Details `json:"details"`
	}
	// CreditRefused says that the money cannot arrive and goes back.
	CreditRefused struct {
		Details Details `json:"details"`
		Code    string  `json:"code"`
	}
	// Refunded ends a transfer whose money has gone back.
	Refunded struct {
		Details Details `json:"details"`
		Code    string  `json:"code"`
	}
	// TimedOut ends a transfer that was not debited in time.
	TimedOut struct {
		Details Details `json:"details"`
	}
	// NotificationSent says that somebody was told of the end.
	NotificationSent struct {
		Key string `json:"key"`
	}
)

// Events are the transfer's events.
var Events = jetstream.NewSchema("transfer",
	jetstream.Event[Created]("created"),
	jetstream.Event[DebitRecorded]("debit-recorded"),
	jetstream.Event[DebitFailed]("debit-failed"),
	jetstream.Event[CreditRecorded]("credit-recorded"),
	jetstream.Event[CreditRefused]("credit-refused"),
	jetstream.Event[Refunded]("refunded"),
	jetstream.Event[TimedOut]("timed-out"),
	jetstream.Event[NotificationSent]("notification-sent"),
)
