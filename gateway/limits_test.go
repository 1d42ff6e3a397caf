package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// calls counts deliveries by aggregate, and those under way.
type calls struct {
	mu             sync.Mutex
	byID           map[string]int
	underWay, most int
}

func (c *calls) begin(id string) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = map[string]int{}
	}
	c.byID[id]++
	c.underWay++
	c.most = max(c.most, c.underWay)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.underWay--
	}
}

func (c *calls) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.byID {
		n += k
	}
	return n
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	const orders, rate, burst = 30, 50, 5
	store, repo, _ := setup(t)
	for i := range orders {
		must(t, repo, fmt.Sprintf("o%d", i), place{})
	}
	var c calls
	cfg := config()
	cfg.Concurrency = 16
	cfg.Limits = gateway.Limits{Rate: rate, Burst: burst}
	g := newGateway(t, store, "rated", cfg, gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error {
		c.begin(d.ID)()
		if d.Attempt != 1 {
			t.Errorf("attempt %d: what waits for the rate is not tried", d.Attempt)
		}
		return nil
	}))
	began := time.Now()
	run(t, g)
	caughtUp(t, g)
	// A busy machine makes it slower, nothing makes it faster.
	if least := time.Second * (orders - burst - 2) / rate; time.Since(began) < least {
		t.Errorf("%d deliveries took %v, which is less than %v", orders, time.Since(began), least)
	}
	if c.total() != orders {
		t.Errorf("%d calls for %d events", c.total(), orders)
	}
}

// A destination that hangs takes no more than its share: others go on.
func TestConcurrencyOfADestination(t *testing.T) {
	t.Parallel()
	const each = 20
	store, repo, _ := setup(t)
	for i := range each {
		must(t, repo, fmt.Sprintf("slow-%d", i), place{})
		must(t, repo, fmt.Sprintf("fast-%d", i), place{})
	}
	var slow, fast calls
	release := make(chan struct{})
	cfg := config()
	cfg.Concurrency = 8
	cfg.Limits.Concurrency = 2
	cfg.Destination = func(m jetstream.Meta) string { name, _, _ := strings.Cut(m.ID, "-"); return name }
	g := newGateway(t, store, "two", cfg, gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error {
		if strings.HasPrefix(d.ID, "fast") {
			fast.begin(d.ID)()
			return nil
		}
		defer slow.begin(d.ID)()
		<-release
		return nil
	}))
	run(t, g)
	natstest.Eventually(t, "the fast destination has all, the slow one its share", func() error {
		d := g.Status().Destinations
		if len(d) != 2 || d[0].Name != "fast" || d[0].Delivered != each || d[1].Name != "slow" || d[1].InFlight != 2 {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	if n := slow.total(); n > 2 {
		t.Errorf("%d calls of the slow destination are under way, allowed are 2", n)
	}
	close(release)
	caughtUp(t, g)
	if slow.most > 2 || slow.total() != each {
		t.Errorf("at most %d at once, %d in all", slow.most, slow.total())
	}
}

// While the destination is down nearly nothing is tried, nothing is parked, and
// nothing is lost when it comes back.
func TestBreaker(t *testing.T) {
	t.Parallel()
	onBoth(t, testBreaker)
}

func testBreaker(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	const orders = 40
	for i := range orders {
		must(t, repo, fmt.Sprintf("o%d", i), place{})
	}
	var c calls
	var up atomic.Bool
	var delivered atomic.Int64
	cfg := config()
	cfg.Limits = gateway.Limits{BreakerFailures: 5, BreakerCooldown: time.Hour}
	handle := func(_ context.Context, _ placed, d gateway.Delivery) error {
		c.begin(d.ID)()
		if !up.Load() {
			return errTest
		}
		delivered.Add(1)
		return nil
	}
	g := newGateway(t, store, "breaker", cfg, gateway.On(events, handle))
	stop := run(t, g)
	natstest.Eventually(t, "the breaker opens", func() error {
		s := g.Status()
		if len(s.Destinations) != 1 || s.Destinations[0].Breaker != "open" || len(s.Blocked) != orders {
			return fmt.Errorf("%+v, %d blocked", s.Destinations, len(s.Blocked))
		}
		return nil
	})
	s := g.Status()
	if d := s.Destinations[0]; d.LastError != errTest.Error() || time.Until(d.OpenUntil) < 50*time.Minute {
		t.Errorf("%+v", d)
	}
	// Those under way when it opened are more than it takes to open it.
	if n := c.total(); n > 5+gateway.ConcurrencyDefault {
		t.Errorf("%d calls while the destination was down", n)
	}
	held := 0
	for _, l := range s.Blocked {
		if l.Parked {
			t.Errorf("%s is parked", l.Subject)
		}
		if strings.Contains(l.Error, "circuit breaker is open: "+errTest.Error()) {
			held++
		}
	}
	if held == 0 {
		t.Error("no lane says that it waits for the breaker")
	}
	stop()

	// Another instance finds out by itself, and closes its breaker.
	cfg.Limits.BreakerCooldown = 20 * time.Millisecond
	g = newGateway(t, store, "breaker", cfg, gateway.On(events, handle))
	run(t, g)
	natstest.Eventually(t, "the breaker opens", func() error {
		if s := g.Status(); len(s.Destinations) != 1 || s.Destinations[0].Failed < 10 {
			return fmt.Errorf("%+v", s.Destinations)
		}
		return nil
	})
	up.Store(true)
	caughtUp(t, g)
	if n := delivered.Load(); n != orders {
		t.Errorf("%d delivered of %d", n, orders)
	}
	if d := g.Status().Destinations[0]; d.Breaker != "closed" || !d.OpenUntil.IsZero() {
		t.Errorf("%+v", d)
	}
}

// A destination that is down far longer than the longest back-off costs attempts,
// and nothing else: nothing is parked, nothing is lost, order is kept.
func TestOutageBeyondTheBackoff(t *testing.T) {
	t.Parallel()
	onBoth(t, testOutageBeyondTheBackoff)
}

func testOutageBeyondTheBackoff(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	const orders, most = 10, 300
	for i := range orders {
		must(t, repo, fmt.Sprintf("o%d", i), place{})
		must(t, repo, fmt.Sprintf("o%d", i), pay{[]int64{1}})
	}
	var mu sync.Mutex
	n := 0
	got := map[string][]uint64{}
	cfg := config() // waits 5 ms at most
	cfg.Limits.BreakerFailures = -1
	handle := func(d gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n <= most {
			return errTest
		}
		got[d.ID] = append(got[d.ID], d.Version)
		return nil
	}
	g := newGateway(t, store, "outage", cfg,
		gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error { return handle(d) }),
		gateway.On(events, func(_ context.Context, _ paid, d gateway.Delivery) error { return handle(d) }))
	run(t, g)
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	for i := range orders {
		if v := got[fmt.Sprintf("o%d", i)]; fmt.Sprint(v) != "[1 2]" {
			t.Errorf("o%d: %v", i, v)
		}
	}
	if n != most+2*orders {
		t.Errorf("%d calls", n)
	}
}

// One event that the service cannot take is no reason to stop the others, nor is
// one that it refuses for good.
func TestBreakerIsNotOpenedByOneAggregate(t *testing.T) {
	t.Parallel()
	onBoth(t, testBreakerIsNotOpenedByOneAggregate)
}

func testBreakerIsNotOpenedByOneAggregate(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	must(t, repo, "poison", place{})
	tries := make(chan int, 1024)
	cfg := config()
	cfg.Limits = gateway.Limits{BreakerFailures: 3, BreakerCooldown: time.Hour}
	g := newGateway(t, store, "one", cfg, gateway.On(events, func(_ context.Context, _ placed, d gateway.Delivery) error {
		switch {
		case d.ID == "poison":
			select {
			case tries <- d.Attempt:
			default:
			}
			return errTest
		case strings.HasPrefix(d.ID, "refused"):
			return gateway.Permanent(errTest)
		}
		return nil
	}))
	run(t, g)
	for most := 0; most < 10; most = received(t, tries) {
		continue // far more in a row than open the breaker
	}
	for i := range 10 {
		must(t, repo, fmt.Sprintf("refused-%d", i), place{})
		must(t, repo, fmt.Sprintf("good-%d", i), place{})
	}
	parked(t, g, 10)
	natstest.Eventually(t, "the good ones are delivered", func() error {
		s := g.Status()
		if len(s.Blocked) != 11 || s.Destinations[0].Delivered != 10 || s.Destinations[0].Breaker != "closed" {
			return fmt.Errorf("%d blocked, %+v", len(s.Blocked), s.Destinations)
		}
		return nil
	})
	// A refusal is an answer: it is not the second aggregate of a streak either.
	must(t, repo, "refused-last", place{})
	parked(t, g, 11)
	for len(tries) > 0 {
		<-tries
	}
	for range 10 {
		received(t, tries)
	}
	if d := g.Status().Destinations[0]; d.Breaker != "closed" {
		t.Errorf("%+v", d)
	}
}

// When the service asks to come back later, it hears nothing until then.
func TestRetryAfterSparesTheDestination(t *testing.T) {
	t.Parallel()
	onBoth(t, testRetryAfterSparesTheDestination)
}

func testRetryAfterSparesTheDestination(t *testing.T, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	const pause = 300 * time.Millisecond
	for i := range 10 {
		must(t, repo, fmt.Sprintf("o%d", i), place{})
	}
	var mu sync.Mutex
	var asked time.Time
	early := 0
	cfg := config()
	cfg.Concurrency = 1 // no delivery is under way when the first is refused
	g := newGateway(t, store, "later", cfg, gateway.On(events, func(context.Context, placed, gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if asked.IsZero() {
			asked = time.Now()
			return gateway.RetryAfter(errTest, pause)
		}
		if time.Since(asked) < pause {
			early++
		}
		return nil
	}))
	run(t, g)
	natstest.Eventually(t, "it pauses", func() error {
		mu.Lock()
		defer mu.Unlock()
		if asked.IsZero() {
			return errors.New("not yet")
		}
		return nil
	})
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	if early > 0 {
		t.Errorf("%d calls came early", early)
	}
	if d := g.Status().Destinations[0]; d.Delivered != 10 || d.Failed != 1 {
		t.Errorf("%+v", d)
	}
}

// No answer silences a gateway for longer than an hour.
func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{})
	g := newGateway(t, store, "century", config(), gateway.On(events, func(context.Context, placed, gateway.Delivery) error {
		return gateway.RetryAfter(errTest, 100*365*24*time.Hour)
	}))
	run(t, g)
	natstest.Eventually(t, "it waits", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || s.Blocked[0].NotBefore.IsZero() {
			return fmt.Errorf("%+v", s.Blocked)
		}
		return nil
	})
	s := g.Status()
	if until := s.Blocked[0].NotBefore; time.Until(until) > 2*time.Hour || time.Until(s.Destinations[0].PausedUntil) > 2*time.Hour {
		t.Errorf("until %v, %v", until, s.Destinations[0].PausedUntil)
	}
}

func TestDestinationPanics(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{})
	var calm atomic.Bool
	cfg := config()
	cfg.Destination = func(jetstream.Meta) string {
		if !calm.Load() {
			panic("no idea")
		}
		return "somewhere"
	}
	g := newGateway(t, store, "panics", cfg, gateway.On(events, func(context.Context, placed, gateway.Delivery) error { return nil }))
	run(t, g)
	natstest.Eventually(t, "the panic is told", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || !strings.Contains(s.Blocked[0].Error, "no idea") {
			return fmt.Errorf("%+v", s.Blocked)
		}
		return nil
	})
	calm.Store(true)
	caughtUp(t, g)
}

func TestLimitsAreValidated(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.LedgerTTL = time.Millisecond
	cfg.Limits = gateway.Limits{BreakerCooldown: -1, Burst: -1, Concurrency: -1, Rate: -1}
	cfg.Policies = []gateway.Policy{{Attempts: -1}}
	err := cfg.Validate()
	for _, want := range []string{
		"LedgerTTL", "Limits.BreakerCooldown", "Limits.Burst", "Limits.Concurrency", "Limits.Rate", "Policies[0]",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in: %v", want, err)
		}
	}
}
