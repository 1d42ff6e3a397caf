package jetstream

import "time"

// Meta stands beside an event wherever one is given to user code.
type Meta struct {
	// Type and ID name the aggregate.
	Type, ID string
	// EventID is globally unique and never changes: the key of whatever the event
	// causes.
	EventID string
	// Name is the event's wire name.
	Name string
	// Version is the aggregate's version with this event, Position its place in
	// the store.
	Version  uint64
	Position Position
	// Time is when it was decided, StoredAt when the server stored it; both UTC.
	Time, StoredAt time.Time
	// Correlation names the conversation, Causation the message that led to the
	// event: a command id, or the id of the event that was reacted to.
	Correlation, Causation, TraceParent string
	// Metadata is what the command carried; do not change it.
	Metadata map[string]string
}

// Recorded is a stored event, brought to its current version.
type Recorded struct {
	Meta

	Event any
}
