package follow

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Policy says what becomes of events that failed with a class of errors.
type Policy struct {
	// Is tells the errors that the policy is for. Defaults to all.
	Is func(err error) bool
	// Attempts is how often an event is tried, the first time included, before
	// Then is done. 0 is without an end; 1 means no retry.
	Attempts int
	// For is how long an event is tried, from its first failure on, before Then
	// is done. 0 is without an end. With Attempts, what comes first.
	For time.Duration
	// MinBackoff and MaxBackoff bound the wait between attempts, whose upper end
	// doubles with each and which is random below. Default to the follower's.
	MinBackoff, MaxBackoff time.Duration
	// Then is what is done after the last attempt: [Park], [SkipEvent] or [Stop].
	// Defaults to [Park].
	Then Action
}

// validate returns every mistake, joined.
func (p Policy) validate() error {
	var errs []error
	bad := func(field string, value any, why string) {
		errs = append(errs, fmt.Errorf("policy: %s %v %s", field, value, why))
	}
	if p.Attempts < 0 {
		bad("Attempts", p.Attempts, "is negative")
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"For", p.For}, {"MinBackoff", p.MinBackoff}, {"MaxBackoff", p.MaxBackoff}} {
		if d.value < 0 {
			bad(d.field, d.value, "is negative")
		}
	}
	if p.MaxBackoff > 0 && p.MinBackoff > p.MaxBackoff {
		bad("MinBackoff", p.MinBackoff, "is above MaxBackoff "+p.MaxBackoff.String())
	}
	switch p.Then {
	case Retry, Park, SkipEvent, Stop: // Retry is the zero value
	case Postpone:
		bad("Then", p.Then, "is not what can be done after the last attempt")
	default:
		bad("Then", p.Then, "is not known")
	}
	return errors.Join(errs...)
}

// ValidatePolicies returns every mistake in the policies, joined.
func ValidatePolicies(policies []Policy) error {
	var errs []error
	for i, p := range policies {
		if err := p.validate(); err != nil {
			errs = append(errs, fmt.Errorf("field Policies[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// Decide is the verdict of the first policy that is for the failure's error; of
// the zero Policy, which tries again without an end, when none is. An error that
// says when to come back, see [RetryAfter], is not tried earlier.
func Decide(f Failure, policies []Policy, least, most time.Duration) Verdict {
	var p Policy
	for _, candidate := range policies {
		if candidate.Is == nil || candidate.Is(f.Err) {
			p = candidate
			break
		}
	}
	over := p.Attempts > 0 && f.Attempt >= p.Attempts ||
		p.For > 0 && !f.Since.IsZero() && time.Since(f.Since) >= p.For
	if over {
		return Verdict{Action: cmp.Or(p.Then, Park)}
	}
	most = cmp.Or(p.MaxBackoff, most)
	least = min(cmp.Or(p.MinBackoff, least), most)
	v := Verdict{Action: Retry, After: wait(f.Attempt, least, most)}
	if after, ok := errors.AsType[*RetryAfterError](f.Err); ok {
		// Those that were told the same time should not come at the same time.
		v.After = max(v.After, after.After+rand.N(after.After/10+time.Millisecond))
	}
	return v
}

// wait is a random time from least to an end that doubles with every attempt, up
// to most. Full jitter may be next to nothing, which is no way to treat other
// people's services.
func wait(attempt int, least, most time.Duration) time.Duration {
	end := most
	if shift := max(attempt, 1); shift < 30 && least < most>>shift {
		end = least << shift
	}
	return least + rand.N(end-least+1)
}

// RetryAfterError is a failure that says when to come back.
type RetryAfterError struct {
	After time.Duration
	Err   error
}

// RetryAfter makes an error that is not tried again before the time is over.
func RetryAfter(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &RetryAfterError{After: max(after, 0), Err: err}
}

// Error names the cause and the time.
func (e *RetryAfterError) Error() string {
	return fmt.Sprintf("%v (come back in %v)", e.Err, e.After)
}

// Unwrap gives the cause.
func (e *RetryAfterError) Unwrap() error { return e.Err }
