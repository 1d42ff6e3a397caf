package projection

import (
	"errors"
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// headerIndex lists, in the message of a key, the index values that the key is
// found by: what is there is what has to be taken out when the value changes.
const headerIndex = "Rossby-Index"

// headerTTL lets the server forget a message.
const headerTTL = "Nats-TTL"

// removedFor is how long the marker of an entry that was taken out stays, in
// seconds: nobody needs it, and no shorter time is allowed.
const removedFor = "1"

// indexed is an index of a definition.
type indexed struct {
	name string
	by   func(v any) []string
}

// Index lets the view's values be found by something else than their keys, such
// as an owner, a status or a time: by names the values of the index that a value
// of the view is found by, none for not at all. It must be pure, and must not
// change what it is given. Any text is an index value; empty ones are left out.
//
//	var Accounts = projection.NewKeyed("accounts", …).
//		Index("owner", func(a Account) []string { return []string{a.Owner} }).
//		Index("opened", func(a Account) []string { return []string{projection.TimeValue(a.Opened)} })
//
// [Reader.Find] asks for them. The entries of an index change in the same atomic
// write as the value: a reader never sees one without the other. Each value of an
// index that a key gains or loses is one more message of that write. A key is found
// by at most 400 values, of 63 KiB together.
//
// Raise [Definition.Version] when you add an index or change by, and the view is
// rebuilt. The name is one or more of a–z, 0–9 and '-'.
func (d *Definition[V]) Index(name string, by func(v V) []string) *Definition[V] {
	c := *d.core
	var errs []error
	if err := jetstream.ValidateName("index name", name); err != nil {
		errs = append(errs, err)
	}
	if by == nil {
		errs = append(errs, fmt.Errorf("index %q has no function", name))
	}
	if slices.ContainsFunc(c.indexes, func(x indexed) bool { return x.name == name }) {
		errs = append(errs, fmt.Errorf("index %q is defined twice", name))
	}
	if err := errors.Join(errs...); err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("definition of view %q: %w", c.view, err))
	}
	c.indexes = append(slices.Clip(c.indexes), indexed{name: name, by: func(v any) []string {
		p, _ := v.(*V)
		return by(*p)
	}})
	return &Definition[V]{core: &c}
}

// TimeValue writes a time as an index value, in UTC and down to the microsecond:
// 2026.11.25.23.16.05.000000. Such values sort as the times do. A prefix of one is
// an hour, a day or a month; servers narrow a search down at the dots. Years are
// from 0 to 9999.
func TimeValue(t time.Time) string {
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	switch t = t.UTC(); {
	case t.Before(first):
		t = first
	case t.After(last):
		t = last
	}
	return strings.Replace(t.Format("2006.01.02.15.04.05.000000"), ",", ".", 1)
}

// IntValue writes a number as an index value. Such values sort as the numbers do:
// those of negative ones begin with n, the others are p and the number, with zeros
// before it.
func IntValue(n int64) string {
	if n < 0 {
		return fmt.Sprintf("n%019d", uint64(n)-1<<63) //nolint:gosec // the order of the bits is wanted
	}
	return fmt.Sprintf("p%019d", n)
}

// indexNames are the names of the definition's indexes, sorted.
func (c *core) indexNames() []string {
	names := make([]string, 0, len(c.indexes))
	for _, x := range c.indexes {
		names = append(names, x.name)
	}
	slices.Sort(names)
	return names
}

// places are the index values that a stored value is found by, each with the
// index's name before it, sorted. They are those of the value as readers see it.
func (c *core) places(key string, data []byte) (places []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &ValueError{Key: key, Cause: &PanicError{Value: v, Stack: string(debug.Stack())}}
		}
	}()
	if data == nil {
		return nil, nil
	}
	value := c.newValue()
	if err := codec.JSON.Decode(data, value); err != nil {
		return nil, &ValueError{Key: key, Cause: unfit(err)}
	}
	for _, x := range c.indexes {
		for _, v := range x.by(value) {
			if v == "" {
				continue
			}
			stored, err := encodeKey(v)
			if err != nil {
				return nil, &ValueError{Key: key, Cause: fmt.Errorf("index %q: %w", x.name, asIndexValue(err))}
			}
			places = append(places, x.name+"."+stored)
		}
	}
	slices.Sort(places)
	if places = slices.Compact(places); len(places) > maxPlaces {
		err := fmt.Errorf("is found by %d index values, %d are the most", len(places), maxPlaces)
		return nil, &ValueError{Key: key, Cause: err}
	}
	return places, nil
}

// maxPlaces is the largest number of index values of one key: all of them may
// change at once, and then fit into one batch with the value. maxPlaceBytes is what
// they may take together: servers take headers of 64 KiB.
const (
	maxPlaces     = 400
	maxPlaceBytes = 63 << 10
)

// asIndexValue is the error of a key, about an index value.
func asIndexValue(err error) error {
	if k, ok := errors.AsType[*KeyError](err); ok {
		return fmt.Errorf("value %q %s", shorten(k.Key), k.Reason)
	}
	return err
}

// index finds out which index values a slot gains and loses.
func (c *core) index(s *slot) error {
	var err error
	if s.index, err = c.places(s.key, s.out); err != nil {
		return err
	}
	s.gained, s.lost = without(s.index, s.base.index), without(s.base.index, s.index)
	return nil
}

// without are the elements of a that b lacks.
func without(a, b []string) []string {
	var out []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

// indexBytes is about what a key's index values take in its message.
func indexBytes(places []string) int {
	n := 0
	for _, p := range places {
		n += len(headerIndex) + len(p) + 4
	}
	return n
}

// indexPrefix begins the subjects of a generation's index entries.
func (b *bucket) indexPrefix(gen int) string { return b.prefix + "_index." + strconv.Itoa(gen) + "." }

// partDigits are those of a part of an index.
const partDigits = "0123456789abcdefghijklmnopqrstuv"

// partOf is the part of an index that a key's entries are in: two tokens, so that
// what no single answer can hold can be asked for part by part.
func partOf(key string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	n := h.Sum32()
	n ^= n >> 16
	return string([]byte{partDigits[n>>5&31], '.', partDigits[n&31]})
}

// entrySubject is the subject of an index entry: index, part, value, a token that
// no key and no value has, and the key.
func (b *bucket) entrySubject(gen int, place, key, stored string) string {
	name, value, _ := strings.Cut(place, ".")
	return b.indexPrefix(gen) + name + "." + partOf(key) + "." + value + ".=." + stored
}

// entryMessages are what the bucket gets for the index values that a key gains
// and loses.
func (f *flusher) entryMessages(s *slot, stored string) []*nats.Msg {
	var msgs []*nats.Msg
	add := func(places []string, gone bool) {
		for _, p := range places {
			h := make(nats.Header, 5)
			h[headerSequence] = []string{strconv.FormatUint(s.seq, 10)}
			if gone {
				h[headerKV], h[headerTTL] = []string{kvDelete}, []string{removedFor}
			}
			msgs = append(msgs, &nats.Msg{Subject: f.b.entrySubject(f.gen, p, s.key, stored), Header: h})
		}
	}
	add(s.gained, false)
	add(s.lost, true)
	return msgs
}

// hit is an index entry that was found.
type hit struct {
	value, part, key string
}

// hitOf reads an entry's subject, without what stands before its part.
func hitOf(rest string) (hit, bool) {
	if len(rest) < 4 || rest[1] != '.' || rest[3] != '.' {
		return hit{}, false
	}
	h := hit{part: rest[:3]}
	value, key, ok := strings.Cut(rest[4:], ".=.")
	if !ok {
		return hit{}, false
	}
	var errs [2]error
	h.value, errs[0] = decodeKey(value)
	h.key, errs[1] = decodeKey(key)
	return h, errors.Join(errs[:]...) == nil
}
