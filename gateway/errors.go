package gateway

import (
	"errors"
	"fmt"
)

// ErrPermanent is matched by every error of [Permanent].
var ErrPermanent = errors.New("permanent failure")

// Permanent marks an error that no retry mends: the event is parked, and the
// later ones of its aggregate wait behind it, until [Gateway.Resume].
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrPermanent, err)
}

// CommandError is a command of [Delivery.Command] that a service refused. Kinds
// are those of docs/wire.md: "rejected", "not-found", "invalid" and so on.
type CommandError struct {
	Subject, Kind, Code, Reason string
}

// Error names the command and why it was refused.
func (e *CommandError) Error() string {
	return fmt.Sprintf("command %s: %s %s: %s", e.Subject, e.Kind, e.Code, e.Reason)
}

// handlerError is what a handler returned, as opposed to what came before it.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }
