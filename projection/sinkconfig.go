package projection

import (
	"cmp"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [SinkConfig] that are not those of [UpdaterConfig].
const (
	SinkPageBytesDefault  = 16 << 20
	SinkPageEventsDefault = 1 << 10
)

// SinkConfig describes a [SinkUpdater]. The zero value is right for most.
type SinkConfig struct {
	// FoldRetries is how often a failing event is tried again before OnError.
	// Defaults to [FoldRetriesDefault]; negative is never.
	FoldRetries int
	// FoldTimeout is how long one event's handler may take. One that takes longer
	// fails, and its context ends. Defaults to [FoldTimeoutDefault]; negative is no
	// bound.
	FoldTimeout time.Duration
	// Instance names this process in the record. Defaults to host and process id.
	Instance string
	// LeaseTTL is how long the owner of the view may be silent before a standby
	// takes over. Defaults to [LeaseTTLDefault]; the same for all instances.
	LeaseTTL time.Duration
	// Logger defaults to slog.Default.
	Logger *slog.Logger
	// MeterProvider makes the histograms of how long transactions take and how late the
	// view is; see docs/signals.md. Defaults to none, which costs nothing.
	MeterProvider metric.MeterProvider
	// OnError is what happens when an event's handler keeps failing. Defaults to
	// [StopOnError].
	OnError ErrorPolicy
	// OnStop is what Run does when the view must stop. Defaults to
	// [WaitWhenStopped].
	OnStop StopPolicy
	// PageBytes bounds the commits that wait to be written, and with them the
	// updater's memory. Defaults to [SinkPageBytesDefault].
	PageBytes int
	// PageEvents bounds the commits of one transaction of the database; a
	// transaction of the store is never split. Defaults to [SinkPageEventsDefault].
	PageEvents int
	// TracerProvider makes a span for each decision that comes into the view; see
	// docs/signals.md. Defaults to none, which costs nothing.
	TracerProvider trace.TracerProvider
	// Unknown is what happens to events that the schema lacks: stop or skip.
	// Defaults to jetstream.StopOnUnknown.
	Unknown jetstream.UnknownPolicy
	// Window is the largest number of messages asked for ahead when catching up.
	// Defaults to [WindowDefault].
	Window int
}

// Validate reports every field that [NewSinkUpdater] would refuse, joined.
func (c SinkConfig) Validate() error { return c.updater().validate("SinkConfig") }

// updater is the configuration of what both kinds of updaters do alike.
func (c SinkConfig) updater() UpdaterConfig {
	return UpdaterConfig{
		FoldRetries: c.FoldRetries, FoldTimeout: c.FoldTimeout, Instance: c.Instance, LeaseTTL: c.LeaseTTL,
		Logger: c.Logger, OnError: c.OnError, OnStop: c.OnStop, Unknown: c.Unknown, Window: c.Window,
		MeterProvider: c.MeterProvider, TracerProvider: c.TracerProvider,
		PageBytes: cmp.Or(c.PageBytes, SinkPageBytesDefault), PageEvents: cmp.Or(c.PageEvents, SinkPageEventsDefault),
	}
}
