package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// eventRow is an event as it is shown: as it was stored, not upcast, since only the
// program that has the schema can do that.
type eventRow struct {
	Sequence      uint64             `json:"sequence"`
	Position      jetstream.Position `json:"position"`
	Type          string             `json:"type"`
	ID            string             `json:"id"`
	Version       uint64             `json:"version"`
	EventID       string             `json:"eventId"`
	Name          string             `json:"name"`
	SchemaVersion int                `json:"schemaVersion"`
	Time          time.Time          `json:"time"`
	StoredAt      time.Time          `json:"storedAt"`
	Correlation   string             `json:"correlation,omitempty"`
	Causation     string             `json:"causation,omitempty"`
	Metadata      map[string]string  `json:"metadata,omitempty"`
	// KeyRef names the key that the data is encrypted under.
	KeyRef string          `json:"keyRef,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
	// Unreadable says why the data is not shown.
	Unreadable string `json:"unreadable,omitempty"`
}

func (e *eventRow) dataText() string {
	switch {
	case e.KeyRef != "":
		return "(encrypted under " + oneLine(e.KeyRef) + ")"
	case e.Unreadable != "":
		return "(" + oneLine(e.Unreadable) + ")"
	default:
		return string(e.Data)
	}
}

// readable gives stored data as JSON without the Go type: names and values are in it.
func readable(c jetstream.Codec, keyRef string, data []byte) (json.RawMessage, string) {
	if keyRef != "" {
		return nil, ""
	}
	if c == jetstream.JSON && json.Valid(data) {
		return data, ""
	}
	var v any
	if err := c.Decode(data, &v); err != nil {
		return nil, fmt.Sprintf("%d bytes that cannot be read: %v", len(data), err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Sprintf("%d bytes of %v that are not JSON: %v", len(data), c, err)
	}
	return text, ""
}

// eventsOf lists a commit's events.
func eventsOf(store *jetstream.Store, c *jetstream.Commit) []eventRow {
	rows := make([]eventRow, 0, c.Events())
	for i := range c.Decisions {
		d := &c.Decisions[i]
		for _, e := range d.Events {
			n := len(rows)
			row := eventRow{
				Sequence: c.Sequence, Position: store.Position(c.Sequence), Type: c.Type, ID: c.ID,
				Version: c.Version - uint64(c.Events()-n-1), //nolint:gosec // fewer than the version counts
				EventID: c.EventID(n), Name: e.Name, SchemaVersion: e.Version, Time: d.Time, StoredAt: c.Time,
				Correlation: d.CorrelationID(), Causation: d.CausationID(), Metadata: d.Metadata, KeyRef: e.KeyRef,
			}
			row.Data, row.Unreadable = readable(e.Codec, e.KeyRef, e.Data)
			rows = append(rows, row)
		}
	}
	return rows
}

// decisionRow is a decision as it is shown.
type decisionRow struct {
	Kind        string            `json:"kind"`
	CommandID   string            `json:"commandId,omitempty"`
	Subscriber  string            `json:"subscriber,omitempty"`
	EventID     string            `json:"triggerEventId,omitempty"`
	Step        string            `json:"step,omitempty"`
	Outcome     string            `json:"outcome"`
	Code        string            `json:"code,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	Time        time.Time         `json:"time"`
	TraceParent string            `json:"traceParent,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Events      int               `json:"events"`
}

// commitRow is a commit as it is shown.
type commitRow struct {
	Sequence  uint64             `json:"sequence"`
	Position  jetstream.Position `json:"position"`
	CommitID  string             `json:"commitId"`
	Type      string             `json:"type"`
	ID        string             `json:"id"`
	Ordinal   uint64             `json:"ordinal"`
	Version   uint64             `json:"version"`
	Previous  uint64             `json:"previousSequence,omitempty"`
	StoredAt  time.Time          `json:"storedAt"`
	Tx        string             `json:"tx,omitempty"`
	Origin    string             `json:"origin,omitempty"`
	Decisions []decisionRow      `json:"decisions"`
	Events    []eventRow         `json:"events"`
	State     *stateRow          `json:"state,omitempty"`
}

func commitOf(store *jetstream.Store, c *jetstream.Commit) commitRow {
	row := commitRow{
		Sequence: c.Sequence, Position: store.Position(c.Sequence), CommitID: c.CommitID, Type: c.Type, ID: c.ID,
		Ordinal: c.Ordinal, Version: c.Version, Previous: c.PreviousSequence, StoredAt: c.Time,
		Events: eventsOf(store, c), State: stateOf(c),
	}
	if c.Tx != nil {
		row.Tx = fmt.Sprintf("%s %d/%d", c.Tx.ID, c.Tx.Index, c.Tx.Count)
	}
	if o := c.Origin; o != nil {
		row.Origin = fmt.Sprintf("%s #%d %s", o.Store, o.Sequence, stamp(o.Time))
	}
	for i := range c.Decisions {
		d := &c.Decisions[i]
		r := decisionRow{
			Kind: "command", CommandID: d.CommandID, Outcome: "events", Code: d.Code, Reason: d.Reason, Time: d.Time,
			TraceParent: d.TraceParent, Metadata: d.Metadata, Events: len(d.Events),
		}
		if d.Kind == jetstream.KindTrigger {
			r.Kind, r.Subscriber, r.EventID, r.Step = "trigger", d.Trigger.Subscriber, d.Trigger.EventID, d.Trigger.Step
		}
		switch d.Outcome {
		case jetstream.OutcomeNone:
			r.Outcome = "none"
		case jetstream.OutcomeRejected:
			r.Outcome = "rejected"
		case jetstream.OutcomeEvents:
		}
		row.Decisions = append(row.Decisions, r)
	}
	return row
}

func (c *commitRow) print(w io.Writer) {
	fields(w, field{"Commit", c.CommitID}, field{"Aggregate", c.Type + "/" + c.ID},
		field{"Version", fmt.Sprintf("%d, commit %d of the aggregate", c.Version, c.Ordinal)},
		field{"Sequence", fmt.Sprintf("%d, after %d", c.Sequence, c.Previous)}, field{labelPosition, c.Position.String()},
		field{"Stored", stamp(c.StoredAt)}, field{"Transaction", c.Tx}, field{"Copied from", c.Origin})
	for _, d := range c.Decisions {
		_, _ = fmt.Fprintln(w)
		fields(w, field{"Decided", stamp(d.Time)}, field{"Command id", d.CommandID},
			field{"Triggered by", strings.TrimSpace(d.Subscriber + " " + d.EventID + " " + d.Step)},
			field{"Outcome", strings.TrimSpace(d.Outcome + " " + d.Code + " " + d.Reason)},
			field{"Trace", d.TraceParent}, field{"Metadata", pairs(d.Metadata)})
	}
	if len(c.Events) > 0 {
		_, _ = fmt.Fprintln(w)
		table(w, []string{"VERSION", "EVENT", "SCHEMA", "ID", "DATA"}, c.Events, func(e eventRow) []string {
			return []string{number(e.Version), e.Name, number(e.SchemaVersion), e.EventID, e.dataText()}
		})
	}
	if c.State != nil {
		c.State.print(w, c.Version)
	}
}

func pairs(m map[string]string) string {
	all := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, " ")
}
