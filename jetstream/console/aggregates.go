package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// recentAggregate is an aggregate that was written to lately.
type recentAggregate struct {
	Type     string    `json:"type"`
	ID       string    `json:"id"`
	Version  uint64    `json:"version"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
}

// getAggregates lists the aggregates that were written to last, each once.
func (c *Console) getAggregates(r *http.Request) (any, error) {
	n, err := limit(r)
	if err != nil {
		return nil, err
	}
	typ := r.URL.Query().Get("type")
	out := struct {
		Aggregates []recentAggregate `json:"aggregates"`
		Searched   int               `json:"searched"`
	}{Aggregates: []recentAggregate{}}
	seen := map[[2]string]bool{}
	for commit, err := range c.cfg.Store.Scan(r.Context(), "", jetstream.Range{Backwards: true}) {
		if err != nil {
			return nil, err
		}
		if len(out.Aggregates) >= n || out.Searched >= scanMost {
			break
		}
		out.Searched++
		key := [2]string{commit.Type, commit.ID}
		if seen[key] || typ != "" && typ != commit.Type {
			continue
		}
		seen[key] = true
		out.Aggregates = append(out.Aggregates, recentAggregate{
			Type: commit.Type, ID: commit.ID, Version: commit.Version, Sequence: commit.Sequence, Time: commit.Time,
		})
	}
	return out, nil
}

// history is a page of an aggregate's events, the newest first.
type history struct {
	Type    string  `json:"type"`
	ID      string  `json:"id"`
	Version uint64  `json:"version"`
	Commits uint64  `json:"commits"`
	Subject string  `json:"subject"`
	Events  []event `json:"events"`
	// Before is the version that the next page begins before, 0 at the beginning.
	Before uint64 `json:"before,omitempty"`
	// States tells that the state of every version can be had.
	States bool `json:"states"`
}

func (c *Console) getAggregate(r *http.Request) (any, error) {
	n, err := limit(r)
	if err != nil {
		return nil, err
	}
	before, err := number("before", r.URL.Query().Get("before"))
	if err != nil {
		return nil, err
	}
	return c.history(r.Context(), r.PathValue("type"), r.PathValue("id"), before, n)
}

func (c *Console) history(ctx context.Context, typ, id string, before uint64, most int) (*history, error) {
	last, err := c.cfg.Store.Last(ctx, typ, id, jetstream.Leader)
	if err != nil {
		return nil, err
	}
	_, known := c.states[typ]
	h := &history{
		Type: typ, ID: id, Version: last.Version, Commits: last.Ordinal, Events: []event{}, States: known,
	}
	h.Subject, _ = c.cfg.Store.Subject(typ, id)
	rg := jetstream.Range{Backwards: true}
	if before > 0 && before <= last.Version {
		if rg.UpToVersion = before - 1; rg.UpToVersion == 0 {
			return h, nil
		}
	}
	size := 0
	for commit, err := range c.cfg.Store.History(ctx, typ, id, rg) {
		if err != nil {
			return nil, err
		}
		events := eventsOf(commit, dataBytes)
		slices.Reverse(events)
		for i := range events {
			e := &events[i]
			if rg.UpToVersion > 0 && e.Version > rg.UpToVersion {
				continue
			}
			if len(h.Events) >= most || size >= listBytes {
				h.Before = e.Version + 1
				return h, nil
			}
			h.Events = append(h.Events, *e)
			size += len(e.Data)
		}
	}
	return h, nil
}

// Where a state comes from.
const (
	stateReplayed = "replayed"
	stateStored   = "stored"
	stateNone     = "none"
)

// version is an aggregate after one of its events.
type version struct {
	Version uint64 `json:"version"`
	// Event is the event that led to it, State what it led to, Before what was there
	// before.
	Event  *event          `json:"event,omitempty"`
	State  json.RawMessage `json:"state"`
	Before json.RawMessage `json:"before"`
	// Source is "replayed" by the program's own code, "stored" in the commit, or
	// "none": the application has not given the console the means.
	Source string `json:"source"`
}

func (c *Console) getVersion(r *http.Request) (any, error) {
	n, err := number("version", r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	typ, id := r.PathValue("type"), r.PathValue("id")
	if n == 0 {
		return nil, malformed("version", "the first version is 1")
	}
	commit, err := c.commitOf(r.Context(), typ, id, n)
	if err != nil {
		return nil, err
	}
	v := &version{Version: n, Source: stateNone}
	for _, e := range eventsOf(commit, 0) {
		if e.Version == n {
			v.Event = &e
		}
	}
	if s, known := c.states[typ]; known {
		v.Source = stateReplayed
		if v.State, err = stateAt(r.Context(), s, id, n); err == nil && n > 1 {
			v.Before, err = stateAt(r.Context(), s, id, n-1)
		}
		return v, err
	}
	return v, c.storedState(r.Context(), v, commit)
}

func stateAt(ctx context.Context, s State, id string, n uint64) (json.RawMessage, error) {
	state, err := s.at(ctx, id, n)
	if err != nil {
		return nil, err
	}
	return json.Marshal(state)
}

// storedState takes the states that travel in the commits: that of the commit's last
// event, and that before its first.
func (c *Console) storedState(ctx context.Context, v *version, commit *jetstream.Commit) error {
	if s := commit.State; s != nil && s.KeyRef == "" && commit.Version == v.Version {
		v.State, v.Source = readable(s.Codec, s.Data), stateStored
	}
	if v.Version != commit.Version-uint64(commit.Events())+1 || commit.PreviousSequence == 0 { //nolint:gosec // a length
		return nil
	}
	before, err := c.cfg.Store.At(ctx, commit.Type, commit.ID, commit.PreviousSequence)
	if err == nil && before.State != nil && before.State.KeyRef == "" {
		v.Before = readable(before.State.Codec, before.State.Data)
	}
	return err
}

// commitOf is the commit that holds the event of a version.
func (c *Console) commitOf(ctx context.Context, typ, id string, n uint64) (*jetstream.Commit, error) {
	last, err := c.cfg.Store.Last(ctx, typ, id, jetstream.Leader)
	if err != nil {
		return nil, err
	}
	if n > last.Version {
		return nil, missing("%s %q has version %d, not %d", typ, clip(id), last.Version, n)
	}
	rg := jetstream.Range{AfterVersion: n - 1, UpToVersion: n}
	for commit, err := range c.cfg.Store.History(ctx, typ, id, rg) {
		return commit, err
	}
	return nil, missing("%s %q has no version %d", typ, clip(id), n)
}

// madeBy lists the newest events of the aggregates with an id, whatever their type,
// the newest first: what a view's entry under that key is mostly made of.
func (c *Console) madeBy(ctx context.Context, id string, types []string, most int) ([]event, error) {
	out := []event{}
	if err := jetstream.ValidateID(id); err != nil {
		return out, nil //nolint:nilerr // a key that is no aggregate's
	}
	for _, typ := range types {
		h, err := c.history(ctx, typ, id, 0, most)
		if errors.Is(err, jetstream.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, h.Events...)
	}
	return out, nil
}
