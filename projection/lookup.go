package projection

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// Tx is a lookup view while an event is folded into it. It shows the view as it
// is after every event before. A read that NATS fails makes the fold's result
// void: it runs again, and the fold need not look for errors.
type Tx[V any] struct{ state *txState }

// Get returns the value of a key and whether the view holds it.
func (t *Tx[V]) Get(key string) (v V, found bool) {
	data := t.state.get(key)
	if data == nil {
		return v, false
	}
	return decodeTx[V](t.state, key, data)
}

// Put sets the value of a key.
func (t *Tx[V]) Put(key string, v V) {
	data, err := codec.JSON.Encode(v)
	if err != nil {
		t.state.fail(&ValueError{Key: key, Cause: err})
		return
	}
	t.state.set(key, data)
}

// Delete takes a key out of the view.
func (t *Tx[V]) Delete(key string) { t.state.set(key, nil) }

// Prefix yields the keys that begin with prefix, "" for all, sorted, as they are
// when the loop begins; the loop may change them. It reads all of them: keep a
// key that lists what you look for when there are many.
func (t *Tx[V]) Prefix(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		all := t.state.prefix(prefix)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			v, ok := decodeTx[V](t.state, key, all[key])
			if !ok || !yield(key, v) {
				return
			}
		}
	}
}

func decodeTx[V any](t *txState, key string, data []byte) (v V, ok bool) {
	if err := codec.JSON.Decode(data, &v); err != nil {
		t.fail(&ValueError{Key: key, Cause: unfit(err)})
		return v, false
	}
	return v, true
}

// unfit explains a stored value that does not decode.
func unfit(err error) error {
	return fmt.Errorf("the stored value does not fit the definition (raise its Version): %w", err)
}

// txState is a Tx without its value type: the changes of one commit or
// transaction over the page.
type txState struct {
	ctx     context.Context //nolint:containedctx // lives for one fold
	f       *folder
	changes map[string][]byte
	order   []string
	last    *jetstream.Recorded // the event that was folded last
	err     error               // the definition's fault
	infra   error               // the network's
}

func (t *txState) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *txState) get(key string) []byte {
	if t.err != nil || t.infra != nil {
		return nil
	}
	if data, ok := t.changes[key]; ok {
		return data
	}
	if s := t.f.page.slots[key]; s != nil {
		if s.seq > 0 {
			return s.out
		}
		return s.base.data
	}
	if _, err := encodeKey(key); err != nil {
		t.fail(err)
		return nil
	}
	base, known := t.f.known(key)
	s := &slot{key: key, base: base}
	if !known {
		rec := t.f.dog.rec.Load()
		t.f.dog.end() // That takes as long as it takes.
		err := t.f.load(t.ctx, []*slot{s})
		t.f.dog.begin(rec, nil)
		if err != nil {
			t.infra = err
			return nil
		}
	}
	s.exists = s.base.exists()
	t.f.page.slots[key] = s
	t.f.page.bytes += len(key) + len(s.base.data) + entryOverhead
	return s.base.data
}

func (t *txState) set(key string, data []byte) {
	if _, err := encodeKey(key); err != nil {
		t.fail(err)
		return
	}
	if limit := t.f.limit(); limit > 0 && len(data) > limit {
		t.fail(&ValueError{Key: key, Cause: fmt.Errorf("is %d bytes, the server takes %d", len(data), limit)})
		return
	}
	if _, ok := t.changes[key]; !ok {
		t.order = append(t.order, key)
	}
	t.changes[key] = data
}

func (t *txState) prefix(prefix string) map[string][]byte {
	if t.err != nil || t.infra != nil {
		return nil
	}
	out := map[string][]byte{}
	if !t.f.cache.complete {
		rec := t.f.dog.rec.Load()
		t.f.dog.end()
		stored, err := t.f.scan(t.ctx, prefix)
		t.f.dog.begin(rec, nil)
		if err != nil {
			t.infra = err
			return nil
		}
		out = stored
	} else {
		for key, el := range t.f.cache.byKey {
			if e := el.Value.(*cached); e.exists() && strings.HasPrefix(key, prefix) { //nolint:forcetypeassert // only these
				out[key] = e.data
			}
		}
	}
	lay := func(key string, data []byte) {
		switch {
		case !strings.HasPrefix(key, prefix):
		case data == nil:
			delete(out, key)
		default:
			out[key] = data
		}
	}
	for _, p := range []*page{t.f.inflight, t.f.page} {
		if p == nil {
			continue
		}
		for _, s := range p.changed {
			lay(s.key, s.out)
		}
	}
	for key, data := range t.changes {
		lay(key, data)
	}
	return out
}

// foldLookup folds one commit or transaction over the page, and takes its changes
// into the page when they fit.
func (f *folder) foldLookup(ctx context.Context, items []item, careful bool) error {
	t := &txState{ctx: ctx, f: f, changes: map[string][]byte{}}
	var seq uint64
	size, skipped := 0, f.page.skipped
	for i := range items {
		it := &items[i]
		events, err := f.events(it)
		if err != nil {
			return err
		}
		seq = it.commit.Sequence
		size += it.bytes
		for j := range events {
			rec := &events[j]
			r := f.core.routeOf(rec.Event)
			if r == nil || f.leave(it.commit.Sequence, rec.EventID) {
				continue
			}
			if err := t.event(r, rec, seq, careful); err != nil {
				return err
			}
		}
	}
	if err := t.bases(); err != nil {
		return err
	}
	now := make([]slot, len(t.order))
	alone, together := 0, f.page.writes
	for i, key := range t.order {
		s := f.page.slots[key]
		if s != nil {
			now[i] = *s
		}
		if s != nil && s.seq > 0 {
			together -= s.writes()
		}
		n := &now[i]
		n.key, n.out, n.seq, n.exists = key, t.changes[key], seq, t.changes[key] != nil
		if err := f.place(n, t.last); err != nil {
			return f.failure(&op{rec: t.last, seq: seq}, err)
		}
		alone, together = alone+n.writes(), together+n.writes()
		size += len(key) + len(n.out) + indexBytes(n.index) + entryOverhead
	}
	if alone > maxBatchKeys && len(f.page.changed) == 0 {
		last := items[len(items)-1].commit
		return &FoldError{
			View: f.core.view, Event: last.EventNames[0], Type: last.Type, ID: last.ID, Sequence: seq,
			Cause: &TooManyKeysError{Keys: alone, Limit: maxBatchKeys}, final: true,
		}
	}
	if together > maxBatchKeys {
		f.page.skipped = skipped // It is folded again, on the next page.
		return errPageFull
	}
	for i, key := range t.order {
		s := f.page.slots[key]
		if s == nil {
			s = new(slot)
			f.page.slots[key] = s
		}
		if s.seq == 0 {
			f.page.changed = append(f.page.changed, s)
		}
		*s = now[i]
	}
	f.page.bytes += size
	f.page.writes = together
	return nil
}

// event folds one event. Carefully it is left out when it fails, if that is the policy.
func (t *txState) event(r *route, rec *jetstream.Recorded, seq uint64, careful bool) error {
	before, n := maps.Clone(t.changes), len(t.order)
	t.last = rec
	err := t.f.call(t, r, rec)
	if t.infra != nil {
		return t.infra
	}
	if err == nil && careful {
		err = t.storable(before)
	}
	if err == nil {
		return nil
	}
	failed := t.f.failure(&op{rec: rec, seq: seq}, err)
	if !careful || !t.f.skip {
		return failed
	}
	t.f.skipped(failed)
	t.changes, t.order, t.err = before, t.order[:n], nil
	return nil
}

// storable tells whether what an event has changed can be stored.
func (t *txState) storable(before map[string][]byte) error {
	defer t.f.dog.end()
	for _, key := range t.order {
		data := t.changes[key]
		if was, ok := before[key]; ok && bytes.Equal(was, data) {
			continue
		}
		t.f.dog.begin(t.last, &slot{key: key})
		places, err := t.f.core.places(key, data)
		if err != nil {
			return err
		}
		if err := t.f.fits(key, data, places); err != nil {
			return err
		}
	}
	return nil
}

// bases reads what the changed keys were, as an index must know.
func (t *txState) bases() error {
	if len(t.f.core.indexes) == 0 {
		return nil
	}
	var unknown []*slot
	for _, key := range t.order {
		if t.f.page.slots[key] != nil {
			continue
		}
		base, known := t.f.known(key)
		s := &slot{key: key, base: base, exists: base.exists()}
		t.f.page.slots[key] = s
		if !known {
			unknown = append(unknown, s)
		}
	}
	err := t.f.load(t.ctx, unknown)
	if err != nil {
		for _, s := range unknown {
			delete(t.f.page.slots, s.key)
		}
	}
	return err
}

// call runs the user's fold.
func (f *folder) call(t *txState, r *route, rec *jetstream.Recorded) (err error) {
	f.dog.begin(rec, nil)
	defer func() {
		f.dog.end()
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
		}
	}()
	if err := r.tx(t, rec.Event, &rec.Meta); err != nil {
		return err
	}
	return t.err
}
