package followers

import (
	"encoding/json"
	"time"
)

// Status is where a follower is.
type Status struct {
	Name string `json:"name"`
	// Kind is "gateway", "reactor" or "timers"; "" when nobody runs it.
	Kind string `json:"kind,omitempty"`
	// State is "active", "full" when too many lanes wait, "paused", "replaying", or
	// "stopped".
	State string `json:"state"`
	// Owner is the process that owns it, "" for none; Epoch counts owners.
	Owner string `json:"owner,omitempty"`
	Epoch uint64 `json:"epoch"`
	// Version is that of the follower's definition.
	Version int `json:"version"`
	// Position is the stream sequence up to which everything is done but what waits,
	// Head that of the last message.
	Position uint64 `json:"position"`
	Head     uint64 `json:"head"`
	// Lag is about how many events are not done, LagSeconds the age of the oldest.
	Lag        uint64  `json:"lag"`
	LagSeconds float64 `json:"lagSeconds"`
	CaughtUp   bool    `json:"caughtUp"`
	// Waiting counts the lanes that wait for a retry, Parked those that wait for a
	// person.
	Waiting int `json:"waiting"`
	Parked  int `json:"parked"`
	// Lanes are both, the oldest first.
	Lanes []Lane `json:"lanes,omitempty"`
	// Paused and Replay say who asked for it; nil without.
	Paused *Pause  `json:"paused,omitempty"`
	Replay *Replay `json:"replay,omitempty"`
	// LastError is the last trouble, mended or not.
	LastError string `json:"lastError,omitempty"`
	// Details are the kind's own: a gateway's destinations and overdue deliveries.
	Details json.RawMessage `json:"details,omitempty"`
}

// Lane is an aggregate whose events wait.
type Lane struct {
	// Lane is its name: the aggregate's subject.
	Lane string `json:"lane"`
	// Sequence is the event's that it waits for, Last the last one's known to wait
	// behind it.
	Sequence uint64 `json:"sequence"`
	Last     uint64 `json:"last"`
	// Done counts the events of that commit that are done.
	Done     int  `json:"done,omitempty"`
	Attempts int  `json:"attempts"`
	Parked   bool `json:"parked"`
	// Since is when it failed first, Next when it is tried again.
	Since *time.Time `json:"since,omitempty"`
	Next  *time.Time `json:"next,omitempty"`
	// Error is the last failure, clipped; Group the group of failures that it belongs
	// to.
	Error string `json:"error,omitempty"`
	Group string `json:"group,omitempty"`
}

// Group is lanes that failed alike.
type Group struct {
	ID string `json:"id"`
	// Pattern is their failure with what differs left out.
	Pattern string `json:"pattern"`
	Count   int    `json:"count"`
	// Oldest is when the first of them failed first.
	Oldest *time.Time `json:"oldest,omitempty"`
	Lanes  []Lane     `json:"lanes"`
}

// Pause is who stopped a follower, and why.
type Pause struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// Replay is a range that is handled again.
type Replay struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// From and To are stream sequences, Next the first one not done, Failed counts the
	// events given up.
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Next   uint64 `json:"next"`
	Failed int    `json:"failed,omitempty"`
}

// Selection says which lanes are meant: one, a group, or all of them.
type Selection struct {
	Lane  string `json:"lane,omitempty"`
	Group string `json:"group,omitempty"`
	All   bool   `json:"all,omitempty"`
}

// Action is something that somebody asked a follower to do.
type Action struct {
	Follower string    `json:"follower"`
	Time     time.Time `json:"time"`
	By       string    `json:"by"`
	// Do is "pause", "resume", "retry", "discard", "replay" or "end-replay".
	Do     string `json:"do"`
	Reason string `json:"reason,omitempty"`
	// Lane, Sequence and Error are those of what was retried or discarded; From and To
	// of a replay.
	Lane     string `json:"lane,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Error    string `json:"error,omitempty"`
	From     uint64 `json:"from,omitempty"`
	To       uint64 `json:"to,omitempty"`
}

// Request is what is asked of a follower, as JSON on its subject; see docs/followers.md.
type Request struct {
	Selection

	// ID is the same when the same is asked again, since nobody answered: an owner that
	// has done it answers once more. Optional.
	ID string `json:"id,omitempty"`

	By       string `json:"by,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Whole    bool   `json:"whole,omitempty"`
	From     uint64 `json:"from,omitempty"`
	To       uint64 `json:"to,omitempty"`
}

// Reply answers what changes something.
type Reply struct {
	// Lanes is how many were retried.
	Lanes int `json:"lanes,omitempty"`
}

// The requests.
const (
	DoStatus  = "status"
	DoPause   = "pause"
	DoResume  = "resume"
	DoRetry   = "retry"
	DoDiscard = "discard"
	DoReplay  = "replay"
	// DoEndReplay ends a replay.
	DoEndReplay = "end-replay"
)

// Subject is where a request to a follower goes.
func Subject(store, follower, do string) string { return store + ".follower." + follower + "." + do }

// ActionStream names the stream that keeps the actions, ActionSubject the subject
// of a follower's.
func ActionStream(store string) string { return store + "__actions" }

// ActionSubject is the subject of a follower's actions.
func ActionSubject(store, follower string) string { return store + ".action." + follower }
