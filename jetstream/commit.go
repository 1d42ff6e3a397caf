package jetstream

import (
	"cmp"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/wire"
)

// Codec is a way to write events and state.
type Codec = codec.Codec

// The codecs. Msgpack is the default; JSON can be read with any NATS client.
const (
	Msgpack = codec.Msgpack
	JSON    = codec.JSON
)

// Head is the last commit of an aggregate, as far as the next one must know it.
// The zero Head is that of an aggregate without commits.
type Head struct {
	// Sequence is the commit's sequence in the stream, CommitID its id.
	Sequence uint64
	CommitID string
	// Ordinal counts the aggregate's commits, Version its events.
	Ordinal, Version uint64
}

// Commit is what one decision, or a group of them, stored about one aggregate:
// one message of the stream.
type Commit struct {
	Head

	Type, ID string
	// Previous is the id of the commit before, "" for the first; PreviousSequence
	// its sequence, 0 for the first.
	Previous         string
	PreviousSequence uint64
	// Time is when the server stored the commit, UTC.
	Time time.Time
	// EventNames are the wire names of the commit's events, in order.
	EventNames []string
	// TraceParent is the W3C trace context of the first decision.
	TraceParent string
	// Origin is set on commits copied from another store.
	Origin *Origin
	// Tx is set on commits of a transaction over several aggregates.
	Tx *Tx
	// Decisions are what was decided, in order.
	Decisions []Decision
	// State is the aggregate's state after the commit, when it is small enough to
	// travel along.
	State *State

	// unguarded is set on commits that were stored without an expectation, as those
	// are that another stream sources.
	unguarded bool
}

// Events is the number of events in the commit.
func (c *Commit) Events() int { return len(c.EventNames) }

// EventID is the globally unique id of the commit's i-th event, from 0.
func (c *Commit) EventID(i int) string { return c.CommitID + "." + strconv.Itoa(i) }

// Origin is where a copied commit was stored first.
type Origin struct {
	Store    string
	Sequence uint64
	Time     time.Time
}

// Tx is a commit's place in a transaction: number Index, from 1, of Count.
type Tx struct {
	ID           string
	Index, Count int
}

// LastSequence is the sequence of the transaction's last commit, given that of
// this one; for a commit alone, that one.
func (c *Commit) LastSequence() uint64 {
	if c.Tx == nil {
		return c.Sequence
	}
	return c.Sequence + uint64(c.Tx.Count-c.Tx.Index) //nolint:gosec // Index never exceeds Count
}

// Kind is what caused a decision.
type Kind uint8

// The kinds of decisions.
const (
	// KindCommand is a request of a client.
	KindCommand Kind = iota
	// KindTrigger is an event that a reactor or gateway reacted to.
	KindTrigger
)

// Outcome is what came of a decision.
type Outcome uint8

// The outcomes.
const (
	// OutcomeEvents is a decision with events.
	OutcomeEvents Outcome = iota
	// OutcomeNone is a decision that changed nothing.
	OutcomeNone
	// OutcomeRejected is a decision against the request; Code says why.
	OutcomeRejected
)

// Trigger identifies one effect of one event: which subscriber reacted, to which
// event, with which of its named steps. It is the key of an effect for ever.
type Trigger struct {
	Subscriber, EventID, Step string
}

// Decision is one request and what came of it.
type Decision struct {
	Kind Kind
	// CommandID is the request's id, "" when the caller gave none.
	CommandID string
	// Trigger is set when Kind is KindTrigger.
	Trigger Trigger
	// BodyHash is the beginning of the SHA-256 of the request's bytes as sent.
	BodyHash []byte
	Outcome  Outcome
	// Code and Reason say why a request was rejected.
	Code, Reason string
	// Time is when it was decided, UTC, to the microsecond.
	Time time.Time
	// Correlation names the whole conversation, Causation the message that led to
	// this decision. TraceParent is its W3C trace context.
	Correlation, Causation, TraceParent string
	// Metadata is the user's.
	Metadata map[string]string
	Events   []EventData
}

// CorrelationID names the conversation: the stored correlation, or the command id.
func (d *Decision) CorrelationID() string { return cmp.Or(d.Correlation, d.CommandID) }

// CausationID names what led to the decision: the stored causation, or the
// trigger's event, or the command id.
func (d *Decision) CausationID() string {
	return cmp.Or(d.Causation, d.Trigger.EventID, d.CommandID)
}

// EventData is an event as it is stored.
type EventData struct {
	// Name is the wire name, Version that of the event's schema, 1 or higher.
	Name    string
	Version int
	Codec   Codec
	// KeyRef names the key that Data is encrypted under, "" is in the clear.
	KeyRef string
	Data   []byte
}

// State is an aggregate's state as it is stored.
type State struct {
	// Fingerprint tells which program's state it is: a state with another one is
	// not used.
	Fingerprint string
	Codec       Codec
	// KeyRef names the key that Data is encrypted under, "" is in the clear.
	KeyRef string
	Data   []byte
}

// Message is a stored message of any stream, as the server returned it.
type Message = wire.Message
