package aggregate

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// Policy says what becomes of events whose handler failed with a class of errors:
// how often and how long they are tried, and what is done then.
type Policy = follow.Policy

// Action is what a [Policy] does after the last attempt.
type Action = follow.Action

// The actions.
const (
	// Park lets the event, and its aggregate's later ones, wait for
	// [Reactor.Resume]. The default.
	Park = follow.Park
	// Skip counts the event as handled, and logs it as an error.
	Skip = follow.SkipEvent
	// Stop ends [Reactor.Run] with the error.
	Stop = follow.Stop
)

// IsRefusal tells the outcomes of commands that nobody handled: [ErrRejected],
// [ErrNotFound], [ErrExists], a [*VersionError]. They are recorded, so no retry
// changes them.
func IsRefusal(err error) bool {
	_, version := errors.AsType[*VersionError](err)
	return version || errors.Is(err, ErrRejected) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists)
}

// IsInvalid tells effects that cannot be had: a [*jetstream.InvalidError],
// [ErrStepTwice], what is too large to be stored.
func IsInvalid(err error) bool {
	_, invalid := errors.AsType[*jetstream.InvalidError](err)
	return invalid || errors.Is(err, ErrStepTwice) || errors.Is(err, nats.ErrMaxPayload)
}

// IsUnavailable tells failures of the surroundings: servers or services that are
// away or busy, other writers that came first, a time that was over. The effect
// may have happened; trying again is safe.
func IsUnavailable(err error) bool {
	for _, target := range []error{
		jetstream.ErrUnavailable, jetstream.ErrUnknownOutcome, ErrBusy, ErrContended,
		context.DeadlineExceeded, context.Canceled, errTimeOver,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// IsPanic tells handlers that panicked.
func IsPanic(err error) bool { return errors.Is(err, follow.ErrPanic) }

// IsUnreadable tells events that this program is too old for, and damaged ones.
func IsUnreadable(err error) bool { return dispatch.Unreadable(err) }

// decideFailure asks the policies, then the defaults.
func decideFailure(policies []Policy, least, most time.Duration) func(follow.Failure) follow.Verdict {
	policies = append(append([]Policy(nil), policies...),
		Policy{Is: IsUnreadable, Attempts: 1, Then: Stop},
		Policy{Is: func(err error) bool { return IsRefusal(err) || IsInvalid(err) }, Attempts: 1, Then: Park},
	)
	most = cmp.Or(most, follow.BackoffMaxDefault)
	least = min(cmp.Or(least, follow.BackoffMinDefault), most)
	return func(f follow.Failure) follow.Verdict { return follow.Decide(f, policies, least, most) }
}
