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

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/jetstream"
)

// view is an aggregate as one load found it. It never changes.
type view struct {
	head jetstream.Head
	// state is encoded: each decision decodes a copy of its own.
	state []byte
	// kept is the ordinal of the newest commit, up to head's, whose state others can
	// load.
	kept   uint64
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
	if mutate.On(mutate.StaleLoad) {
		from = jetstream.Replica
	}
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
		return &view{state: r.zero, leader: from == jetstream.Leader, recent: newRecent(r.cfg.CacheBytes)}, nil
	}
	b, err := r.stateAt(ctx, id, last, known, from)
	if errors.Is(err, errBehind) {
		return r.loadFresh(ctx, id, jetstream.Leader)
	}
	if err != nil {
		return nil, err
	}
	r.keepState(id, &b) //nolint:contextcheck // it does not wait, and outlives the request
	if e == nil {
		e = r.cache.keep(id, newEntry(reconnects, r.cfg.CacheBytes))
	}
	e.recent.add(last)
	v := &view{
		head: last.Head, state: b.data, kept: b.kept, stored: last.Time, leader: from == jetstream.Leader, recent: e.recent,
	}
	e.set(v)
	r.cache.charge(id, e)
	return v, nil
}

// loadSince asks the leader for what it has at a sequence or later. A replica cannot prove
// that it has seen the sequence. The leader can, but may itself be a moment behind a
// replica, from which somebody has read the sequence.
func (r *core) loadSince(ctx context.Context, id string, least uint64) (*view, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, jetstream.AppendTimeoutDefault)
		defer cancel()
	}
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		end, err := r.store.LastSequence(ctx)
		if err != nil {
			return nil, err
		}
		v, err := r.loadFresh(ctx, id, jetstream.Leader)
		if err != nil || end >= least || v.head.Sequence >= least {
			return v, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%w: the store's leader is at sequence %d, not at %d: %w",
				jetstream.ErrUnavailable, end, least, context.Cause(ctx))
		}
	}
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
				Type: r.typeName, ID: id, EventID: "." + strconv.Itoa(first+i), Name: data.Name,
				Version: v.head.Version + uint64(i) + 1, Time: dec.Time, Correlation: dec.CorrelationID(),
				Causation: dec.CausationID(), TraceParent: trace,
				Metadata: maps.Clone(dec.Metadata), // what an Apply does to it is not stored
			}
			if err := r.apply(state, e, m); err != nil {
				return nil, nil, err
			}
			recorded = append(recorded, jetstream.Recorded{Meta: m, Event: e})
		}
	}
	data, err := r.encodeState(id, state)
	return data, recorded, err
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
	b := base{state, head, v.kept}
	if r.travels(state) && !r.bulky(state) {
		b.kept = head.Ordinal
	}
	r.keepState(id, &b)
	e.set(&view{head: head, state: state, kept: b.kept, stored: at, recent: e.recent})
	r.cache.charge(id, e)
}
