package aggregate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/internal/control"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// The timers live in a stream of their own: the server's message schedules allow
// purges, which a stream of events must not.
const timerStreamSuffix = "__timers"

// The kinds of subjects: a timer waits on the one and fires on the other.
const (
	timerSet = "set"
	timerDue = "due"
)

func timerStream(store string) string { return store + timerStreamSuffix }

func timerSubject(store, kind string) string { return store + ".timer." + kind + "." }

// natsTimers are the timers of a store.
type natsTimers struct{ store *jetstream.Store }

func (n natsTimers) set(ctx context.Context, t *timer, due time.Time) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	msg := wire.Expect(nats.NewMsg(timerSubject(n.store.Name(), timerSet)+t.place()), 0)
	msg.Header["Nats-Schedule"] = []string{"@at " + due.Format(time.RFC3339)}
	msg.Header["Nats-Schedule-Target"] = []string{timerSubject(n.store.Name(), timerDue) + t.place()}
	msg.Data = data
	attempt, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	_, err = wire.Publish(attempt, n.store.Conn(), msg)
	if err != nil && wire.Number(err) != wire.CodeWrongLastSequence { // set already
		return fmt.Errorf("%w: timer for %s %q was not set (do the timers run?): %w",
			jetstream.ErrUnavailable, t.Type, t.ID, err)
	}
	return nil
}

// cancel asks the leader: what it has not, is not set.
func (n natsTimers) cancel(ctx context.Context, name timerName, before jetstream.Meta) error {
	filter := timerSubject(n.store.Name(), timerSet) + name.typ + "." + name.token() + ".*"
	for from := uint64(1); ; {
		m, err := n.next(ctx, filter, from)
		if errors.Is(err, wire.ErrNotFound) {
			return nil
		}
		var set timer
		if err == nil {
			err = json.Unmarshal(m.Data, &set)
		}
		if err == nil && set.setBefore(before) {
			err = n.remove(ctx, m)
		}
		if err != nil {
			return fmt.Errorf("%w: deadlines of %s %q were not cancelled (do the timers run?): %w",
				jetstream.ErrUnavailable, name.typ, name.id, err)
		}
		from = m.Sequence + 1
	}
}

func (n natsTimers) next(ctx context.Context, filter string, from uint64) (wire.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	return wire.LeaderNext(ctx, n.store.Conn(), timerStream(n.store.Name()), filter, from)
}

// remove deletes a timer that waits: the server looks at the message again before
// it fires.
func (n natsTimers) remove(ctx context.Context, m wire.Message) error {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	err := wire.Delete(ctx, n.store.Conn(), timerStream(n.store.Name()), m.Sequence)
	if err == nil {
		return nil
	}
	found, again := wire.LeaderNext(ctx, n.store.Conn(), timerStream(n.store.Name()), m.Subject, m.Sequence)
	if errors.Is(again, wire.ErrNotFound) || again == nil && found.Sequence != m.Sequence {
		return nil // it has fired meanwhile, or an earlier attempt removed it
	}
	return err
}

// TimersSweepDefault is how often what has fired is removed.
const TimersSweepDefault = time.Minute

// TimersConfig tunes [Timers]. The zero value is a good one.
type TimersConfig struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Sweep is how often the messages of deadlines that have been executed are
	// removed. Defaults to [TimersSweepDefault].
	Sweep time.Duration
	// TTL is how long a dead instance keeps its place. Defaults to 3 s.
	TTL time.Duration
}

// Validate reports every field that [NewTimers] would refuse, joined.
func (c TimersConfig) Validate() error { return notNegative("Sweep", c.Sweep) }

// Timers executes the commands that [Do.After] set, when they are due. There is a
// follower for each aggregate type, so any process may run the timers of the types
// that it has targets for; one instance at a time is active per type.
type Timers struct {
	store     *jetstream.Store
	cfg       TimersConfig
	targets   map[string]Target
	followers []typeTimers
	watchdog  *watchdog
}

type typeTimers struct {
	typ      string
	follower *follow.Follower
}

// NewTimers makes the stream of the store's timers, if need be, and the followers
// that execute them on the targets.
func NewTimers(ctx context.Context, store *jetstream.Store, cfg TimersConfig, targets ...Target) (*Timers, error) {
	if store == nil || len(targets) == 0 {
		return nil, errors.New("timers: the store is nil or there are no targets")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger, cfg.Sweep = cmp.Or(cfg.Logger, slog.Default()), cmp.Or(cfg.Sweep, TimersSweepDefault)
	t := &Timers{
		store: store, cfg: cfg, targets: map[string]Target{}, watchdog: newWatchdog(HandlerTimeoutDefault, cfg.Logger),
	}
	if err := makeTimerStream(ctx, store); err != nil {
		return nil, err
	}
	for _, target := range targets {
		typ := target.TypeName()
		if t.targets[typ] != nil {
			return nil, fmt.Errorf("timers: two targets for aggregate type %q", typ)
		}
		t.targets[typ] = target
		f, err := follow.New(follow.Config{
			Conn: store.Conn(), Stream: timerStream(store.Name()), Bucket: store.Name() + "__followers",
			Name: TimersName(typ), Filter: timerSubject(store.Name(), timerDue) + typ + ".>",
			StoreID: store.ID(), Version: 1, Definition: "timers",
			Start:  func(context.Context) (uint64, error) { return 0, nil },
			Handle: t.watchdog.bound(t.fire),
			Decide: decideFailure(nil, 0, 0), TTL: cfg.TTL, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, err
		}
		t.followers = append(t.followers, typeTimers{typ, f})
	}
	return t, nil
}

func makeTimerStream(ctx context.Context, store *jetstream.Store) error {
	js, err := natsjs.New(store.Conn())
	if err != nil {
		return err
	}
	err = wire.Ensure(ctx, store.Conn(), timerStream(store.Name()), func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, natsjs.StreamConfig{
			Name: timerStream(store.Name()), Description: "Rossby timers",
			Subjects: []string{timerSubject(store.Name(), timerSet) + ">", timerSubject(store.Name(), timerDue) + ">"},
			Storage:  natsjs.FileStorage, Replicas: store.Replicas(), AllowMsgSchedules: true, AllowDirect: true,
			AllowRollup: true, Discard: natsjs.DiscardOld,
		})
		return err
	})
	if err != nil && !errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("timers of store %q: %w", store.Name(), err)
	}
	return nil
}

// Run executes due commands until ctx ends; see [Reactor.Run].
func (t *Timers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range t.followers {
		g.Go(func() error {
			return control.Run(ctx, control.Config{
				Store: t.store, Follower: f.follower, Name: TimersName(f.typ), Kind: "timers", Logger: t.cfg.Logger,
			})
		})
		g.Go(func() error {
			t.sweep(ctx, f)
			return nil
		})
	}
	return t.watchdog.watch(g.Wait)
}

func (t *Timers) fire(ctx context.Context, d follow.Delivery) error {
	return fire(ctx, d.Data, t.targets)
}

// sweep removes what has fired and is recorded as done, while the follower is the
// active one.
func (t *Timers) sweep(ctx context.Context, f typeTimers) {
	tick := time.NewTicker(t.cfg.Sweep)
	defer tick.Stop()
	swept := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.follower.Status().State != follow.StateActive {
			continue
		}
		status, err := ReadStatus(ctx, t.store, TimersName(f.typ))
		if err == nil && status.Floor > swept {
			err = wire.Purge(ctx, t.store.Conn(), timerStream(t.store.Name()),
				timerSubject(t.store.Name(), timerDue)+f.typ+".>", status.Floor)
		}
		switch {
		case err == nil:
			swept = status.Floor
		case ctx.Err() == nil:
			t.cfg.Logger.WarnContext(ctx, "executed timers were not removed; trying again", "type", f.typ, "error", err)
		}
	}
}
