package console

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// What a page of events may cost.
const (
	// scanMost is how many commits are looked at for one page.
	scanMost = 4096
	// listBytes bounds the data in a page, dataBytes that of one event in it.
	listBytes = 256 << 10
	dataBytes = 8 << 10
)

// event is an event as pages get it.
type event struct {
	// Sequence is that of its commit, Index its place in the commit.
	Sequence uint64 `json:"sequence"`
	Index    int    `json:"index"`
	Type     string `json:"type"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	// Version is the aggregate's with this event, SchemaVersion that of its data.
	Version       uint64    `json:"version"`
	SchemaVersion int       `json:"schemaVersion,omitempty"`
	EventID       string    `json:"eventId"`
	Time          time.Time `json:"time"`
	StoredAt      time.Time `json:"storedAt"`
	CommandID     string    `json:"commandId,omitempty"`
	Correlation   string    `json:"correlation,omitempty"`
	Causation     string    `json:"causation,omitempty"`
	// Subscriber and Step name the reactor's or gateway's effect that it is.
	Subscriber  string            `json:"subscriber,omitempty"`
	Step        string            `json:"step,omitempty"`
	TraceParent string            `json:"traceParent,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	// Data is left out where it is too long for a list, and where it is encrypted.
	Data      json.RawMessage `json:"data,omitempty"`
	Bytes     int             `json:"bytes"`
	Encrypted string          `json:"encrypted,omitempty"`
	// Rejected is the code of a recorded decision against a request; it is no event.
	Rejected string `json:"rejected,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// eventsOf lists a commit's events, the first one first. Data beyond most bytes is
// left out; 0 leaves nothing out.
func eventsOf(c *jetstream.Commit, most int) []event {
	out := make([]event, 0, c.Events())
	version := c.Version - uint64(c.Events()) //nolint:gosec // a length
	for i := range c.Decisions {
		d := &c.Decisions[i]
		for _, data := range d.Events {
			e := decided(c, d)
			version++
			e.Index, e.EventID, e.Version = len(out), c.EventID(len(out)), version
			e.Name, e.Bytes, e.Encrypted = data.Name, len(data.Data), data.KeyRef
			if data.Version > 1 {
				e.SchemaVersion = data.Version
			}
			if data.KeyRef == "" && (most == 0 || len(data.Data) <= most) {
				e.Data = readable(data.Codec, data.Data)
			}
			out = append(out, e)
		}
	}
	return out
}

// decided is what the events of a decision have in common.
func decided(c *jetstream.Commit, d *jetstream.Decision) event {
	e := event{
		Sequence: c.Sequence, Type: c.Type, ID: c.ID, Time: d.Time, StoredAt: c.Time, CommandID: d.CommandID,
		Correlation: d.CorrelationID(), Causation: d.CausationID(), TraceParent: d.TraceParent, Metadata: d.Metadata,
	}
	if d.Kind == jetstream.KindTrigger {
		e.Subscriber, e.Step = d.Trigger.Subscriber, d.Trigger.Step
	}
	return e
}

// readable is stored data as JSON. What is none is a JSON string of the bytes.
func readable(cdc jetstream.Codec, data []byte) json.RawMessage {
	if cdc == jetstream.JSON && json.Valid(data) {
		return data
	}
	var v any = data
	if cdc != jetstream.JSON {
		var decoded any
		if cdc.Decode(data, &decoded) == nil {
			v = decoded
		}
	}
	text, err := json.Marshal(v)
	if err != nil { // a map with keys that JSON has not
		return json.RawMessage(strconv.Quote(base64.StdEncoding.EncodeToString(data)))
	}
	return text
}

// eventFilter is what a list of events is narrowed down to.
type eventFilter struct{ typ, id, name string }

func (f eventFilter) wants(e *event) bool {
	return (f.typ == "" || f.typ == e.Type) && (f.id == "" || f.id == e.ID) && (f.name == "" || f.name == e.Name)
}

// eventPage is a page of events, the newest first.
type eventPage struct {
	Events []event `json:"events"`
	// Before is where the next page begins, 0 at the store's beginning. Searched
	// counts the commits that were looked at.
	Before   uint64 `json:"before,omitempty"`
	Searched int    `json:"searched"`
	Head     uint64 `json:"head"`
}

func (c *Console) getEvents(r *http.Request) (any, error) {
	q := r.URL.Query()
	n, err := limit(r)
	if err != nil {
		return nil, err
	}
	before, err := number("before", q.Get("before"))
	if err != nil {
		return nil, err
	}
	return c.eventsBefore(r.Context(), before, n, eventFilter{q.Get("type"), q.Get("id"), q.Get("name")})
}

// eventsBefore lists events backwards. It looks at a bounded number of commits, so a
// page may be empty though there are more.
func (c *Console) eventsBefore(ctx context.Context, before uint64, most int, f eventFilter) (*eventPage, error) {
	head, err := c.cfg.Store.LastSequence(ctx)
	if err != nil {
		return nil, err
	}
	page := &eventPage{Events: []event{}, Head: head}
	rg := jetstream.Range{Backwards: true}
	commits := c.cfg.Store.Scan
	if f.typ != "" && f.id != "" { // its commits are found without a search
		commits = func(ctx context.Context, _ string, r jetstream.Range) iter.Seq2[*jetstream.Commit, error] {
			return c.cfg.Store.History(ctx, f.typ, f.id, r)
		}
	}
	if before > 0 && before <= head {
		if rg.To = before - 1; rg.To == 0 {
			return page, nil
		}
	}
	size := 0
	for commit, err := range commits(ctx, "", rg) {
		if errors.Is(err, jetstream.ErrIncomplete) && f.id != "" {
			return nil, malformed("before", "%d is not one that a page of this list gave out", before)
		}
		if err != nil {
			return nil, err
		}
		if len(page.Events) >= most || size >= listBytes || page.Searched >= scanMost {
			page.Before = commit.Sequence + 1
			break
		}
		page.Searched++
		events := eventsOf(commit, dataBytes)
		slices.Reverse(events)
		for i := range events {
			if f.wants(&events[i]) && len(page.Events) < pageMax {
				page.Events = append(page.Events, events[i])
				size += len(events[i].Data)
			}
		}
	}
	return page, nil
}

// commitAt is the commit at a sequence. That there is none only the leader can tell.
func (c *Console) commitAt(ctx context.Context, sequence uint64) (*jetstream.Commit, error) {
	nc, stream := c.cfg.Store.Conn(), c.cfg.Store.Name()
	m, err := wire.DirectAt(ctx, nc, stream, max(sequence, 1))
	if errors.Is(err, wire.ErrNotFound) {
		m, err = wire.LeaderAt(ctx, nc, stream, max(sequence, 1))
	}
	switch {
	case err == nil && !strings.HasPrefix(m.Subject, stream+".event._"): // what is Rossby's own is no commit
		return jetstream.Decode(&m)
	case err == nil, errors.Is(err, wire.ErrNotFound):
		return nil, missing("no commit has sequence %d", sequence)
	}
	return nil, err
}

func (c *Console) getEvent(r *http.Request) (any, error) {
	sequence, err := number("sequence", r.PathValue("sequence"))
	if err != nil {
		return nil, err
	}
	commit, err := c.commitAt(r.Context(), sequence)
	if err != nil {
		return nil, err
	}
	subject, _ := c.cfg.Store.Subject(commit.Type, commit.ID)
	return struct {
		Subject string  `json:"subject"`
		Events  []event `json:"events"`
	}{subject, eventsOf(commit, 0)}, nil
}
