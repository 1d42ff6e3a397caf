package aggregate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// view is an aggregate as one load found it. It never changes.
type view struct {
	head jetstream.Head
	// state is encoded: each decision decodes a copy of its own.
	state  []byte
	stored time.Time
	// leader tells that the leader was asked after the request arrived.
	leader bool
	// recent is what is remembered for the search of duplicates.
	recent *recent
}

// load returns the aggregate from the cache, else from any replica: whether it is
// the newest is what the append finds out.
func (r *core) load(ctx context.Context, id string) (*view, error) {
	if e := r.cached(id, r.reconnects()); e != nil {
		if v := e.get(); v != nil {
			r.counters.hits.Add(1)
			return v, nil
		}
	}
	r.counters.misses.Add(1)
	return r.loadFresh(ctx, id, jetstream.Replica)
}

func (r *core) reconnects() uint64 {
	if nc := r.store.Conn(); nc != nil {
		return nc.Stats().Reconnects
	}
	return 0
}

// cached is what was remembered of the aggregate while this connection lasted.
func (r *core) cached(id string, reconnects uint64) *entry {
	if e := r.cache.get(id); e != nil && e.reconnects == reconnects {
		return e
	}
	return nil
}

// loadFresh asks the store.
func (r *core) loadFresh(ctx context.Context, id string, from jetstream.Source) (*view, error) {
	reconnects := r.reconnects()
	last, err := r.store.Last(ctx, r.typeName, id, from)
	none := errors.Is(err, jetstream.ErrNotFound)
	if err != nil && !none {
		return nil, err
	}
	e := r.cached(id, reconnects)
	var known *view
	if e != nil {
		known = e.get()
	}
	if from == jetstream.Replica && known != nil && (none || last.Sequence < known.head.Sequence) {
		return known, nil // the replica is behind what this process has seen
	}
	if none {
		return &view{state: r.zero, leader: from == jetstream.Leader, recent: newRecent(r.remember)}, nil
	}
	state, err := r.stateAt(ctx, id, last, known)
	if err != nil {
		return nil, err
	}
	if e == nil {
		e = r.cache.keep(id, newEntry(reconnects, r.remember))
	}
	e.recent.add(last)
	v := &view{head: last.Head, state: state, stored: last.Time, leader: from == jetstream.Leader, recent: e.recent}
	e.set(v)
	r.cache.charge(id, e)
	return v, nil
}

// stateAt is the state after the last commit: the one that travels in it, or the
// events applied to the newest one known.
func (r *core) stateAt(ctx context.Context, id string, last *jetstream.Commit, known *view) ([]byte, error) {
	if known != nil && known.head.CommitID == last.CommitID {
		return known.state, nil
	}
	if data, ok := r.fits(last.State); ok {
		return data, nil
	}
	if last.Version == 0 {
		return r.zero, nil
	}
	data, after := r.zero, uint64(0)
	if known != nil && known.head.Sequence < last.Sequence {
		data, after = known.state, known.head.Sequence
	}
	before := ""
	if after > 0 {
		before = known.head.CommitID
	}
	state, err := r.decodeState(id, data)
	if err != nil {
		return nil, err
	}
	for c, err := range r.store.History(ctx, r.typeName, id, jetstream.Range{After: after, To: last.Sequence}) {
		if err != nil {
			return nil, err
		}
		if before != "" && c.Previous != before {
			// What was remembered is not what is stored before: start anew.
			r.cache.remove(id)
			return r.stateAt(ctx, id, last, nil)
		}
		before = ""
		if data, ok := r.fits(c.State); ok {
			if state, err = r.decodeState(id, data); err != nil {
				return nil, err
			}
			continue
		}
		events, err := r.decoder.Events(r.store, c)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if err := r.apply(state, e.Event, e.Meta); err != nil {
				return nil, err
			}
		}
	}
	return r.store.Codec().Encode(state)
}

// decodeState makes a copy of a state for one use.
func (r *core) decodeState(id string, data []byte) (any, error) {
	state := r.newState()
	if err := r.store.Codec().Decode(data, state); err != nil {
		return nil, fmt.Errorf("%s %q: decode state: %w", r.typeName, id, err)
	}
	return state, nil
}

func (r *core) fits(s *jetstream.State) ([]byte, bool) {
	if s == nil || s.Fingerprint != r.def.fingerprint || s.KeyRef != "" || s.Codec != r.store.Codec() {
		return nil, false
	}
	return s.Data, true
}

// fold applies a decision's events, as readers will decode them, to a copy of the
// state. The events' ids are only their ends, from the first one's number within
// the commit: the commit's id comes with the append.
func (r *core) fold(
	id string, v *view, dec *jetstream.Decision, trace string, first int,
) ([]byte, []jetstream.Recorded, error) {
	if len(dec.Events) == 0 {
		return v.state, nil, nil
	}
	state, err := r.decodeState(id, v.state)
	if err != nil {
		return nil, nil, err
	}
	recorded := make([]jetstream.Recorded, 0, len(dec.Events))
	for i, data := range dec.Events {
		events, err := r.def.schema.Decode(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s %q: event %q does not survive its own encoding: %w", r.typeName, id, data.Name, err)
		}
		for _, e := range events {
			m := jetstream.Meta{
				Type: r.typeName, ID: id, EventID: "." + strconv.Itoa(first+i), Name: data.Name, Version: v.head.Version + uint64(i) + 1,
				Time: dec.Time, Correlation: dec.CorrelationID(), Causation: dec.CausationID(), TraceParent: trace,
				Metadata: maps.Clone(dec.Metadata), // what an Apply does to it is not stored
			}
			if err := r.apply(state, e, m); err != nil {
				return nil, nil, err
			}
			recorded = append(recorded, jetstream.Recorded{Meta: m, Event: e})
		}
	}
	data, err := r.store.Codec().Encode(state)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %q: encode state: %w", r.typeName, id, err)
	}
	return data, recorded, nil
}

// apply lets the state see nothing of where the event is stored, so that a state
// is the same wherever its events are.
func (r *core) apply(state, event any, m jetstream.Meta) (err error) {
	f := r.def.apply[reflect.TypeOf(event)]
	if f == nil {
		return fmt.Errorf("%s %q version %d: no Apply for %T", m.Type, m.ID, m.Version, event)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s %q version %d: Apply of %T panicked: %v\n%s", m.Type, m.ID, m.Version, event, p, debug.Stack())
		}
	}()
	m.EventID, m.Position, m.StoredAt, m.TraceParent = "", jetstream.Position{}, time.Time{}, ""
	f(state, event, m)
	return nil
}

// appended remembers what this process has just stored.
func (r *core) appended(
	id string, v *view, head jetstream.Head, state []byte, decisions []jetstream.Decision, reconnects uint64,
) {
	e := r.cached(id, reconnects)
	if e == nil {
		e = r.cache.keep(id, &entry{reconnects: reconnects, recent: v.recent})
	}
	at := decisions[len(decisions)-1].Time
	e.recent.add(&jetstream.Commit{Head: head, PreviousSequence: v.head.Sequence, Time: at, Decisions: decisions})
	e.set(&view{head: head, state: state, stored: at, recent: e.recent})
	r.cache.charge(id, e)
}
