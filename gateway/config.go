package gateway

import (
	"cmp"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	ConcurrencyDefault   = 4
	MaxUnrecordedDefault = 16
	MinBackoffDefault    = 100 * time.Millisecond
	MaxBackoffDefault    = time.Minute
	TimeoutDefault       = 30 * time.Second
	LedgerTTLDefault     = 24 * time.Hour
)

// Config describes a gateway. Start is required.
type Config struct {
	// Concurrency is the number of deliveries under way at once. Defaults to
	// [ConcurrencyDefault].
	Concurrency int
	// Destination names where an event's delivery goes; each destination has
	// [Limits] of its own. It must be pure, quick, and return few different names.
	// Defaults to one destination with the gateway's name.
	Destination func(m jetstream.Meta) string
	// LedgerTTL is how long a delivery that was made is remembered, on the servers,
	// so that it is not made again after a crash. It costs one publish a delivery;
	// while the ledger can be neither found nor made, nothing is delivered.
	// Whole seconds count. Defaults to [LedgerTTLDefault]; below 0 nothing is
	// remembered.
	LedgerTTL time.Duration
	// Limits are what each destination is spared.
	Limits Limits
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxBackoff and MinBackoff bound the wait between attempts, whose upper end
	// doubles with each and which is random below. Default to [MaxBackoffDefault],
	// and [MinBackoffDefault] or MaxBackoff if that is shorter.
	MaxBackoff, MinBackoff time.Duration
	// MaxUnrecorded bounds the commits whose deliveries a crash may repeat if the
	// ledger does not know them; most commits hold one event. Defaults to
	// [MaxUnrecordedDefault].
	MaxUnrecorded int
	// MeterProvider makes the histogram of how long deliveries take; see
	// docs/signals.md. Defaults to none, which costs nothing.
	MeterProvider metric.MeterProvider
	// Policies say what becomes of deliveries that failed: the first one that is for
	// the error decides. After them, [Permanent] errors are parked at once and all
	// others are tried again without an end.
	Policies []Policy
	// Start is where the gateway begins when it runs for the first time ever.
	Start jetstream.Start
	// TTL is how long a dead instance keeps its place, at least 200 ms. Defaults
	// to 3 s.
	TTL time.Duration
	// TracerProvider makes the spans of deliveries; see docs/signals.md. Defaults to
	// none, which costs nothing.
	TracerProvider trace.TracerProvider
	// Timeout bounds the context of one delivery. Defaults to [TimeoutDefault].
	Timeout time.Duration
	// Unknown is what happens to events that the schema lacks, before Policies are
	// asked. Defaults to jetstream.StopOnUnknown.
	Unknown jetstream.UnknownPolicy
	// Version is the version of the gateway's definition: raise it with every
	// change of the events it handles. Defaults to 1.
	Version int
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if !c.Start.IsSet() {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Start", Reason: "is not stated: say jetstream.FromBeginning(), FromNow() or From(position)",
		})
	}
	for _, n := range []struct {
		field string
		value int
	}{{"Concurrency", c.Concurrency}, {"MaxUnrecorded", c.MaxUnrecorded}, {"Version", c.Version}} {
		if n.value < 0 {
			errs = append(errs, &jetstream.InvalidError{Field: n.field, Value: strconv.Itoa(n.value), Reason: "is negative"})
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"MaxBackoff", c.MaxBackoff}, {"MinBackoff", c.MinBackoff}, {"Timeout", c.Timeout}} {
		if d.value < 0 {
			errs = append(errs, &jetstream.InvalidError{Field: d.field, Value: d.value.String(), Reason: "is negative"})
		}
	}
	if c.TTL < 0 || (c.TTL > 0 && c.TTL < follow.TTLMin) {
		errs = append(errs, &jetstream.InvalidError{
			Field: "TTL", Value: c.TTL.String(), Reason: "is below " + follow.TTLMin.String(),
		})
	}
	if c.LedgerTTL > 0 && c.LedgerTTL < time.Second {
		errs = append(errs, &jetstream.InvalidError{
			Field: "LedgerTTL", Value: c.LedgerTTL.String(), Reason: "is below a second, the servers' least",
		})
	}
	if !c.Unknown.Valid() {
		errs = append(errs, &jetstream.InvalidError{Field: "Unknown", Value: c.Unknown.String(), Reason: "is not known"})
	}
	if lo, hi := c.MinBackoff, cmp.Or(c.MaxBackoff, MaxBackoffDefault); hi > 0 && lo > hi {
		errs = append(errs, &jetstream.InvalidError{
			Field: "MinBackoff", Value: lo.String(), Reason: "is above MaxBackoff " + hi.String(),
		})
	}
	return errors.Join(append(errs, c.Limits.validate(), follow.ValidatePolicies(c.Policies))...)
}

func (c Config) withDefaults() Config {
	c.Concurrency = cmp.Or(c.Concurrency, ConcurrencyDefault)
	c.MaxUnrecorded = cmp.Or(c.MaxUnrecorded, MaxUnrecordedDefault)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, MaxBackoffDefault)
	c.MinBackoff = cmp.Or(c.MinBackoff, min(MinBackoffDefault, c.MaxBackoff))
	c.Timeout = cmp.Or(c.Timeout, TimeoutDefault)
	c.LedgerTTL = cmp.Or(c.LedgerTTL, LedgerTTLDefault)
	c.Limits = c.Limits.withDefaults()
	c.Version = cmp.Or(c.Version, 1)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

// Policy says what becomes of deliveries that failed with a class of errors; see
// [Config.Policies].
type Policy = follow.Policy

// Action is what is done when a [Policy]'s attempts are over.
type Action = follow.Action

// The actions.
const (
	// Park makes the aggregate's events wait for [Gateway.Resume].
	Park = follow.Park
	// Skip gives this event up, logs it as an error, and goes on with the next.
	Skip = follow.SkipEvent
	// Stop ends [Gateway.Run] with the error: nothing is delivered until the
	// gateway runs again.
	Stop = follow.Stop
)
