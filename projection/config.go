package projection

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [UpdaterConfig] and [ReaderConfig].
const (
	CacheBytesDefault  = 64 << 20
	FoldRetriesDefault = 3
	FoldTimeoutDefault = 30 * time.Second
	LeaseTTLDefault    = 3 * time.Second
	PageBytesDefault   = 128 << 20
	PageEventsDefault  = 1 << 20
	ReadWaitDefault    = 5 * time.Second
	RetryStoppedMax    = time.Minute
	WindowDefault      = 16 << 10
)

// ErrorPolicy is what an updater does with an event whose fold keeps failing.
type ErrorPolicy uint8

// The policies.
const (
	// StopOnError stops the view before the event, loudly. The default.
	StopOnError ErrorPolicy = iota
	// SkipOnError leaves the event out for the key that it failed for, logs it,
	// and counts it in the checkpoint.
	SkipOnError
)

// StopPolicy is what [Updater.Run] does with a view that must stop.
type StopPolicy uint8

// The policies.
const (
	// WaitWhenStopped keeps the view stopped, with status and log saying why, and
	// tries again from time to time, at most [RetryStoppedMax] apart, and on
	// [Admin.Resume]. The rest of the process goes on. The default.
	WaitWhenStopped StopPolicy = iota
	// ReturnWhenStopped lets Run return the error.
	ReturnWhenStopped
)

// UpdaterConfig describes an [Updater]. The zero value is right for most.
type UpdaterConfig struct {
	// CacheBytes bounds the values that are remembered between pages, so that hot
	// keys need no reads. Defaults to [CacheBytesDefault].
	CacheBytes int
	// FoldRetries is how often a failing event is tried again before OnError.
	// Defaults to [FoldRetriesDefault]; negative is never.
	FoldRetries int
	// FoldTimeout is how long one event's fold may take. A fold that takes longer
	// fails, as far as the view is concerned; its goroutine cannot be ended and is
	// left behind. Defaults to [FoldTimeoutDefault]; negative is no bound.
	FoldTimeout time.Duration
	// HoldSwitch keeps a new definition version's generation beside the live one when
	// it has caught up, until [Admin.Switch]. Otherwise it goes live by itself.
	HoldSwitch bool
	// Instance names this process in the checkpoint. Defaults to host and process
	// id.
	Instance string
	// LeaseTTL is how long the owner of the view may be silent before a standby
	// takes over. Defaults to [LeaseTTLDefault]; the same for all instances.
	LeaseTTL time.Duration
	// Logger defaults to slog.Default.
	Logger *slog.Logger
	// MeterProvider makes the histograms of how long folding takes and how late the view
	// is; see docs/signals.md. Defaults to none, which costs nothing.
	MeterProvider metric.MeterProvider
	// OnError is what happens when an event's fold keeps failing, or makes a value
	// that cannot be stored. Defaults to [StopOnError].
	OnError ErrorPolicy
	// OnStop is what Run does when the view must stop. Defaults to
	// [WaitWhenStopped].
	OnStop StopPolicy
	// PageBytes bounds the events and values that are folded before they are
	// written, and with them the updater's memory. Defaults to [PageBytesDefault].
	PageBytes int
	// PageEvents bounds the events of a page. Defaults to [PageEventsDefault].
	PageEvents int
	// TracerProvider makes a span for each decision that comes into the view; see
	// docs/signals.md. Defaults to none, which costs nothing.
	TracerProvider trace.TracerProvider
	// Unknown is what happens to events that the schema lacks: stop or skip. A view
	// cannot park events, since it reads all of them in order. Defaults to
	// jetstream.StopOnUnknown.
	Unknown jetstream.UnknownPolicy
	// Window is the largest number of messages asked for ahead when catching up.
	// Defaults to [WindowDefault].
	Window int
}

// Validate reports every field that [NewUpdater] would refuse, joined.
func (c UpdaterConfig) Validate() error { return c.validate("UpdaterConfig") }

// validate names the configuration that the fields are of.
func (c UpdaterConfig) validate(name string) error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s "+format, append([]any{name, field}, args...)...))
	}
	positive := func(field string, n int64) {
		if n < 0 {
			wrong(field, "%d is negative", n)
		}
	}
	positive("CacheBytes", int64(c.CacheBytes))
	positive("PageBytes", int64(c.PageBytes))
	positive("PageEvents", int64(c.PageEvents))
	positive("Window", int64(c.Window))
	if c.LeaseTTL != 0 && c.LeaseTTL < 100*time.Millisecond {
		wrong("LeaseTTL", "%v is below 100ms", c.LeaseTTL)
	}
	if c.OnError > SkipOnError {
		wrong("OnError", "%d is not known", c.OnError)
	}
	if c.OnStop > ReturnWhenStopped {
		wrong("OnStop", "%d is not known", c.OnStop)
	}
	if c.Unknown > jetstream.SkipUnknown {
		wrong("Unknown", "%v is neither stop nor skip", c.Unknown)
	}
	return errors.Join(errs...)
}

func (c UpdaterConfig) withDefaults() UpdaterConfig {
	c.CacheBytes = cmp.Or(c.CacheBytes, CacheBytesDefault)
	c.FoldRetries = max(cmp.Or(c.FoldRetries, FoldRetriesDefault), 0)
	c.FoldTimeout = cmp.Or(c.FoldTimeout, FoldTimeoutDefault)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, LeaseTTLDefault)
	c.PageBytes = cmp.Or(c.PageBytes, PageBytesDefault)
	c.PageEvents = cmp.Or(c.PageEvents, PageEventsDefault)
	c.Window = cmp.Or(c.Window, WindowDefault)
	if c.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		c.Instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// often is a part of the lease, or of the default one when the lease is longer: how
// often an updater looks at what others do.
func (c UpdaterConfig) often(part time.Duration) time.Duration {
	return min(c.LeaseTTL, LeaseTTLDefault) / part
}

// parting is how long what an updater does last may take: half of the lease, but not
// less than a request.
func parting(lease time.Duration) time.Duration { return max(lease/2, attemptTimeout) }

// ReaderConfig describes a [Reader]. The zero value is right for most.
type ReaderConfig struct {
	// OpenWait is how long [NewReader] waits for a view that does not exist yet.
	// Defaults to [ReadWaitDefault]; negative is not at all.
	OpenWait time.Duration
	// Version is the definition version whose values V can hold. The reader then
	// keeps to the generation of that version while there is one, also after a
	// newer one went live. Defaults to 0, whatever is live.
	Version int
	// Wait bounds reads with [AtLeast] whose context has no deadline, and every
	// read's search for a replica that is not behind. Defaults to
	// [ReadWaitDefault].
	Wait time.Duration
}

// Validate reports every field that [NewReader] would refuse, joined.
func (c ReaderConfig) Validate() error {
	var errs []error
	if c.Wait < 0 {
		errs = append(errs, fmt.Errorf("ReaderConfig.Wait %v is negative", c.Wait))
	}
	if c.Version < 0 {
		errs = append(errs, fmt.Errorf("ReaderConfig.Version %d is negative", c.Version))
	}
	return errors.Join(errs...)
}

func (c ReaderConfig) withDefaults() ReaderConfig {
	c.OpenWait = max(cmp.Or(c.OpenWait, ReadWaitDefault), 0)
	c.Wait = cmp.Or(c.Wait, ReadWaitDefault)
	return c
}
