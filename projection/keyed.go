package projection

import (
	"context"
	"errors"
	"reflect"
	"runtime/debug"
	"slices"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// foldKeyed folds commits key by key. Keys that are not known are read first, as
// few requests as possible.
func (f *folder) foldKeyed(ctx context.Context, items []item, careful bool) error {
	f.ops = f.ops[:0]
	var unknown []*slot
	for i := range items {
		it := &items[i]
		events, err := f.events(it)
		if err != nil {
			return err
		}
		for j := range events {
			rec := &events[j]
			r := f.core.routeOf(rec.Event)
			if r == nil || f.leave(it.commit.Sequence, rec.EventID) {
				continue
			}
			if r.keys == nil {
				unknown = f.plan(rec.ID, r, rec, it.commit.Sequence, unknown)
				continue
			}
			keys, err := f.keys(r, rec, it.commit.Sequence)
			if err != nil {
				if careful && f.skip {
					f.skipped(err)
					continue
				}
				return err
			}
			for n, key := range keys {
				if !slices.Contains(keys[:n], key) {
					unknown = f.plan(key, r, rec, it.commit.Sequence, unknown)
				}
			}
		}
		f.page.bytes += it.bytes
	}
	if err := f.load(ctx, unknown); err != nil {
		return err
	}
	if careful {
		return f.applyCarefully()
	}
	i, err := f.apply(f.ops)
	if err != nil {
		return f.failure(&f.ops[i], err)
	}
	return nil
}

func (c *core) routeOf(event any) *route { return c.routes[reflect.TypeOf(event)] }

// keys calls the user's key function.
func (f *folder) keys(r *route, rec *jetstream.Recorded, seq uint64) (keys []string, err error) {
	defer func() {
		f.dog.end()
		if v := recover(); v != nil {
			err = f.failure(&op{rec: rec, seq: seq}, &PanicError{Value: v, Stack: string(debug.Stack())})
		}
	}()
	f.dog.begin(rec, nil)
	keys = r.keys(rec.Event, &rec.Meta)
	for _, k := range keys {
		if _, err := encodeKey(k); err != nil {
			return nil, f.failure(&op{rec: rec, seq: seq}, err)
		}
	}
	return keys, nil
}

// plan adds an event for a key. A slot whose base must be read is added to
// unknown.
func (f *folder) plan(key string, r *route, rec *jetstream.Recorded, seq uint64, unknown []*slot) []*slot {
	if f.only != nil {
		if _, ok := f.only[key]; !ok {
			return unknown
		}
	}
	s := f.page.slots[key]
	if s == nil {
		s = &slot{key: key}
		f.page.slots[key] = s
		base, known := f.known(key)
		if known {
			s.base, s.exists = base, base.exists()
		} else {
			unknown = append(unknown, s)
		}
	}
	f.ops = append(f.ops, op{slot: s, r: r, rec: rec, seq: seq})
	return unknown
}

// known is what the updater knows of a key that is not in the page.
func (f *folder) known(key string) (entry, bool) {
	if f.inflight != nil {
		if s := f.inflight.slots[key]; s != nil {
			if s.seq > 0 {
				return entry{data: s.out, seq: s.seq, index: s.index}, true
			}
			return s.base, true
		}
	}
	return f.cache.get(key)
}

// apply folds events in order. It returns the number of the one that failed.
func (f *folder) apply(ops []op) (i int, err error) {
	defer func() {
		f.dog.end()
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
		}
	}()
	for i = range ops {
		o := &ops[i]
		s := o.slot
		if o.seq <= s.base.seq {
			continue // The key reflects it already.
		}
		if s.value == nil {
			s.value = f.core.newValue()
			if s.base.exists() {
				if err := codec.JSON.Decode(s.base.data, s.value); err != nil {
					return i, unfit(err)
				}
				f.page.bytes += len(s.base.data)
			}
		}
		f.dog.begin(o.rec, s)
		if err := o.r.fold(s, o.rec.Event, &o.rec.Meta); err != nil {
			return i, err
		}
		if f.doubt != "" && f.doubt == s.key {
			if err := f.storable(s); err != nil {
				return i, err
			}
		}
		s.exists = !s.gone
		if s.gone {
			s.value, s.gone = f.core.newValue(), false
		}
		if s.seq == 0 {
			f.page.changed = append(f.page.changed, s)
			f.page.bytes += len(s.key) + entryOverhead
		}
		s.seq = o.seq
	}
	return 0, nil
}

// applyCarefully folds events one by one; with skip, those that fail are left out
// and the value is put back.
func (f *folder) applyCarefully() error {
	for i := range f.ops {
		o := &f.ops[i]
		s := o.slot
		var before []byte
		if s.value != nil && f.skip {
			data, err := codec.JSON.Encode(s.value)
			if err != nil {
				return f.failure(o, err)
			}
			before = data
		}
		_, err := f.apply(f.ops[i : i+1])
		if err == nil {
			continue
		}
		failed := f.failure(o, err)
		if !f.skip {
			return failed
		}
		f.skipped(failed)
		s.gone, s.value = false, nil
		if before != nil {
			s.value = f.core.newValue()
			if err := codec.JSON.Decode(before, s.value); err != nil {
				return f.failure(o, err)
			}
		}
	}
	return nil
}

func (f *folder) skipped(err error) {
	f.page.skipped++
	f.log.Error("view leaves an event out", "error", err)
}

func (f *folder) failure(o *op, err error) error {
	if fe, ok := errors.AsType[*FoldError](err); ok {
		return fe
	}
	e := &FoldError{
		View: f.core.view, Event: o.rec.Name, Type: o.rec.Type, ID: o.rec.ID, EventID: o.rec.EventID,
		Sequence: o.seq, Cause: err,
	}
	if o.slot != nil {
		e.Key = o.slot.key
	} else if value, ok := errors.AsType[*ValueError](err); ok {
		e.Key = value.Key
	}
	return e
}
