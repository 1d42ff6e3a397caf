package projection

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

// last folds what came since, and returns what the bucket holds. The values are to
// hold every event that the bucket's may: keys can be ahead of the position when a
// large page was not finished.
func (u *Updater) last(ctx context.Context, o *ownership, fl *flusher, r *refold) (map[string]base, error) {
	bucket := &folder{core: u.core, b: u.b, gen: o.gen, epoch: o.cp.Epoch, rev: fl.shared}
	slots := make([]*slot, len(r.keys))
	for i, key := range r.keys {
		slots[i] = &slot{key: key}
	}
	if err := bucket.load(ctx, slots); err != nil {
		return nil, err
	}
	to := o.cp.Position
	bases := make(map[string]base, len(slots))
	for _, s := range slots {
		bases[s.key] = base{entry: s.base}
		to = max(to, s.base.seq)
	}
	if err := bucket.entries(ctx, bases); err != nil {
		return nil, err
	}
	if to > o.cp.Position {
		// Whoever wrote into the bucket may have written any number.
		head, err := u.store.LastSequence(ctx)
		if err != nil {
			return nil, err
		}
		to = max(o.cp.Position, min(to, head))
	}
	return bases, r.advance(ctx, u, to)
}

// mend stores the keys that the bucket does not hold as they must be.
func (u *Updater) mend(ctx context.Context, fl *flusher, r *refold, bases map[string]base) (int, error) {
	p := &page{pos: fl.cp.Position, last: fl.cp.Last}
	changed := 0
	for _, key := range r.keys {
		s := r.fo.page.slots[key]
		if s == nil {
			s = &slot{key: key} // All of its events are left out.
		}
		if err := r.fo.encode(s); err != nil {
			return 0, err
		}
		base := bases[key]
		s.base.index = base.found
		if err := r.fo.place(s, &r.fo.dog.some); err != nil {
			return 0, err
		}
		s.lost = append(s.lost, without(without(base.index, base.found), s.index)...)
		same := s.exists == base.exists() && string(s.out) == string(base.data) &&
			!s.moves() && slices.Equal(s.index, base.index)
		// The sequence must not say more than the value holds, nor less where events
		// after the position are in it already.
		ahead := s.seq > fl.cp.Position && base.seq < s.seq
		if same && base.seq <= max(s.seq, fl.cp.Position) && !ahead {
			continue
		}
		s.seq = max(s.seq, 1)
		changed++
		for len(s.lost) > maxPlaces { // More than one batch can take out.
			some := *s
			some.gained, some.lost, s.lost = nil, s.lost[:maxPlaces], s.lost[maxPlaces:]
			p.changed = append(p.changed, &some)
		}
		p.changed = append(p.changed, s)
	}
	if changed == 0 {
		return 0, nil
	}
	return changed, fl.write(ctx, ctx, p)
}

// base is what the bucket holds of a key: the value, and the index values whose
// entries were found.
type base struct {
	entry

	found []string
}

// entries looks for the index entries of keys: what a key's message says of them
// may be as wrong as the rest of it.
func (f *folder) entries(ctx context.Context, bases map[string]base) error {
	if len(f.core.indexes) == 0 {
		return nil
	}
	parts := map[string]struct{}{}
	for key := range bases {
		parts[partOf(key)] = struct{}{}
	}
	prefix := f.b.indexPrefix(f.gen)
	for part := range parts {
		messages, err := f.part(ctx, prefix+"*."+part+".>")
		if err != nil {
			return err
		}
		for _, m := range messages {
			name, rest, _ := strings.Cut(strings.TrimPrefix(m.Subject, prefix), ".")
			h, ok := hitOf(rest)
			b, mine := bases[h.key]
			if !ok || !mine || deleted(m) {
				continue
			}
			if stored, err := encodeKey(h.value); err == nil {
				b.found = append(b.found, name+"."+stored)
				bases[h.key] = b
			}
		}
	}
	for key, b := range bases {
		slices.Sort(b.found)
		bases[key] = b
	}
	return nil
}

// part reads a part of the indexes, not older than what the owner has written.
func (f *folder) part(ctx context.Context, filter string) (map[string]*wire.Message, error) {
	for wait := newBackoff(time.Millisecond, 500*time.Millisecond); ; {
		floor := f.rev.Load()
		snap, err := f.b.read(ctx, f.gen, []string{filter})
		if err == nil && snap.checkpoint != nil && snap.revision >= floor {
			return snap.messages, nil
		}
		if errors.Is(err, wire.ErrTooMany) {
			return f.largePart(ctx, filter)
		}
		if err := errors.Join(wait.next(ctx), closedError(f.b.nc)); err != nil {
			return nil, err
		}
	}
}

// largePart reads what no single answer can hold.
func (f *folder) largePart(ctx context.Context, filter string) (map[string]*wire.Message, error) {
	out := map[string]*wire.Message{}
	for some, err := range f.b.every(ctx, filter, scanKeys) {
		if err != nil {
			return nil, err
		}
		for i := range some {
			out[some[i].Subject] = &some[i]
		}
	}
	return out, nil
}
