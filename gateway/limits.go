package gateway

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Limits].
const (
	BreakerFailuresDefault = 10
	BreakerCooldownDefault = 10 * time.Second
)

// Limits are what one destination is spared. While a limit holds a delivery back
// nothing is tried: no attempt is counted, nothing is parked, and the store keeps
// the events.
type Limits struct {
	// BreakerCooldown is how long an open circuit breaker lets nothing through;
	// then one delivery is tried, and closes or opens it again. Defaults to
	// [BreakerCooldownDefault].
	BreakerCooldown time.Duration
	// BreakerFailures is how many attempts in a row, of at least two aggregates,
	// must fail for the circuit breaker to open: one event that the service cannot
	// take is no reason to stop the others. A [Permanent] failure is an answer and
	// counts as a success. Defaults to [BreakerFailuresDefault]; below 0 there is no
	// breaker.
	BreakerFailures int
	// Burst is how many deliveries may begin at once when the rate has not been
	// used. Defaults to 1 or Rate, whichever is more.
	Burst int
	// Concurrency is the number of deliveries under way at once. Defaults to no
	// limit but the gateway's.
	Concurrency int
	// Rate is the number of deliveries that may begin in a second, retries
	// included. Defaults to no limit.
	Rate float64
}

func (l Limits) validate() error {
	var errs []error
	bad := func(field, value, reason string) {
		errs = append(errs, &jetstream.InvalidError{Field: "Limits." + field, Value: value, Reason: reason})
	}
	if l.BreakerCooldown < 0 {
		bad("BreakerCooldown", l.BreakerCooldown.String(), "is negative")
	}
	if l.Burst < 0 {
		bad("Burst", strconv.Itoa(l.Burst), "is negative")
	}
	if l.Concurrency < 0 {
		bad("Concurrency", strconv.Itoa(l.Concurrency), "is negative")
	}
	if l.Rate < 0 || math.IsNaN(l.Rate) || math.IsInf(l.Rate, 0) {
		bad("Rate", strconv.FormatFloat(l.Rate, 'g', -1, 64), "is not a rate")
	}
	return errors.Join(errs...)
}

func (l Limits) withDefaults() Limits {
	l.BreakerCooldown = cmp.Or(l.BreakerCooldown, BreakerCooldownDefault)
	l.BreakerFailures = cmp.Or(l.BreakerFailures, BreakerFailuresDefault)
	l.Burst = cmp.Or(l.Burst, max(1, int(min(l.Rate, math.MaxInt32))))
	return l
}
