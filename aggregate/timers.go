package aggregate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// The timers live in a stream of their own: the server's message schedules allow
// purges, which a stream of events must not.
const (
	timerStreamSuffix = "__timers"
	timerFollower     = "_timers"
)

func timerSubject(store, kind string) string { return store + ".timer." + kind + "." }

// timer is a command that waits for its time.
type timer struct {
	Type          string             `json:"type"`
	ID            string             `json:"id"`
	Command       string             `json:"command"`
	Body          json.RawMessage    `json:"body"`
	Subscriber    string             `json:"subscriber"`
	EventID       string             `json:"eventId"`
	Step          string             `json:"step"`
	Position      jetstream.Position `json:"position"`
	StoredAt      time.Time          `json:"storedAt"`
	Correlation   string             `json:"correlation,omitempty"`
	Causation     string             `json:"causation,omitempty"`
	TraceParent   string             `json:"traceparent,omitempty"`
	ExpectVersion *uint64            `json:"expectVersion,omitempty"`
	Metadata      map[string]string  `json:"metadata,omitempty"`
}

// After executes a command on an aggregate once the duration is over, whichever
// process runs then: a deadline. It takes effect once for ever, like
// [Do.Update], even if it fires twice; what it finds by then is the handler's to
// decide. Times are rounded up to a second.
//
// A process that runs [Timers] for the target's type must exist. Returns
// [jetstream.ErrUnavailable] when the timer could not be set.
func (d *Do) After(
	ctx context.Context, delay time.Duration, target Target, id string, command any, opts ...CallOption,
) error {
	h, value, err := target.definition().lookup(command)
	if err != nil {
		return err
	}
	if err := jetstream.ValidateID(id); err != nil {
		return err
	}
	opts, t, err := d.options(target, id, command, "after-", opts)
	if err != nil {
		return err
	}
	c := newCall(opts)
	if err := c.validate(time.Now()); err != nil {
		return err
	}
	body, err := codec.JSON.Encode(value)
	if err != nil {
		return fmt.Errorf("timer: command %q: %w", h.name, err)
	}
	data, err := json.Marshal(timer{
		Type: target.TypeName(), ID: id, Command: h.name, Body: body, Subscriber: t.Subscriber, EventID: t.EventID,
		Step: t.Step, Position: t.Position, StoredAt: t.Time, Correlation: c.correlation, Causation: c.causation,
		TraceParent: c.traceParent, ExpectVersion: c.expectVersion, Metadata: c.metadata,
	})
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	sum := sha256.Sum256([]byte(t.Subscriber + "\n" + t.EventID + "\n" + t.Step + "\n" + target.TypeName() + "\n" + id))
	key := hex.EncodeToString(sum[:16])
	// Counted from when the event was stored, so that a late handler sets no later
	// deadline.
	at := d.meta.StoredAt.Add(delay + time.Second - time.Nanosecond).UTC().Truncate(time.Second)
	msg := wire.Expect(nats.NewMsg(timerSubject(d.store.Name(), "set")+key), 0)
	msg.Header["Nats-Schedule"] = []string{"@at " + at.Format(time.RFC3339)}
	msg.Header["Nats-Schedule-Target"] = []string{timerSubject(d.store.Name(), "due") + key}
	msg.Data = data
	attempt, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	_, err = wire.Publish(attempt, d.store.Conn(), msg)
	if err != nil && wire.Number(err) != wire.CodeWrongLastSequence { // set already
		return fmt.Errorf("%w: timer for %s %q was not set (do the timers run?): %w",
			jetstream.ErrUnavailable, target.TypeName(), id, err)
	}
	return nil
}

// TimersConfig tunes [Timers]. The zero value is a good one.
type TimersConfig struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// TTL is how long a dead instance keeps its place. Defaults to 3 s.
	TTL time.Duration
}

// Timers executes the commands that [Do.After] set, when they are due. Each
// command-side process runs one with all its targets; one at a time is active.
type Timers struct {
	store    *jetstream.Store
	follower *follow.Follower
	targets  map[string]Target
}

// NewTimers makes the stream of the store's timers, if need be, and the follower
// that executes them on the targets.
func NewTimers(ctx context.Context, store *jetstream.Store, cfg TimersConfig, targets ...Target) (*Timers, error) {
	if store == nil || len(targets) == 0 {
		return nil, errors.New("timers: the store is nil or there are no targets")
	}
	t := &Timers{store: store, targets: map[string]Target{}}
	for _, target := range targets {
		t.targets[target.TypeName()] = target
	}
	js, err := natsjs.New(store.Conn())
	if err != nil {
		return nil, err
	}
	name := store.Name() + timerStreamSuffix
	_, err = js.CreateStream(ctx, natsjs.StreamConfig{
		Name: name, Description: "Rossby timers",
		Subjects: []string{timerSubject(store.Name(), "set") + ">", timerSubject(store.Name(), "due") + ">"},
		Storage:  natsjs.FileStorage, Replicas: store.Replicas(), AllowMsgSchedules: true, AllowDirect: true,
		AllowRollup: true, Discard: natsjs.DiscardOld,
	})
	if err != nil && !errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
		return nil, fmt.Errorf("timers of store %q: %w", store.Name(), err)
	}
	t.follower, err = follow.New(follow.Config{
		Conn: store.Conn(), Stream: name, Bucket: store.Name() + "__followers", Name: timerFollower,
		Filter: timerSubject(store.Name(), "due") + ">", StoreID: store.ID(), Version: 1, Definition: "timers",
		Start:  func(context.Context) (uint64, error) { return 0, nil },
		Handle: t.fire, Decide: decideFailure(follow.BackoffMaxDefault), TTL: cfg.TTL,
		Logger: cmp.Or(cfg.Logger, slog.Default()),
	})
	return t, err
}

// Run executes due commands until ctx ends; see [Reactor.Run].
func (t *Timers) Run(ctx context.Context) error { return t.follower.Run(ctx) }

func (t *Timers) fire(ctx context.Context, d follow.Delivery) error {
	var due timer
	if err := json.Unmarshal(d.Data, &due); err != nil {
		return &jetstream.InvalidError{Field: "timer", Value: string(d.Data), Reason: err.Error()}
	}
	target := t.targets[due.Type]
	if target == nil {
		return fmt.Errorf("timer for aggregate type %q: this program has no target for it", due.Type)
	}
	h := target.definition().handlers[due.Command]
	if h == nil {
		return fmt.Errorf("timer for %s %q: this program does not know command %q", due.Type, due.ID, due.Command)
	}
	command := reflect.New(h.command)
	if err := codec.JSON.Decode(due.Body, command.Interface()); err != nil {
		return &jetstream.InvalidError{Field: "timer's command " + due.Command, Value: string(due.Body), Reason: err.Error()}
	}
	opts := []CallOption{
		TriggeredBy(Trigger{
			Subscriber: due.Subscriber, EventID: due.EventID, Step: due.Step, Position: due.Position, Time: due.StoredAt,
		}),
		Correlation(due.Correlation), Causation(due.Causation), TraceParent(due.TraceParent), Metadata(due.Metadata),
	}
	if due.ExpectVersion != nil {
		opts = append(opts, ExpectVersion(*due.ExpectVersion))
	}
	_, err := target.Execute(ctx, due.ID, command.Elem().Interface(), opts...)
	var version *VersionError
	if errors.Is(err, ErrRejected) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) ||
		errors.As(err, &version) {
		return nil // a decision, and recorded as such
	}
	return err
}
