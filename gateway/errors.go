package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/internal/follow"
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

// RetryAfter marks an error with which the destination said when to come back:
// until then nothing goes there. It counts as an attempt. More than an hour is an
// hour.
func RetryAfter(err error, after time.Duration) error {
	return follow.RetryAfter(err, min(after, pauseMax))
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
