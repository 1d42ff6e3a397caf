package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// How views are looked at.
const (
	bucketsFor  = 10 * time.Second
	bucketsMost = 5000
	// madeOf is how many events stand beside an entry.
	madeOf = 20
	// differencesMost and compareKeys bound a comparison.
	differencesMost = 20
	compareKeys     = 2000
)

// views are the store's views.
func (c *Console) views(ctx context.Context) ([]string, error) {
	if len(c.cfg.Views) > 0 {
		return c.cfg.Views, nil
	}
	return c.buckets.get(ctx, bucketsFor, func(ctx context.Context) ([]string, error) {
		prefix := "KV_" + c.cfg.Store.Name() + "_"
		names, found := c.js.StreamNames(ctx, natsjs.WithStreamListSubject("$KV.*.>")), []string{}
		n := 0
		for name := range names.Name() {
			view, ours := strings.CutPrefix(name, prefix)
			if ours && !strings.HasPrefix(view, "_") {
				found = append(found, view)
			}
			if n++; n == bucketsMost {
				break
			}
		}
		slices.Sort(found)
		return found, names.Err()
	})
}

// viewStatus is a view as pages get it. Positions are stream sequences.
type viewStatus struct {
	Name        string  `json:"name"`
	State       string  `json:"state"`
	Owner       string  `json:"owner,omitempty"`
	Generation  int     `json:"generation"`
	Version     int     `json:"version"`
	Position    uint64  `json:"position"`
	Head        uint64  `json:"head"`
	Lag         uint64  `json:"lag"`
	LagSeconds  float64 `json:"lagSeconds"`
	Rate        float64 `json:"rate"`
	Paused      string  `json:"paused,omitempty"`
	Error       string  `json:"error,omitempty"`
	Building    int     `json:"building,omitempty"`
	BuiltTo     uint64  `json:"builtTo,omitempty"`
	Skipped     uint64  `json:"skipped,omitempty"`
	PauseReason string  `json:"pauseReason,omitempty"`
}

func (c *Console) viewStatus(ctx context.Context, name string) (viewStatus, error) {
	s, err := projection.ReadStatus(ctx, c.cfg.Store.Conn(), c.cfg.Store.Name(), name)
	if err != nil {
		return viewStatus{Name: name, State: "unknown", Error: err.Error()}, err
	}
	v := viewStatus{
		Name: name, State: string(s.State), Owner: s.Owner, Generation: s.Generation, Version: s.Version,
		Position: c.sequence(s.Position), Head: c.sequence(s.Head), Lag: s.Lag, LagSeconds: s.Behind.Seconds(),
		Rate: s.Rate, Error: s.Error, Building: s.Building, BuiltTo: c.sequence(s.BuildPosition), Skipped: s.Skipped,
	}
	if s.Pause != nil {
		v.Paused, v.PauseReason = s.Pause.Time.Format(time.RFC3339), s.Pause.Reason
	}
	return v, nil
}

// sequence is 0 for a position that is not one of the store.
func (c *Console) sequence(p jetstream.Position) uint64 {
	seq, _ := c.cfg.Store.Sequence(p)
	return seq
}

// generation is one build of a view.
type generation struct {
	Number   int       `json:"number"`
	Version  int       `json:"version"`
	Live     bool      `json:"live"`
	Building bool      `json:"building"`
	Auto     bool      `json:"auto"`
	CaughtUp bool      `json:"caughtUp"`
	State    string    `json:"state"`
	Owner    string    `json:"owner,omitempty"`
	Error    string    `json:"error,omitempty"`
	Position uint64    `json:"position"`
	Lag      uint64    `json:"lag"`
	Done     float64   `json:"done"`
	Rate     float64   `json:"rate"`
	Left     float64   `json:"leftSeconds"`
	Made     time.Time `json:"made"`
}

func (c *Console) getView(r *http.Request) (any, error) {
	admin, err := c.admin(r)
	if err != nil {
		return nil, err
	}
	gens, err := admin.Generations(r.Context())
	if err != nil {
		return nil, err
	}
	s, err := c.viewStatus(r.Context(), r.PathValue("view"))
	if err != nil {
		return nil, err
	}
	out := struct {
		viewStatus

		Generations []generation `json:"generations"`
	}{s, []generation{}}
	for i := range gens {
		g := &gens[i]
		out.Generations = append(out.Generations, generation{
			Number: g.Number, Version: g.Version, Live: g.Live, Building: g.Building, Auto: g.Auto, CaughtUp: g.CaughtUp(),
			State: string(g.State), Owner: g.Owner, Error: g.Error, Position: c.sequence(g.Position), Lag: g.Lag,
			Done: g.Done, Rate: g.Rate, Left: g.Left.Seconds(), Made: g.Made,
		})
	}
	return out, nil
}

func (c *Console) admin(r *http.Request) (*projection.Admin, error) {
	return projection.NewAdmin(c.cfg.Store.Conn(), c.cfg.Store.Name(), r.PathValue("view"))
}

// viewOrder is what a page asks of a view.
type viewOrder struct {
	Reason     string `json:"reason"`
	Generation int    `json:"generation"`
	// Other is what Generation is compared with.
	Other int `json:"other"`
	// Switch lets a rebuilt generation go live by itself.
	Switch bool `json:"switch"`
}

func (c *Console) postView(r *http.Request) (any, error) {
	var o viewOrder
	if err := readBody(r, &o); err != nil {
		return nil, err
	}
	admin, err := c.admin(r)
	if err != nil {
		return nil, err
	}
	view, do := r.PathValue("view"), r.PathValue("do")
	if err := c.allow(r, do, view); err != nil {
		return nil, err
	}
	out := struct {
		Generation int `json:"generation,omitempty"`
	}{o.Generation}
	ctx := r.Context()
	switch do {
	case ActionPause:
		err = admin.Pause(ctx, cmp.Or(o.Reason, "by "+c.by(r)))
	case ActionResume:
		err = admin.Resume(ctx)
	case ActionRebuild:
		out.Generation, err = admin.Rebuild(ctx, projection.RebuildOptions{Switch: o.Switch})
	case ActionSwitch:
		err = admin.Switch(ctx, o.Generation)
	case ActionRollback:
		out.Generation, err = admin.Rollback(ctx)
	case ActionRemove:
		err = admin.Remove(ctx, o.Generation)
	case ActionCompare:
		return compare(ctx, admin, o)
	default:
		return nil, missing("a view takes pause, resume, rebuild, compare, switch, rollback and remove, not %q", clip(do))
	}
	return out, err
}

// comparison is what comparing two generations found. Cut tells that there is more.
type comparison struct {
	Keys        int          `json:"keys"`
	Differences []difference `json:"differences"`
	Cut         bool         `json:"cut"`
}

type difference struct {
	Key string          `json:"key"`
	A   json.RawMessage `json:"a"`
	B   json.RawMessage `json:"b"`
}

// compare stops when it has seen enough, or enough time is over.
func compare(ctx context.Context, admin *projection.Admin, o viewOrder) (*comparison, error) {
	out := &comparison{Differences: []difference{}}
	var counts projection.Compared
	limited, cancel := context.WithTimeout(ctx, requestTimeout/2)
	defer cancel()
	for d, err := range admin.Compare(limited, o.Generation, o.Other, projection.CompareOptions{}, &counts) {
		out.Keys = counts.Keys
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				out.Cut = true
				return out, nil
			}
			return nil, err
		}
		if len(out.Differences) == differencesMost {
			out.Cut = true
			return out, nil
		}
		out.Differences = append(out.Differences, difference{d.Key, short(d.A), short(d.B)})
	}
	out.Keys = counts.Keys
	return out, nil
}

// short leaves out values that are too long for a list.
func short(value []byte) json.RawMessage {
	if len(value) > dataBytes || !json.Valid(value) {
		return nil
	}
	return value
}

// entry is an entry of a view. Value is left out of lists where it is long.
type entry struct {
	Key        string          `json:"key"`
	Value      json.RawMessage `json:"value,omitempty"`
	Bytes      int             `json:"bytes"`
	Sequence   uint64          `json:"sequence"`
	Revision   uint64          `json:"revision"`
	Generation int             `json:"generation"`
	Time       time.Time       `json:"time"`
	Position   uint64          `json:"position"`
}

func (c *Console) entry(e *projection.Entry[json.RawMessage], most int) entry {
	out := entry{
		Key: e.Key, Bytes: len(e.Value), Sequence: e.Sequence, Revision: e.Revision, Generation: e.Generation,
		Time: e.Time, Position: c.sequence(e.Position),
	}
	if most == 0 || len(e.Value) <= most {
		out.Value = e.Value
	}
	return out
}

func (c *Console) reader(r *http.Request) (*projection.Reader[json.RawMessage], error) {
	store := c.cfg.Store
	return projection.NewReader[json.RawMessage](r.Context(), store.Conn(), store.Name(), r.PathValue("view"),
		projection.ReaderConfig{OpenWait: time.Millisecond}) // what is not there is told at once
}

func (c *Console) getEntries(r *http.Request) (any, error) {
	n, err := limit(r)
	if err != nil {
		return nil, err
	}
	reader, err := c.reader(r)
	if err != nil {
		return nil, err
	}
	out := struct {
		Entries []entry `json:"entries"`
		// After is where the next page begins, "" at the end.
		After string `json:"after,omitempty"`
	}{Entries: []entry{}}
	q, size := r.URL.Query(), 0
	options := projection.ListOptions{Prefix: q.Get("prefix"), After: q.Get("after"), Limit: n + 1}
	token := ""
	for e, err := range reader.List(r.Context(), options) {
		if err != nil {
			return nil, err
		}
		if len(out.Entries) == n || size >= listBytes {
			out.After = token
			break
		}
		out.Entries = append(out.Entries, c.entry(&e, dataBytes))
		size += len(out.Entries[len(out.Entries)-1].Value)
		token = e.Token()
	}
	return out, nil
}

// getEntry gives an entry beside the events that made it: those of the aggregates
// that have its key for an id, and the one that changed it last.
func (c *Console) getEntry(r *http.Request) (any, error) {
	reader, err := c.reader(r)
	if err != nil {
		return nil, err
	}
	key := r.URL.Query().Get("key")
	e, err := reader.Get(r.Context(), key)
	if err != nil {
		return nil, err
	}
	types, err := c.types(r.Context())
	if err != nil {
		return nil, err
	}
	events, err := c.madeBy(r.Context(), key, types, madeOf)
	if err != nil {
		return nil, err
	}
	if last, err := c.commitAt(r.Context(), e.Sequence); err == nil && last.ID != key {
		events = append(events, eventsOf(last, dataBytes)...)
	}
	slices.SortFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), cmp.Compare(b.Index, a.Index))
	})
	return struct {
		entry

		Events []event `json:"events"`
	}{c.entry(&e, 0), events[:min(len(events), madeOf)]}, nil
}

// types are the aggregate types that are known: by their services, and by what was
// written last.
func (c *Console) types(ctx context.Context) ([]string, error) {
	services, err := c.commands(ctx, false)
	if err != nil {
		return nil, err
	}
	names, err := c.typeNames.get(ctx, bucketsFor, c.findTypes)
	if err != nil {
		return nil, err
	}
	names = slices.Clone(names)
	for _, t := range services {
		names = append(names, t.Type)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// findTypes are those of the states and of what was written last.
func (c *Console) findTypes(ctx context.Context) ([]string, error) {
	names := make([]string, 0, len(c.states)+pageDefault)
	for name := range c.states {
		names = append(names, name)
	}
	page, err := c.eventsBefore(ctx, 0, pageDefault, eventFilter{})
	if err != nil {
		return nil, err
	}
	for i := range page.Events {
		names = append(names, page.Events[i].Type)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
