package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Defaults of [Config].
const (
	StallAfterDefault = 30 * time.Second
	TimeoutDefault    = 2 * time.Second
)

// Config says what a [Monitor] watches. Store is required.
type Config struct {
	// DurabilitySources are where to learn how the servers sync; see
	// [jetstream.Store.Durability].
	DurabilitySources jetstream.DurabilitySources
	// Logger is told when the store cannot be asked. Defaults to slog.Default().
	Logger *slog.Logger
	// MeterProvider gets the metrics. Defaults to none.
	MeterProvider metric.MeterProvider
	// StallAfter is how long a module may stand still while there is work for it
	// until it counts as dead. Defaults to [StallAfterDefault].
	StallAfter time.Duration
	// Store is the store of the modules.
	Store *jetstream.Store
	// Timeout bounds the questions to the store that one look costs. Defaults to
	// [TimeoutDefault].
	Timeout time.Duration
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, &jetstream.InvalidError{Field: "Store", Reason: "is nil"})
	}
	for field, d := range map[string]time.Duration{"StallAfter": c.StallAfter, "Timeout": c.Timeout} {
		if d < 0 {
			errs = append(errs, &jetstream.InvalidError{Field: field, Value: d.String(), Reason: "is negative"})
		}
	}
	return errors.Join(errs...)
}

// Monitor watches the modules that it was told of. It is safe for concurrent use.
type Monitor struct {
	cfg          Config
	store        source
	registration metric.Registration

	mu      sync.Mutex
	modules []*module
}

// module is something that is watched.
type module struct {
	kind, name string
	// measure gives the module's metrics, look its condition, nil for one that is
	// always ready.
	measure func(*reading)
	look    func(context.Context) condition
	// follows tells that its position is in the store.
	follows bool

	progress progress
}

// New makes a monitor that watches the store and nothing else yet. Returns the
// configuration's mistakes, and those of the meter provider.
func New(cfg Config) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.StallAfter = cmp.Or(cfg.StallAfter, StallAfterDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, TimeoutDefault)
	m := &Monitor{cfg: cfg, store: source{store: cfg.Store, from: cfg.DurabilitySources}}
	if cfg.MeterProvider == nil {
		return m, nil
	}
	if err := m.register(cfg.MeterProvider.Meter(scope)); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	return m, nil
}

// Close ends the metrics.
func (m *Monitor) Close() error {
	if m.registration == nil {
		return nil
	}
	return m.registration.Unregister()
}

func (m *Monitor) add(mod *module) (remove func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.modules = append(m.modules, mod)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.modules = slices.DeleteFunc(m.modules, func(o *module) bool { return o == mod })
	}
}

func (m *Monitor) watched() []*module {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.modules)
}

// Repository is an [aggregate.Repository] of any state.
type Repository interface {
	TypeName() string
	Stats() aggregate.Stats
}

// Repository watches a repository until remove is called.
func (m *Monitor) Repository(r Repository) (remove func()) {
	return m.add(&module{kind: "repository", name: r.TypeName(), measure: func(to *reading) {
		to.repository(r.TypeName(), r.Stats())
	}})
}

// Service watches a command service until remove is called. It is ready once it
// takes commands.
func (m *Monitor) Service(s *aggregate.Service) (remove func()) {
	return m.add(&module{
		kind: "service", name: s.TypeName(),
		measure: func(to *reading) { to.service(s.TypeName(), s.Stats()) },
		look: func(context.Context) condition {
			select {
			case <-s.Ready():
				return condition{state: "ready", runs: true}
			default:
				return condition{state: "starting"}
			}
		},
	})
}

// The kinds of a reactor and of timers.
const (
	kindReactor = "reactor"
	kindTimers  = "timers"
)

// Reactor watches a reactor until remove is called.
func (m *Monitor) Reactor(r *aggregate.Reactor) (remove func()) {
	return m.follower(kindReactor, r.Name(), true, r.Status)
}

// Timers watches timers, of each type by itself, until remove is called.
func (m *Monitor) Timers(t *aggregate.Timers) (remove func()) {
	types := t.Status()
	removes := make([]func(), 0, len(types))
	for typ := range types {
		removes = append(removes, m.follower(kindTimers, typ, false, func() aggregate.Status { return t.Status()[typ] }))
	}
	return func() {
		for _, remove := range removes {
			remove()
		}
	}
}

// Saga is a saga.Process of any data.
type Saga interface {
	Name() string
	Status() aggregate.Status
	Deadlines() aggregate.Status
}

// Saga watches a process of a saga until remove is called: its reactor and its timers,
// as [Monitor.Reactor] and [Monitor.Timers] do. [Monitor.Repository] watches its
// Instances.
func (m *Monitor) Saga(p Saga) (remove func()) {
	reactor := m.follower(kindReactor, p.Name(), true, p.Status)
	timers := m.follower(kindTimers, p.Name(), false, p.Deadlines)
	return func() {
		reactor()
		timers()
	}
}

// Gateway watches a gateway until remove is called.
func (m *Monitor) Gateway(g *gateway.Gateway) (remove func()) {
	return m.add(&module{
		kind: "gateway", name: g.Name(), follows: true,
		measure: func(to *reading) {
			s := g.Status()
			to.follower("gateway", g.Name(), s.FollowerStatus)
			to.gateway(g.Name(), s)
		},
		look: func(context.Context) condition {
			s := g.Status()
			c := conditionOf(s.FollowerStatus)
			c.overdue = len(s.Overdue)
			for _, d := range s.Destinations {
				if d.Breaker == "open" {
					c.open = append(c.open, d.Name)
				}
			}
			return c
		},
	})
}

func (m *Monitor) follower(kind, name string, follows bool, status func() aggregate.Status) (remove func()) {
	return m.add(&module{
		kind: kind, name: name, follows: follows,
		measure: func(to *reading) { to.follower(kind, name, status()) },
		look:    func(context.Context) condition { return conditionOf(status()) },
	})
}

// Updater is a [projection.Updater] or a [projection.SinkUpdater].
type Updater interface {
	Status() projection.Status
}

// kindView is the kind of a view's updater.
const kindView = "view"

// Updater watches the updater of a view until remove is called.
func (m *Monitor) Updater(u Updater) (remove func()) {
	name := u.Status().View
	return m.add(&module{
		kind: kindView, name: name, follows: true,
		measure: func(to *reading) { to.view(name, m.sequence, u.Status()) },
		look:    func(context.Context) condition { return conditionOfView(m.sequence, u.Status()) },
	})
}

// Check watches something of the program's own until remove is called: it is ready
// while check, which should heed its context, returns nil.
func (m *Monitor) Check(kind, name string, check func(context.Context) error) (remove func()) {
	return m.add(&module{kind: kind, name: name, measure: func(*reading) {}, look: func(ctx context.Context) condition {
		if err := check(ctx); err != nil {
			return condition{state: "not ready", err: err}
		}
		return condition{state: "ready", runs: true}
	}})
}

// sequence is a position's place in the store.
func (m *Monitor) sequence(p jetstream.Position) uint64 {
	seq, err := m.cfg.Store.Sequence(p)
	if err != nil {
		return 0
	}
	return seq
}

// source is the store, which many may ask about at once.
type source struct {
	store *jetstream.Store
	from  jetstream.DurabilitySources

	mu       sync.Mutex
	head     uint64
	headErr  error
	headAt   time.Time
	level    jetstream.Durability
	levelErr error
	levelAt  time.Time
}

// How old an answer of the servers may be.
const (
	headAge  = time.Second
	levelAge = 15 * time.Second
)

// last is the store's last sequence, up to a second ago.
func (s *source) last(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headAt.IsZero() || time.Since(s.headAt) > headAge {
		s.head, s.headErr = s.store.LastSequence(ctx)
		s.headAt = time.Now()
	}
	return s.head, s.headErr
}

// durability is what the servers do for a commit, up to a few seconds ago.
func (s *source) durability(ctx context.Context) (jetstream.Durability, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.levelAt.IsZero() || time.Since(s.levelAt) > levelAge {
		s.level, s.levelErr = s.store.Durability(ctx, s.from)
		s.levelAt = time.Now()
	}
	return s.level, s.levelErr
}
