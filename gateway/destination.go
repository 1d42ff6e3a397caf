package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/rossby-go/rossby/internal/follow"
)

const (
	// ticketGrace is how long after its time a place in the queue for the rate is
	// kept for a lane that does not come.
	ticketGrace = 30 * time.Second
	// inlineWait is the longest wait for the rate that is not worth giving the
	// worker to another lane.
	inlineWait = 2 * time.Millisecond
	// crowdWait is the least wait for a free place; it grows with the crowd.
	crowdWait = 5 * time.Millisecond
	// pauseMax bounds how long one answer of a service can silence a gateway.
	pauseMax = time.Hour
)

// heldBackError is a delivery that was not tried, because its destination is spared.
type heldBackError struct {
	reason string
	after  time.Duration
}

func (e *heldBackError) Error() string { return "held back: " + e.reason }

// destination holds the limits of one place that deliveries go to.
type destination struct {
	name    string
	limits  Limits
	log     *slog.Logger
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}] // nil without one
	rate    *rate.Limiter                              // nil without one

	mu       sync.Mutex
	inFlight int
	// crowd counts the lanes held back since a place was last free.
	crowd int
	// streak names some aggregates that failed since the last success.
	streak map[string]bool
	// tickets are the places in the queue for the rate, by lane.
	tickets map[string]time.Time
	// pausedUntil is when the service wants to hear from us again.
	pausedUntil time.Time
	openUntil   time.Time
	lastErr     string
	delivered   uint64
	failed      uint64
}

func newDestination(name string, limits Limits, log *slog.Logger) *destination {
	d := &destination{
		name: name, limits: limits, log: log, streak: map[string]bool{}, tickets: map[string]time.Time{},
	}
	if limits.Rate > 0 {
		d.rate = rate.NewLimiter(rate.Limit(limits.Rate), limits.Burst)
	}
	if limits.BreakerFailures > 0 {
		d.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Name: name, Timeout: limits.BreakerCooldown,
			// Both run within Allow or the function it gave, which are not called with
			// the mutex held.
			ReadyToTrip: func(c gobreaker.Counts) bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return int64(c.ConsecutiveFailures) >= int64(limits.BreakerFailures) && len(d.streak) > 1
			},
			OnStateChange: func(_ string, from, to gobreaker.State) { d.changed(from, to) },
			IsSuccessful:  func(err error) bool { return err == nil || errors.Is(err, ErrPermanent) },
		})
	}
	return d
}

func (d *destination) changed(from, to gobreaker.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log.With("destination", d.name, "from", from.String(), "to", to.String(), "reason", d.lastErr)
	if to == gobreaker.StateOpen {
		d.openUntil = time.Now().Add(d.limits.BreakerCooldown)
		log.Error("circuit breaker opens", "until", d.openUntil)
		return
	}
	log.Info("circuit breaker changes")
}

// admit lets a delivery begin, or says with a [*heldBackError] why not and for how
// long. Only without an error must the function be called, with what came of it.
func (d *destination) admit(lane string) (done func(error), err error) {
	if held := d.enter(lane); held != nil {
		return nil, held
	}
	leave := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.inFlight--
		d.crowd = 0
	}
	var judge func(error)
	if d.breaker != nil {
		if judge, err = d.breaker.Allow(); err != nil {
			leave()
			return nil, d.closed(err)
		}
	}
	return func(err error) {
		leave()
		d.note(lane, err)
		if judge != nil {
			judge(err)
		}
	}, nil
}

// enter takes a place, if the pause, the rate and the concurrency allow it.
func (d *destination) enter(lane string) *heldBackError {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if wait := d.pausedUntil.Sub(now); wait > 0 {
		return &heldBackError{"the service asked to come back later", spread(wait)}
	}
	if wait := d.openUntil.Sub(now); wait > 0 {
		return d.opened(wait)
	}
	if d.limits.Concurrency > 0 && d.inFlight >= d.limits.Concurrency {
		d.crowd++
		// The more wait, the longer: they shall not all ask all the time.
		return &heldBackError{
			fmt.Sprintf("%d deliveries are under way", d.inFlight),
			spread(crowdWait * time.Duration(min(1+d.crowd/d.limits.Concurrency, 100))),
		}
	}
	if wait := d.turn(lane, now); wait > 0 {
		return &heldBackError{fmt.Sprintf("the rate is %g a second", d.limits.Rate), wait}
	}
	d.inFlight++
	return nil
}

// turn is how long the lane must wait for the rate. A lane that must wait keeps
// its place in the queue; it pays when it gets it.
func (d *destination) turn(lane string, now time.Time) time.Duration {
	if d.rate == nil {
		return 0
	}
	if at, ok := d.tickets[lane]; ok {
		if wait := at.Sub(now); wait > 0 {
			return wait
		}
		delete(d.tickets, lane)
		if now.Sub(at) < ticketGrace {
			return 0
		}
	}
	for other, at := range d.tickets {
		if now.Sub(at) >= ticketGrace {
			delete(d.tickets, other)
		}
		break // one a call: as many go as come
	}
	r := d.rate.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait <= inlineWait {
		return 0 // so early that the next one's wait makes up for it
	}
	d.tickets[lane] = now.Add(wait)
	return wait
}

func (d *destination) closed(err error) *heldBackError {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, gobreaker.ErrTooManyRequests) {
		return &heldBackError{"one delivery tries whether the destination is back", spread(crowdWait)}
	}
	return d.opened(max(time.Until(d.openUntil), crowdWait))
}

func (d *destination) opened(wait time.Duration) *heldBackError {
	return &heldBackError{"the circuit breaker is open: " + d.lastErr, spread(wait)}
}

// spread keeps those who wait for the same moment apart.
func spread(wait time.Duration) time.Duration { return wait + rand.N(wait/10+time.Millisecond) }

// note keeps what came of a delivery.
func (d *destination) note(lane string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil || errors.Is(err, ErrPermanent) {
		clear(d.streak)
	}
	if err == nil {
		d.delivered++
		return
	}
	d.failed++
	d.lastErr = err.Error()
	// A permanent failure is an answer: it ends a streak, and is none itself.
	if len(d.streak) < 2 && !errors.Is(err, ErrPermanent) {
		d.streak[lane] = true
	}
	if again, ok := errors.AsType[*follow.RetryAfterError](err); ok {
		until := time.Now().Add(again.After)
		if until.After(d.pausedUntil) {
			d.pausedUntil = until
		}
	}
}

// DestinationStatus is how one destination fares, as this instance sees it.
type DestinationStatus struct {
	// Name is what [Config.Destination] returned, the gateway's name without one.
	Name string `json:"name"`
	// Breaker is "closed", "open", "half-open", or "none". OpenUntil is when an open
	// one lets a delivery through.
	Breaker   string    `json:"breaker"`
	OpenUntil time.Time `json:"openUntil,omitzero"`
	// PausedUntil is when the service asked to be called again.
	PausedUntil time.Time `json:"pausedUntil,omitzero"`
	// InFlight are the deliveries under way.
	InFlight int `json:"inFlight"`
	// Delivered and Failed count attempts since the instance began.
	Delivered uint64 `json:"delivered"`
	Failed    uint64 `json:"failed"`
	// LastError is that of the last failed attempt.
	LastError string `json:"lastError,omitempty"`
}

func (d *destination) status() DestinationStatus {
	breaker := "none"
	if d.breaker != nil {
		breaker = d.breaker.State().String()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DestinationStatus{
		Name: d.name, Breaker: breaker, InFlight: d.inFlight,
		Delivered: d.delivered, Failed: d.failed, LastError: d.lastErr,
	}
	now := time.Now()
	if d.openUntil.After(now) {
		s.OpenUntil = d.openUntil
	}
	if d.pausedUntil.After(now) {
		s.PausedUntil = d.pausedUntil
	}
	return s
}
