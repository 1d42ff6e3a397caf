package monitor

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

const scope = "github.com/rossby-go/rossby/jetstream/monitor"

// The attributes of metrics.
const (
	keyStore       = attribute.Key("rossby.store")
	keyType        = attribute.Key("rossby.aggregate.type")
	keyKind        = attribute.Key("rossby.follower.kind")
	keyFollower    = attribute.Key("rossby.follower.name")
	keyView        = attribute.Key("rossby.view")
	keyGateway     = attribute.Key("rossby.gateway")
	keyDestination = attribute.Key("rossby.destination")
	keyModuleKind  = attribute.Key("rossby.module.kind")
	keyModule      = attribute.Key("rossby.module.name")
	keyDurability  = attribute.Key("rossby.durability")
)

// instrument describes a metric: a counter, which only grows, or a gauge.
type instrument struct {
	name, unit, help string
	counter          bool
}

// instruments are all metrics. docs/signals.md lists the same; a test compares.
func instruments() []instrument {
	counter := func(name, unit, help string) instrument { return instrument{name, unit, help, true} }
	gauge := func(name, unit, help string) instrument { return instrument{name, unit, help, false} }
	return []instrument{
		counter("rossby.repository.commands", "{command}", "Commands that the repository was called with."),
		counter("rossby.repository.commits", "{commit}", "Commits stored."),
		counter("rossby.repository.decisions", "{decision}", "Decisions stored in the commits."),
		counter("rossby.repository.conflicts", "{commit}", "Appends that another writer came before."),
		counter("rossby.repository.retries", "{decision}", "Decisions that were made again."),
		counter("rossby.repository.duplicates", "{command}", "Commands that had been handled before."),
		counter("rossby.repository.refusals", "{command}", "Commands that ended in a refusal."),
		counter("rossby.repository.unknown", "{command}", "Commands whose outcome is unknown."),
		counter("rossby.repository.withdrawn", "{command}", "Commands whose caller left before anything was sent."),
		counter("rossby.repository.cache.hits", "{load}", "Loads that the cache answered."),
		counter("rossby.repository.cache.misses", "{load}", "Loads that asked the store."),
		counter("rossby.repository.cache.evictions", "{aggregate}", "Aggregates that had to make room in the cache."),
		gauge("rossby.repository.cache.size", "By", "What the cache holds."),
		gauge("rossby.repository.waiting", "{command}", "Commands that wait for their aggregate."),
		counter("rossby.service.taken", "{command}", "Commands that the service took."),
		counter("rossby.service.busy", "{command}", "Commands that the service turned away, being busy."),
		counter("rossby.service.failed", "{command}", "Commands answered with an error that is no decision."),
		counter("rossby.service.refused", "{command}", "Commands answered with a refusal."),
		counter("rossby.service.overdue", "{command}", "Commands answered while their handler still ran."),
		gauge("rossby.service.waiting", "{command}", "Commands that wait or run."),
		gauge("rossby.service.duration", "s", "How long commands took lately, a moving average."),
		gauge("rossby.follower.active", "{instance}", "1 in the instance that handles events, 0 in those that stand by."),
		gauge("rossby.follower.position", "{commit}", "The sequence that the follower has come to."),
		gauge("rossby.follower.lag", "{event}", "Events that are not done, of the active instance."),
		gauge("rossby.follower.lag.time", "s", "Age of the oldest event that is not done."),
		gauge("rossby.follower.retrying", "{aggregate}", "Aggregates whose events wait for another attempt."),
		gauge("rossby.follower.parked", "{aggregate}", "Aggregates whose events wait for a person."),
		gauge("rossby.follower.paused", "{instance}", "1 while somebody has paused it."),
		gauge("rossby.view.active", "{instance}", "1 in the instance that writes the view, 0 in those that stand by."),
		gauge("rossby.view.position", "{commit}", "The sequence that the view has come to."),
		gauge("rossby.view.lag", "{commit}", "Commits that are not in the view, of the active instance."),
		gauge("rossby.view.paused", "{instance}", "1 while somebody has paused it."),
		gauge("rossby.view.stopped", "{instance}", "1 while the view has stopped and a person must look."),
		counter("rossby.gateway.delivered", "{delivery}", "Deliveries made."),
		counter("rossby.gateway.failed", "{delivery}", "Attempts that failed."),
		gauge("rossby.gateway.in_flight", "{delivery}", "Deliveries under way."),
		gauge("rossby.gateway.breaker.open", "{destination}", "1 while the breaker is not closed."),
		gauge("rossby.gateway.overdue", "{delivery}", "Deliveries whose handlers do not return."),
		gauge("rossby.store.up", "{store}", "1 if the store's leader answers."),
		gauge("rossby.store.position", "{commit}", "The store's last sequence."),
		gauge("rossby.store.durability", "{level}",
			"0 unknown, 1 memory, 2 single-lazy, 3 quorum-lazy, 4 fsynced; at least, where it is unknown."),
		gauge("rossby.store.replicas.missing", "{server}", "Replicas that are away or behind."),
		gauge("rossby.connection.up", "{connection}", "1 while the process is connected to NATS."),
		counter("rossby.connection.reconnects", "{reconnect}", "How often the connection was made again."),
		gauge("rossby.module.ready", "{module}", "1 if the module does its work, as readiness sees it."),
	}
}

// register makes the instruments, which ask when they are asked.
func (m *Monitor) register(meter metric.Meter) error {
	all := map[string]metric.Float64Observable{}
	observables := make([]metric.Observable, 0, len(all))
	for _, i := range instruments() {
		var o metric.Float64Observable
		var err error
		if i.counter {
			o, err = meter.Float64ObservableCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.help))
		} else {
			o, err = meter.Float64ObservableGauge(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.help))
		}
		if err != nil {
			return err
		}
		all[i.name] = o
		observables = append(observables, o)
	}
	var err error
	m.registration, err = meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		for p, v := range m.read(ctx) {
			to.ObserveFloat64(all[p.name], v, metric.WithAttributeSet(p.attributes))
		}
		return nil
	}, observables...)
	return err
}

// point is one value of a metric: what several modules of one name say is added up.
type point struct {
	name       string
	attributes attribute.Set
}

// reading collects metrics.
type reading struct {
	store  attribute.KeyValue
	values map[point]float64
}

func (r *reading) set(name string, v float64, attrs ...attribute.KeyValue) {
	r.values[point{name, attribute.NewSet(append(attrs, r.store)...)}] += v
}

func (m *Monitor) read(ctx context.Context) map[point]float64 {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	r := &reading{store: keyStore.String(m.cfg.Store.Name()), values: map[point]float64{}}
	for _, mod := range m.watched() {
		mod.measure(r)
	}
	report := m.report(ctx)
	for _, mod := range report.Modules {
		r.set("rossby.module.ready", flag(mod.Ready), keyModuleKind.String(mod.Kind), keyModule.String(mod.Name))
		if mod.unseen > 0 {
			r.set("rossby.view.lag", float64(mod.unseen), keyView.String(mod.Name))
		}
	}
	r.set("rossby.store.up", flag(report.headErr == nil))
	if report.headErr == nil {
		r.set("rossby.store.position", float64(report.Head))
	}
	nc := m.cfg.Store.Conn()
	r.set("rossby.connection.up", flag(nc.IsConnected()))
	r.set("rossby.connection.reconnects", float64(nc.Stats().Reconnects))
	if d, err := m.store.durability(ctx); err == nil {
		level := d.Level
		if level == jetstream.DurabilityUnknown {
			level = d.AtLeast
		}
		r.set("rossby.store.durability", float64(level), keyDurability.String(d.Level.String()))
		r.set("rossby.store.replicas.missing", float64(d.Replicas-d.InSync))
	}
	return r.values
}

func flag(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (r *reading) repository(typ string, s aggregate.Stats) {
	of := keyType.String(typ)
	for name, n := range map[string]uint64{
		"commands": s.Commands, "commits": s.Commits, "decisions": s.Decisions, "conflicts": s.Conflicts,
		"retries": s.Retries, "duplicates": s.Duplicates, "refusals": s.Refusals, "unknown": s.Unknown,
		"withdrawn": s.Withdrawn, "cache.hits": s.CacheHits, "cache.misses": s.CacheMisses,
		"cache.evictions": s.CacheEvictions,
	} {
		r.set("rossby.repository."+name, float64(n), of)
	}
	r.set("rossby.repository.cache.size", float64(s.CacheBytes), of)
	r.set("rossby.repository.waiting", float64(s.Waiting), of)
}

func (r *reading) service(typ string, s aggregate.ServiceStats) {
	of := keyType.String(typ)
	for name, n := range map[string]uint64{
		"taken": s.Taken, "busy": s.Busy, "failed": s.Failed, "refused": s.Refused, "overdue": s.Overdue,
	} {
		r.set("rossby.service."+name, float64(n), of)
	}
	r.set("rossby.service.waiting", float64(s.Waiting), of)
	r.set("rossby.service.duration", s.Lately.Seconds(), of)
}

func (r *reading) follower(kind, name string, s aggregate.Status) {
	c := conditionOf(s)
	attrs := []attribute.KeyValue{keyKind.String(kind), keyFollower.String(name)}
	set := func(metric string, v float64) { r.set("rossby.follower."+metric, v, attrs...) }
	set("active", flag(c.works))
	set("paused", flag(s.Paused != nil))
	if !c.works {
		return // who stands by knows no lag
	}
	set("position", float64(s.Position))
	set("lag", float64(s.Lag))
	set("lag.time", s.LagTime.Seconds())
	set("retrying", float64(c.retrying))
	set("parked", float64(c.parked))
}

func (r *reading) view(name string, sequence func(jetstream.Position) uint64, s projection.Status) {
	c := conditionOfView(sequence, s)
	set := func(metric string, v float64) { r.set("rossby.view."+metric, v, keyView.String(name)) }
	set("active", flag(c.works))
	set("paused", flag(s.State == projection.StatePaused))
	set("stopped", flag(s.State == projection.StateStopped))
	if c.works {
		set("position", float64(c.position))
		set("lag", float64(s.Lag))
	}
}

func (r *reading) gateway(name string, s gateway.Status) {
	of := keyGateway.String(name)
	r.set("rossby.gateway.overdue", float64(len(s.Overdue)), of)
	for _, d := range s.Destinations {
		to := keyDestination.String(d.Name)
		r.set("rossby.gateway.delivered", float64(d.Delivered), of, to)
		r.set("rossby.gateway.failed", float64(d.Failed), of, to)
		r.set("rossby.gateway.in_flight", float64(d.InFlight), of, to)
		r.set("rossby.gateway.breaker.open", flag(d.Breaker == "open" || d.Breaker == "half-open"), of, to)
	}
}
