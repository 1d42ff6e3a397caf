package aggregate

import (
	"maps"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Decision stands beside the command when a handler decides.
type Decision struct {
	// ID is the aggregate's id, Version its version before the decision.
	ID      string
	Version uint64
	// CommandID is "" when the caller gave none.
	CommandID string
	// Correlation names the conversation, Causation what led to the command.
	Correlation, Causation string
	// Metadata is what the caller gave.
	Metadata map[string]string

	now time.Time
}

// Now is the time of the decision, UTC, to the microsecond: what the events'
// Meta.Time will say. Use it instead of time.Now.
func (d Decision) Now() time.Time { return d.now }

// Result is what came of a command.
type Result struct {
	// ID is the aggregate's.
	ID string
	// Version is the aggregate's after the command, Position that of its commit;
	// of the last one when nothing changed.
	Version  uint64
	Position jetstream.Position
	// Events are those that the command led to. A service leaves them out when they
	// do not fit into a reply. The Event is nil where a service is newer than this
	// program, whose schema does not know it or cannot read it.
	Events []jetstream.Recorded
	// Duplicate tells that the command, or the trigger, had been handled before:
	// this is what came of it then.
	Duplicate bool
}

// Trigger identifies an effect of an event, for ever. Reactors set it; gateways
// send it with the commands that report their outcomes.
type Trigger struct {
	// Subscriber is the reactor's or gateway's name, EventID the event's, Step the
	// effect's.
	Subscriber, EventID, Step string
	// Position is where the event stands: the effect can only have happened after.
	Position jetstream.Position
	// Time is when the event was stored; it bounds the search when the event is of
	// another store, or was copied and has no Position.
	Time time.Time
}

func (t Trigger) key() jetstream.Trigger {
	return jetstream.Trigger{Subscriber: t.Subscriber, EventID: t.EventID, Step: t.Step}
}

// CallOption is a choice for one call.
type CallOption func(*call)

type call struct {
	commandID     string
	hash          []byte
	expectVersion *uint64
	metadata      map[string]string
	correlation   string
	causation     string
	traceParent   string
	trigger       *Trigger
	step          string

	interceptors     []Interceptor
	recordRejections bool
}

func newCall(opts []CallOption) *call {
	c := new(call)
	for _, o := range opts {
		o(c)
	}
	return c
}

// CommandID gives the command an id: sent again with it, the command gets the
// first outcome and does nothing. Ids of [jetstream.NewCommandID] are found
// without a search; any other string, such as an HTTP Idempotency-Key, is
// remembered for [RepositoryConfig].ReceiptTTL and costs one more write.
//
// Who repeats a command whose outcome is unknown adds [RecordRejections]: the first
// attempt may still be on its way, and must find a refusal that the repetition got.
func CommandID(id string) CallOption { return func(c *call) { c.commandID = id } }

// ExpectVersion makes the command fail with a [*VersionError] unless the
// aggregate's version is n.
func ExpectVersion(n uint64) CallOption { return func(c *call) { c.expectVersion = &n } }

// Metadata is stored with the events and given to everything that handles them.
// Keys are letters, digits, '-', '_' and '.'; values are lines of text. Together
// they may have 16 KiB.
func Metadata(m map[string]string) CallOption {
	return func(c *call) {
		if c.metadata = nil; len(m) > 0 {
			c.metadata = maps.Clone(m)
		}
	}
}

// Correlation names the conversation that the command belongs to. Defaults to
// the command id.
func Correlation(id string) CallOption { return func(c *call) { c.correlation = id } }

// Causation names the message that led to the command.
func Causation(id string) CallOption { return func(c *call) { c.causation = id } }

// TraceParent is the W3C trace context that the command belongs to.
func TraceParent(text string) CallOption { return func(c *call) { c.traceParent = text } }

// TriggeredBy makes the command the effect of an event: it happens once for
// ever, and its outcome, a rejection too, is recorded and returned again. It
// takes the place of [CommandID].
func TriggeredBy(t Trigger) CallOption { return func(c *call) { c.trigger = &t } }

// RecordRejections stores what came of the command even when it is a refusal, or
// nothing, as a commit without events. It costs a publish instead of a read. The
// answer is then exact, even if the leader that was asked had been cut off from its
// peers; and the command, sent again with its id, gets the same answer for ever,
// whatever has become of the aggregate.
func RecordRejections() CallOption { return func(c *call) { c.recordRejections = true } }

// Intercepted lets interceptors see the decision before it is stored, after those
// of the repository; see [Intercept]. They run in the repository's process: a
// [Client] refuses them.
func Intercepted(by ...Interceptor) CallOption {
	return func(c *call) { c.interceptors = append(c.interceptors, by...) }
}

// Step names an effect of a reactor's handler: a word without blanks. The default
// is the command's name. Names are stored: never use one again for something
// else.
func Step(name string) CallOption { return func(c *call) { c.step = name } }
