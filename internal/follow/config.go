package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// Defaults of [Config].
const (
	TTLDefault           = 3 * time.Second
	FlushEveryDefault    = 50 * time.Millisecond
	MaxUnrecordedDefault = 256
	ConcurrencyDefault   = 16
	WindowMinDefault     = 512
	MaxLanesDefault      = 4096
	GraceDefault         = 5 * time.Second
	BackoffMinDefault    = 50 * time.Millisecond
	BackoffMaxDefault    = 30 * time.Second
	// TTLMin keeps renewals, heartbeats and margins apart from the noise of
	// schedulers and networks.
	TTLMin = 200 * time.Millisecond
)

// Config describes a follower.
type Config struct { //nolint:recvcheck // users pass it by value, the engine does not copy it
	// Conn is the connection. The follower works with any reconnect buffer and
	// does not close it. Required.
	Conn *nats.Conn
	// Stream is the event stream's name. Required.
	Stream string
	// Bucket is the key-value bucket of the records, made when missing: file,
	// history 1, the stream's replicas. Required.
	Bucket string
	// Name is the follower's name, its durable consumer's and its record's key:
	// letters, digits, dash and underscore. Required.
	Name string
	// Filter is one subject filter, best with a literal prefix. Defaults to "",
	// the whole stream.
	Filter string
	// StoreID is the store's identity, kept in the record; see [ErrOtherStore].
	StoreID string
	// Version and Definition are the version of the follower's definition and a
	// hash of its content. Instances with both equal stand by for each other; a
	// higher version takes over from a lower one, never the reverse; the same
	// version with another definition is [ErrOtherDefinition].
	Version    int
	Definition string
	// Start is asked once, when the record is first made, for the sequence after
	// which to begin. An error is logged and Start asked again. Required.
	Start func(ctx context.Context) (after uint64, err error)
	// Skip returns true for messages that are not followed; they are done at
	// once. It runs in the reader, so it must be cheap. A panic stops the
	// follower. Defaults to following all.
	Skip func(m *wire.Message) bool
	// Lane names the lane of a message: within one, events run in order and one
	// at a time. It must be pure, and stay the same over versions, because
	// recorded lanes are found again by it. With a Lane of your own, a lane that
	// waited is read again by scanning the filter, not one subject. Defaults to
	// the subject.
	Lane func(m *wire.Message) string
	// Handle does the work. Its context ends when the lease is lost or the grace
	// is over. A panic becomes a failure. Required.
	Handle func(ctx context.Context, d Delivery) error
	// Decide says what to do after a failed attempt. Defaults to [Backoff] with
	// full jitter from 50 ms up to 30 s, for ever.
	Decide func(f Failure) Verdict
	// TTL is the lease: a dead owner is replaced after TTL to 1.25 TTL. Defaults
	// to [TTLDefault].
	TTL time.Duration
	// FlushEvery is the shortest time between two writes of the record, unless
	// half of MaxUnrecorded is done earlier. Defaults to [FlushEveryDefault].
	FlushEvery time.Duration
	// MaxUnrecorded bounds the events that run or are done but not recorded, so
	// it bounds what a crash repeats. Higher is faster. Defaults to
	// [MaxUnrecordedDefault].
	MaxUnrecorded int
	// Concurrency is the number of handlers that run at once. Defaults to
	// [ConcurrencyDefault].
	Concurrency int
	// Window bounds the events held in memory. Defaults to 4 × Concurrency, at
	// least [WindowMinDefault].
	Window int
	// MaxLanes bounds the unfinished lanes; beyond it the reader stops until
	// some are done, and says so. Defaults to [MaxLanesDefault].
	MaxLanes int
	// Grace is how long running handlers may take to end by themselves, and
	// again after their context was cancelled, when Run's context ends. Defaults
	// to [GraceDefault].
	Grace time.Duration
	// Logger gets every change of state, reset and failure by name. Defaults to
	// none.
	Logger *slog.Logger
	// OnState is called after every change of state and every parked lane, from
	// the follower's goroutines: it must not block. Defaults to none.
	OnState func(Status)
}

// Delivery is one event handed to the handler.
type Delivery struct {
	wire.Message
	// Epoch grows with every change of owner: a fencing token.
	Epoch uint64
	// Attempt counts from 1, over restarts and owners too.
	Attempt int
	// Since is when the event failed first, zero if it has not.
	Since time.Time
	// Done is how many parts of the event earlier attempts have done, as they said
	// with [Delivery.Step].
	Done int

	// Replay tells that somebody asked for the event to be handled again.
	Replay bool

	tenure  *tenure
	lane    *lane
	stepped *int
}

// Step notes that n parts of the event are done, so that a later attempt, by
// another owner too, can go on behind them. It is written with the record, within
// moments; until then a crash repeats the part.
func (d Delivery) Step(n int) {
	if d.stepped != nil {
		*d.stepped = max(*d.stepped, n)
	}
	if d.tenure == nil {
		return
	}
	d.tenure.mu.Lock()
	defer d.tenure.mu.Unlock()
	// A handler that outlives its attempt has nothing to say any more.
	if d.lane.state == laneRunning && d.lane.from <= d.Sequence && n > d.lane.step {
		d.lane.step, d.tenure.table.dirty = n, true
		// The next part has failures of its own.
		d.lane.tries, d.lane.since = 0, time.Time{}
	}
}

// Failure is a failed attempt.
type Failure struct {
	Message wire.Message
	Attempt int
	// Since is when the event failed first, by the clock of the owner of then;
	// zero at the first failure.
	Since time.Time
	Err   error
}

// Action is what happens to an event that failed.
type Action int

// The actions.
const (
	// Retry runs it again after [Verdict.After]; its lane waits.
	Retry Action = iota
	// SkipEvent counts it as done, and logs it as an error.
	SkipEvent
	// Park makes its lane wait for [Follower.Resume].
	Park
	// Stop stops the follower: Run returns [ErrStopped] and the cause.
	Stop
	// Postpone runs it again after [Verdict.After] without counting an attempt:
	// nothing was tried.
	Postpone
)

// String names the action.
func (a Action) String() string {
	switch a {
	case Retry:
		return "retry"
	case SkipEvent:
		return "skip"
	case Park:
		return "park"
	case Stop:
		return "stop"
	case Postpone:
		return "postpone"
	default:
		return fmt.Sprintf("Action(%d)", int(a))
	}
}

// Verdict is the answer of [Config.Decide]. An unknown action is a [Retry].
type Verdict struct {
	Action Action
	After  time.Duration
}

// Backoff returns a policy that retries for ever, after a random time of up to
// least, doubled with every attempt up to most.
func Backoff(least, most time.Duration) func(Failure) Verdict {
	return func(f Failure) Verdict {
		return Verdict{Action: Retry, After: backoff(f.Attempt, least, most)}
	}
}

// backoff is full jitter, which spreads the retries of lanes that failed
// together.
func backoff(attempt int, least, most time.Duration) time.Duration {
	ceiling := most
	if shift := max(attempt-1, 0); shift < 30 && least<<shift < most {
		ceiling = least << shift
	}
	return time.Duration(rand.Int64N(int64(max(ceiling, 1)))) + time.Millisecond
}

var nameOK = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// Validate reports every field that [New] would refuse.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, why string) {
		errs = append(errs, fmt.Errorf("follow: %s %#v: %s", field, value, why))
	}
	if c.Conn == nil {
		bad("Conn", nil, "is required")
	}
	for _, n := range []struct{ field, value string }{{"Bucket", c.Bucket}, {"Name", c.Name}} {
		if !nameOK.MatchString(n.value) {
			bad(n.field, n.value, "must be 1 to 255 letters, digits, dashes and underscores")
		}
	}
	if c.Stream == "" || strings.ContainsAny(c.Stream, ".*>/\\ \t\r\n") {
		bad("Stream", c.Stream, "is not the name of a stream")
	}
	if c.Filter != "" && !filterOK(c.Filter) {
		bad("Filter", c.Filter, "is not a subject filter")
	}
	if c.Version < 0 {
		bad("Version", c.Version, "is negative")
	}
	if c.Start == nil {
		bad("Start", nil, "is required")
	}
	if c.Handle == nil {
		bad("Handle", nil, "is required")
	}
	if c.TTL < 0 || (c.TTL > 0 && c.TTL < TTLMin) {
		bad("TTL", c.TTL.String(), "must be at least "+TTLMin.String())
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"FlushEvery", c.FlushEvery}, {"Grace", c.Grace}} {
		if d.value < 0 {
			bad(d.field, d.value.String(), "is negative")
		}
	}
	if ttl := cmp.Or(c.TTL, TTLDefault); c.FlushEvery > ttl/3 {
		bad("FlushEvery", c.FlushEvery.String(), "must be at most a third of TTL "+ttl.String())
	}
	for _, n := range []struct {
		field string
		value int
	}{
		{"MaxUnrecorded", c.MaxUnrecorded}, {"Concurrency", c.Concurrency},
		{"Window", c.Window}, {"MaxLanes", c.MaxLanes},
	} {
		if n.value < 0 {
			bad(n.field, n.value, "is negative")
		}
	}
	return errors.Join(errs...)
}

func filterOK(filter string) bool {
	tokens := strings.Split(filter, ".")
	for i, t := range tokens {
		if t == "" || strings.ContainsAny(t, " \t\r\n") || (t == ">" && i < len(tokens)-1) {
			return false
		}
	}
	return true
}

func (c Config) withDefaults() Config {
	c.TTL = cmp.Or(c.TTL, TTLDefault)
	// A short TTL shortens the default too, or renewals would come too late.
	c.FlushEvery = cmp.Or(c.FlushEvery, min(FlushEveryDefault, c.TTL/10))
	c.MaxUnrecorded = cmp.Or(c.MaxUnrecorded, MaxUnrecordedDefault)
	c.Concurrency = cmp.Or(c.Concurrency, ConcurrencyDefault)
	c.Window = cmp.Or(c.Window, max(4*c.Concurrency, WindowMinDefault))
	c.MaxLanes = cmp.Or(c.MaxLanes, MaxLanesDefault)
	c.Grace = cmp.Or(c.Grace, GraceDefault)
	if c.Decide == nil {
		c.Decide = Backoff(BackoffMinDefault, BackoffMaxDefault)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("follower", c.Name)
	return c
}

// margin is how long before its lease ends an owner starts no more handlers and
// gives up: the room for a scheduler that is late.
func (c *Config) margin() time.Duration { return c.TTL / 10 }
