package projection

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// partsRead is the number of entries that a request for several parts aims at.
const partsRead = 800

// maxMatches bounds the matches of a search that must be sorted before the first is
// yielded.
const maxMatches = 500_000

// findKeys is the number of values that a search reads in one snapshot.
const findKeys = 1000

// FindOptions say what [Reader.Find] looks for. What is set must hold together;
// the zero value finds every entry of the index.
type FindOptions struct {
	// Value is what the index value must be.
	Value string
	// Prefix is what it must begin with. A prefix that ends with a dot, or a part of
	// one up to its last dot, is narrowed down by the server.
	Prefix string
	// From and Before bound it: From and what sorts after it, but before Before. What
	// both begin with, up to its last dot, is narrowed down by the server.
	From, Before string
	// Reverse yields the last index value first.
	Reverse bool
	// After is the [Entry.Token] to go on after.
	After string
	// Limit bounds the number of entries. Defaults to 0, no bound.
	Limit int
	// AtLeast is a position that the view must have reached.
	AtLeast jetstream.Position
}

// Find yields the entries that an index of the view leads to, in the order of
// their index values, byte by byte; those with the same value come in some order
// that stays the same. An entry that has several index values comes once for each:
// [Entry.Indexed]. A search goes on after an entry with its [Entry.Token], also in
// another process or after a rebuild.
//
// Where what matches and what is yielded are together at most 1000, the answer is
// one snapshot: what the index held at one moment, with the values of that
// moment. It costs two requests. Beyond, values are read 1000 at a time, each time
// in one snapshot, and every value yielded has, in its snapshot, the index value
// that it was found by. An entry that matches all the time is neither missed nor
// repeated; one that changes meanwhile may be.
//
// A search reads everything that matches, though not the values, before it yields
// the first entry, unless Value is set: keep the options narrow. Without Value it can
// read 500,000 matches.
//
// Errors are those of [Reader.Get] but for [ErrNotFound]; [ErrIndex];
// [ErrTooManyMatches]; and a jetstream.InvalidError for a token that no search gave
// out.
func (r *Reader[V]) Find(ctx context.Context, index string, o FindOptions) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		s := search[V]{r: r, index: index, o: o, yield: yield, left: o.Limit}
		err := s.begin()
		if err == nil {
			var all bool
			if all, err = s.small(ctx); err == nil && !all {
				err = s.large(ctx)
			}
		}
		if err != nil && !s.done {
			yield(Entry[V]{}, fmt.Errorf("view %q, index %q: %w", r.b.view, index, err))
		}
	}
}

// search is the state of one Find.
type search[V any] struct {
	r     *Reader[V]
	index string
	o     FindOptions
	yield func(Entry[V], error) bool
	// filters cover what is looked for, without what stands before.
	filters []string
	after   *hit
	left    int // of the limit
	done    bool
}

// begin checks the options.
func (s *search[V]) begin() error {
	if err := jetstream.ValidateName("index name", s.index); err != nil {
		return err
	}
	if s.o.After != "" {
		h, err := parseFindToken(s.o.After)
		if err != nil {
			return err
		}
		s.after = &h
	}
	if s.o.Limit < 0 {
		return &jetstream.InvalidError{Field: "limit", Value: strconv.Itoa(s.o.Limit), Reason: "is negative"}
	}
	if s.o.Value != "" {
		stored, err := encodeKey(s.o.Value)
		if err != nil {
			return asIndexValue(err)
		}
		s.filters = []string{stored + ".=.>"}
		return nil
	}
	prefix := s.o.Prefix
	if both := common(s.o.From, s.o.Before); len(both) > len(prefix) {
		prefix = both
	}
	s.filters = prefixFilters(prefix)
	for i, f := range s.filters {
		if !strings.HasSuffix(f, ">") {
			s.filters[i] = f + ".=.>"
		}
	}
	return nil
}

// common is what both texts begin with.
func common(a, b string) string {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// matches tells whether an index value is looked for.
func (o *FindOptions) matches(value string) bool {
	return (o.Value == "" || value == o.Value) && strings.HasPrefix(value, o.Prefix) && value >= o.From &&
		(o.Before == "" || value < o.Before)
}

// compare orders entries as they are yielded.
func (o *FindOptions) compare(a, b hit) int {
	n := cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.part, b.part), cmp.Compare(a.key, b.key))
	if o.Reverse {
		return -n
	}
	return n
}

// subjects are those of a part of the index, "*.*" for all of it.
func (s *search[V]) subjects(gen int, part string) []string {
	out := make([]string, len(s.filters))
	for i, f := range s.filters {
		out[i] = s.r.b.indexPrefix(gen) + s.index + "." + part + "." + f
	}
	return out
}

// documents are the subjects of the entries' keys, each once.
func (s *search[V]) documents(gen int, hits []hit) []string {
	out := make([]string, 0, len(hits))
	seen := make(map[string]bool, len(hits))
	for _, h := range hits {
		stored, err := encodeKey(h.key)
		if err == nil && !seen[stored] {
			seen[stored] = true
			out = append(out, s.r.b.keyPrefix(gen)+stored)
		}
	}
	return out
}

// has makes sure that the generation of a snapshot has the index.
func (s *search[V]) has(gen int, snap *snapshot) error {
	var has []string
	if g := snap.pointer.find(gen); g != nil {
		has = g.Indexes
	}
	if !slices.Contains(has, s.index) {
		return fmt.Errorf("%w: generation %d has %q", ErrIndex, gen, has)
	}
	return nil
}

// hits are the entries in a snapshot that are looked for, sorted.
func (s *search[V]) hits(gen int, snap *snapshot) ([]hit, error) {
	if err := s.has(gen, snap); err != nil {
		return nil, err
	}
	prefix := s.r.b.indexPrefix(gen) + s.index + "."
	var out []hit
	for subject, m := range snap.messages {
		rest, ok := strings.CutPrefix(subject, prefix)
		if !ok || deleted(m) {
			continue
		}
		h, ok := hitOf(rest)
		if ok && s.o.matches(h.value) && (s.after == nil || s.o.compare(h, *s.after) > 0) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, s.o.compare)
	return out, nil
}

// page are the first entries of those found that are to be yielded together.
func (s *search[V]) page(hits []hit) []hit {
	n := min(len(hits), findKeys)
	if s.o.Limit > 0 {
		n = min(n, s.left)
	}
	return hits[:n]
}

// small answers from one snapshot; all is false when that cannot hold the answer.
// The keys that the index leads to are asked for together with the index, until
// both agree.
func (s *search[V]) small(ctx context.Context) (all bool, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.r.cfg.Wait)
		defer cancel()
	}
	var docs []hit
	for {
		gen, snap, err := s.r.snapshot(ctx, readOptions{atLeast: s.o.AtLeast}, func(gen int) []string {
			return append(s.subjects(gen, "*.*"), s.documents(gen, docs)...)
		})
		if errors.Is(err, wire.ErrTooMany) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		hits, err := s.hits(gen, snap)
		if err != nil {
			return false, err
		}
		page := s.page(hits)
		if within(page, docs) && (len(page) == len(hits) || len(page) == s.o.Limit) {
			s.r.served(snap, nil)
			return true, s.emit(gen, snap, page)
		}
		if len(snap.messages)-len(docs)+len(page) > maxSnapshotKeys {
			return false, nil
		}
		docs = page
	}
}

// within tells whether all keys of a are keys of b.
func within(a, b []hit) bool {
	keys := make(map[string]bool, len(b))
	for _, h := range b {
		keys[h.key] = true
	}
	return !slices.ContainsFunc(a, func(h hit) bool { return !keys[h.key] })
}

// large answers from as many snapshots as it takes: the index in parts, each small
// enough for one, then the values.
func (s *search[V]) large(ctx context.Context) error {
	var found []hit
	n := 1
	for parts := []string{"*.*"}; len(parts) > 0; {
		n = min(n, len(parts))
		hits, read, err := s.parts(ctx, parts[:n])
		if errors.Is(err, wire.ErrTooMany) && n > 1 {
			n = (n + 1) / 2
			continue
		}
		if errors.Is(err, wire.ErrTooMany) {
			if finer := s.finer(parts[0]); finer != nil {
				parts = append(finer, parts[1:]...)
				continue
			}
			hits, err = s.part(ctx, parts[0])
			read = partsRead
		}
		if err != nil {
			return err
		}
		parts = parts[n:]
		// Parts are about the same size: as many as fit are read next.
		n = max(n*partsRead/max(read, n), 1)
		if s.o.Value == "" {
			if found = append(found, hits...); len(found) > s.r.matches {
				return fmt.Errorf("%w: more than %d: narrow it down", ErrTooManyMatches, s.r.matches)
			}
			continue
		}
		// With one index value the parts come one after the other.
		if err := s.resolve(ctx, hits); err != nil || s.done {
			return err
		}
	}
	slices.SortFunc(found, s.o.compare)
	return s.resolve(ctx, found)
}

// finer are the parts of a part, in the order of what is yielded, nil when there
// are none.
func (s *search[V]) finer(part string) []string {
	before, behind, ok := strings.Cut(part, "*")
	if !ok {
		return nil
	}
	out := make([]string, 0, len(partDigits))
	for _, d := range partDigits {
		out = append(out, before+string(d)+behind)
	}
	if s.o.Reverse {
		slices.Reverse(out)
	}
	return out
}

// parts are the entries of some parts of the index; read is how many messages that
// took.
func (s *search[V]) parts(ctx context.Context, parts []string) (hits []hit, read int, err error) {
	gen, snap, err := s.r.snapshot(ctx, readOptions{atLeast: s.o.AtLeast}, func(gen int) []string {
		var subjects []string
		for _, part := range parts {
			subjects = append(subjects, s.subjects(gen, part)...)
		}
		return subjects
	})
	if err != nil {
		return nil, 0, err
	}
	s.r.served(snap, nil)
	hits, err = s.hits(gen, snap)
	return hits, len(snap.messages), err
}

// part are the entries of a part that no single answer can hold: as many, or not so many
// and the markers of others, which stay for a second.
func (s *search[V]) part(ctx context.Context, part string) ([]hit, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.r.cfg.Wait)
		defer cancel()
	}
	none := func(int) []string { return nil }
	for {
		// The leader has what this one has, and so what is read after it.
		gen, snap, err := s.r.snapshot(ctx, readOptions{atLeast: s.o.AtLeast}, none)
		if err != nil {
			return nil, err
		}
		s.r.served(snap, nil)
		snap.messages = map[string]*wire.Message{}
		for _, filter := range s.subjects(gen, part) {
			for some, err := range s.r.b.every(ctx, filter, scanKeys) {
				if err != nil {
					return nil, err
				}
				for i := range some {
					snap.messages[some[i].Subject] = &some[i]
				}
			}
		}
		// A generation that is removed takes its entries along.
		now, after, err := s.r.snapshot(ctx, readOptions{}, none)
		if err != nil {
			return nil, err
		}
		if now == gen && after.pointer.find(gen).Made.Equal(snap.pointer.find(gen).Made) {
			return s.hits(gen, snap)
		}
	}
}

// resolve yields the values of entries, some at a time.
func (s *search[V]) resolve(ctx context.Context, hits []hit) error {
	for len(hits) > 0 && !s.done {
		page := s.page(hits)
		hits = hits[len(page):]
		for size := len(page); len(page) > 0; {
			some := page[:min(size, len(page))]
			gen, snap, err := s.r.snapshot(ctx, readOptions{atLeast: s.o.AtLeast}, func(gen int) []string {
				return s.documents(gen, some)
			})
			if errors.Is(err, wire.ErrTooMany) && size > 1 {
				size /= 2 // The values are too large for one answer.
				continue
			}
			if err != nil {
				return err
			}
			s.r.served(snap, nil)
			if err := s.emit(gen, snap, some); err != nil || s.done {
				return err
			}
			page = page[len(some):]
		}
	}
	return nil
}

// emit yields entries with the values of a snapshot, unless a value has lost the
// index value by then.
func (s *search[V]) emit(gen int, snap *snapshot, hits []hit) error {
	if err := s.has(gen, snap); err != nil {
		return err // The view was switched to a generation without it meanwhile.
	}
	for _, h := range hits {
		stored, err := encodeKey(h.key)
		if err != nil {
			continue
		}
		m := snap.messages[s.r.b.keyPrefix(gen)+stored]
		value, err := encodeKey(h.value)
		if err != nil || m == nil || deleted(m) || !slices.Contains(m.Header[headerIndex], s.index+"."+value) {
			continue
		}
		e, err := s.r.entry(h.key, gen, snap, m)
		if err != nil {
			return err
		}
		s.r.served(snap, m)
		e.Indexed = h.value
		s.left--
		if !s.yield(e, nil) || s.o.Limit > 0 && s.left == 0 {
			s.done = true
			return nil
		}
	}
	return nil
}

// findToken is where a search goes on.
func findToken(h hit) string {
	value, err1 := encodeKey(h.value)
	key, err2 := encodeKey(h.key)
	if errors.Join(err1, err2) != nil {
		return "" // Neither was found then.
	}
	return "i-" + base64.RawURLEncoding.EncodeToString([]byte(value+" "+key))
}

func parseFindToken(token string) (hit, error) {
	invalid := &jetstream.InvalidError{Field: "find token", Value: token, Reason: "is not one that a search gave out"}
	text, ok := strings.CutPrefix(token, "i-")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil {
		return hit{}, invalid
	}
	value, key, ok := strings.Cut(string(data), " ")
	value, err1 := decodeKey(value)
	key, err2 := decodeKey(key)
	if !ok || value == "" || key == "" || err1 != nil || err2 != nil {
		return hit{}, invalid
	}
	return hit{value: value, part: partOf(key), key: key}, nil
}
