package codec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
)

var both = []codec.Codec{codec.Msgpack, codec.JSON}

type inner struct {
	At   time.Time  `json:"at"`
	Then *time.Time `json:"then"`
}

type base struct {
	Made time.Time `json:"made"`
}

type everything struct {
	base

	Text    string                   `json:"text"`
	Small   int8                     `json:"small"`
	Big     uint64                   `json:"big"`
	Low     int64                    `json:"low"`
	Float   float64                  `json:"float"`
	Yes     bool                     `json:"yes"`
	Bytes   []byte                   `json:"bytes"`
	Array   [4]byte                  `json:"array"`
	List    []inner                  `json:"list"`
	Strings map[string]string        `json:"strings"`
	Flags   map[string]bool          `json:"flags"`
	Ints    map[int]string           `json:"ints"`
	Int8s   map[int8]int64           `json:"int8s"`
	Uints   map[uint64]uint16        `json:"uints"`
	Times   map[string]time.Time     `json:"times"`
	Deep    map[string]map[int]inner `json:"deep"`
	Amount  big.Int                  `json:"amount"`
	Addr    netip.Addr               `json:"addr"`
	Wait    time.Duration            `json:"wait"`
	Next    *everything              `json:"next"`
	Ignored func()                   `json:"-"`
}

func sample() everything {
	zone := time.FixedZone("far", 5*3600)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, zone)
	e := everything{
		base: base{Made: at},
		Text: "a <b> & \"c\" ü", Small: -5, Big: math.MaxUint64, Low: math.MinInt64, Float: 1.25, Yes: true,
		Bytes: []byte{0, 1, 255}, Array: [4]byte{1, 2, 3, 4}, List: []inner{{At: at, Then: &at}, {At: at}},
		Strings: map[string]string{}, Flags: map[string]bool{}, Ints: map[int]string{}, Int8s: map[int8]int64{},
		Uints: map[uint64]uint16{}, Times: map[string]time.Time{}, Deep: map[string]map[int]inner{},
		Addr: netip.MustParseAddr("10.0.0.1"), Wait: time.Minute, Next: &everything{base: base{Made: at}, Text: "next"},
	}
	e.Amount.SetString("123456789012345678901234567890", 10)
	for i := range 40 {
		k := strings.Repeat("k", i%5) + strconv.Itoa(i*7919)
		e.Strings[k], e.Flags[k], e.Times[k] = k, i%2 == 0, at
		e.Ints[i*1000-20000], e.Int8s[int8(i-20)], e.Uints[uint64(i)<<20] = k, int64(i), uint16(i)
		e.Deep[k] = map[int]inner{i: {At: at}, -i - 1: {}}
	}
	return e
}

func TestRoundTripKeepsEveryKindOfValueInUTC(t *testing.T) {
	t.Parallel()
	if err := codec.Check(reflect.TypeFor[everything]()); err != nil {
		t.Fatal(err)
	}
	for _, c := range both {
		data, err := c.Encode(sample())
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		var got everything
		if err := c.Decode(data, &got); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		for name, at := range map[string]time.Time{
			"embedded": got.Made, "in a list": got.List[0].At, "behind a pointer": *got.List[0].Then,
			"in a map": got.Times["0"], "deep in a map": got.Deep["0"][0].At, "in the next": got.Next.Made,
		} {
			if at.Location() != time.UTC || !at.Equal(sample().Made) {
				t.Errorf("%v: time %s is %v", c, name, at)
			}
		}
		again, err := c.Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, again) {
			t.Errorf("%v: what was read is written differently:\n%q\n%q", c, data, again)
		}
		if want := sample(); got.Amount.Cmp(&want.Amount) != 0 || !reflect.DeepEqual(got.Int8s, want.Int8s) ||
			!reflect.DeepEqual(got.Uints, want.Uints) || got.Low != want.Low || got.Big != want.Big || got.Text != want.Text ||
			got.Addr != want.Addr || got.Wait != want.Wait || !bytes.Equal(got.Bytes, want.Bytes) || got.Array != want.Array {
			t.Errorf("%v: got %+v", c, got)
		}
	}
}

func TestEncodingIsDeterministic(t *testing.T) {
	t.Parallel()
	for _, c := range both {
		first, err := c.Encode(sample())
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			next, err := c.Encode(sample())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, next) {
				t.Fatalf("%v: equal values, different bytes", c)
			}
		}
	}
}

func TestEncodingOfPointersEqualsThatOfValues(t *testing.T) {
	t.Parallel()
	for _, c := range both {
		v := sample()
		a, err1 := c.Encode(v)
		b, err2 := c.Encode(&v)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%v: %v %v\n%q\n%q", c, err1, err2, a, b)
		}
	}
}

func TestEqualInstantsAreEqualBytes(t *testing.T) {
	t.Parallel()
	utc := time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC)
	local := utc.In(time.FixedZone("x", -3600))
	for _, c := range both {
		a, err1 := c.Encode(inner{At: utc, Then: &utc})
		b, err2 := c.Encode(inner{At: local, Then: &local})
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%v: %v %v\n%q\n%q", c, err1, err2, a, b)
		}
	}
	if local.Location() == time.UTC {
		t.Error("the value given was changed")
	}
}

func TestJSONIsPlain(t *testing.T) {
	t.Parallel()
	got, err := codec.JSON.Encode(struct{ A string }{"<a & b>"})
	if want := `{"A":"<a & b>"}`; err != nil || string(got) != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
}

func TestDecodeRefusesWhatFollowsTheValue(t *testing.T) {
	t.Parallel()
	for _, c := range both {
		data, err := c.Encode(inner{})
		if err != nil {
			t.Fatal(err)
		}
		var v inner
		if err := c.Decode(append(data, '1'), &v); err == nil {
			t.Errorf("%v: no error", c)
		}
		if err := c.Decode(data, v); err == nil {
			t.Errorf("%v: no error without a pointer", c)
		}
	}
}

func TestDecodeSkipsWhatTheTypeLacksAndKeepsWhatTheDataLacks(t *testing.T) {
	t.Parallel()
	type wide struct{ A, B, C string }
	type narrow struct{ A, D string }
	for _, c := range both {
		data, err := c.Encode(wide{"a", "b", "c"})
		if err != nil {
			t.Fatal(err)
		}
		got := narrow{D: "kept"}
		if err := c.Decode(data, &got); err != nil || got != (narrow{"a", "kept"}) {
			t.Errorf("%v: %+v %v", c, got, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range both {
		if got, err := codec.Parse(c.String()); got != c || err != nil || !c.Valid() {
			t.Errorf("%v: %v %v", c, got, err)
		}
	}
	if _, err := codec.Parse("xml"); !errors.Is(err, codec.ErrUnknown) {
		t.Errorf("xml: %v", err)
	}
	if codec.Codec(7).Valid() {
		t.Error("codec 7 is valid")
	}
}

type onlyJSON struct{ cents int64 }

func (m onlyJSON) MarshalJSON() ([]byte, error)     { return fmt.Append(nil, m.cents), nil }
func (m *onlyJSON) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &m.cents) }

type onlyEncodes struct{ cents int64 }

func (m onlyEncodes) MarshalText() ([]byte, error) { return fmt.Append(nil, m.cents), nil }

type iface interface{ MarshalText() ([]byte, error) }

type num int

type cyclic struct {
	Next *cyclic
	All  map[string]cyclic
}

func TestCheckNamesTheField(t *testing.T) {
	t.Parallel()
	type hidden struct{ Fine, lost int }
	_ = hidden{}.lost
	for want, v := range map[string]any{
		".lost: unexported": hidden{},
		".F: a func":        struct{ F func() }{},
		".C: a chan":        struct{ C chan int }{},
		".I: an interface":  struct{ I any }{},
		".T: an interface":  struct{ T iface }{},
		".X: a complex128":  struct{ X complex128 }{},
		".P: a uintptr":     struct{ P uintptr }{},
		".L[].F: a func":    struct{ L []struct{ F func() } }{},
		".M[].F: a func": struct {
			M map[string]*struct{ F func() }
		}{},
		".K: map keys must be":               struct{ K map[float64]int }{},
		".B: map keys must be":               struct{ B map[bool]int }{},
		".S: map keys must be":               struct{ S map[[2]int]int }{},
		".Money.cents: unexported":           struct{ Money onlyJSON }{},
		".Half.cents: unexported":            struct{ Half onlyEncodes }{},
		`.B: is named "a" as A`:              struct{ A, B int }{},
		".D: is lost in msgpack":             struct{ D int }{},
		`.E: the name "-" is lost`:           struct{ E int }{},
		".num: an embedded unexported int":   struct{ num }{},
		".hidden: an embedded unexported pt": struct{ *hidden }{},
	} {
		typ := reflect.TypeOf(v)
		// Tags that the linters of this package would not let stand.
		switch {
		case strings.HasPrefix(want, ".B: is named"):
			typ = retag(typ, `json:"a"`)
		case strings.HasPrefix(want, ".D:"):
			typ = retag(typ, `msgpack:"-"`)
		case strings.HasPrefix(want, ".E:"):
			typ = retag(typ, `json:"-,"`)
		}
		if err := codec.Check(typ); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", typ, err, want)
		}
	}
	if err := codec.Check(nil); err == nil {
		t.Error("no error without a type")
	}
	err := codec.Check(reflect.TypeOf(struct {
		A func()
		B chan int
	}{}))
	if err == nil || !strings.Contains(err.Error(), ".A") || !strings.Contains(err.Error(), ".B") {
		t.Errorf("not every field is named: %v", err)
	}
}

func retag(t reflect.Type, tag reflect.StructTag) reflect.Type {
	var fields []reflect.StructField
	for f := range t.Fields() {
		f.Tag = tag
		fields = append(fields, f)
	}
	return reflect.StructOf(fields)
}

func TestCheckAcceptsTypesThatSurvive(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		cyclic{}, struct{ M map[num]int }{}, struct{ R json.RawMessage }{}, struct{ N *int }{}, struct{ B big.Float }{},
		struct {
			F func() `json:"-"`
			u func() `json:"-"`
		}{}, 5, "text", []string{}, map[int8][]byte{},
	} {
		if err := codec.Check(reflect.TypeOf(v)); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func TestIgnoredFieldsMayBeCyclic(t *testing.T) {
	t.Parallel()
	type node struct {
		At   time.Time `json:"at"`
		Self *node     `json:"-"`
	}
	n := &node{At: time.Now()}
	n.Self = n
	for _, c := range both {
		data, err := c.Encode(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Decode(data, n); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDecodePromises: a length that only the data's head promises is no reason to
// allocate as much. Where it is, this test is killed.
func TestDecodePromises(t *testing.T) {
	t.Parallel()
	type event struct {
		List []everything          `json:"list"`
		Map  map[string]everything `json:"map"`
	}
	for name, data := range map[string]string{
		"array":  "\x81\xa4list\xdd\xff\xff\xff\xff\xc0",
		"map":    "\x81\xa3map\xdf\xff\xff\xff\xff\xa1x\xc0",
		"nested": "\x81\xa1z" + strings.Repeat("\x91", 1<<20),
	} {
		var v event
		if err := codec.Msgpack.Decode([]byte(data), &v); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What comes from outside is read strictly, by either way of reading.
func TestDecodeStrict(t *testing.T) {
	t.Parallel()
	type plain struct {
		N    int      `json:"n"`
		List []string `json:"list,omitempty"`
	}
	type timed struct {
		N  int       `json:"n"`
		At time.Time `json:"at"`
	}
	for text, want := range map[string]string{
		`{"n":1,"list":["a"]}`: "", "\n{\"n\":1}\t": "", `{}`: "", `{"m":1}`: "unknown field", `{"n":"x"}`: "", `null`: "null",
		`{"n":1}{}`: "more after", `{"n":1`: "too early", ``: "too early", `{"n":1.5}`: "",
	} {
		var p plain
		err := codec.JSON.DecodeStrict([]byte(text), &p)
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
		if bad := strings.Contains(text, "x") || strings.Contains(text, "."); want == "" && (err != nil) != bad {
			t.Errorf("%q: %v", text, err)
		}
	}
	for name, c := range map[string]struct {
		data string
		ptr  any
		want string
	}{
		"good":              {"\x82\xa1n\x01\xa4list\x91\xa1a", new(plain), ""},
		"null list":         {"\x81\xa4list\xc0", new(plain), ""},
		"unknown":           {"\x82\xa1n\x01\xa1m\x01", new(plain), "unknown field \"m\""},
		"unknown, by lib":   {"\x82\xa1n\x01\xa1m\x01", new(timed), "unknown field \"m\""},
		"trailing":          {"\x81\xa1n\x01\x00", new(plain), "after the value"},
		"trailing, by lib":  {"\x81\xa1n\x01\x00", new(timed), "after the value"},
		"nil":               {"\xc0", new(plain), "nil"},
		"cut":               {"\x81\xa1n", new(plain), "malformed"},
		"empty":             {"", new(plain), "malformed"},
		"promises too much": {"\xdf\xff\xff\xff\xff", new(timed), "malformed"},
	} {
		err := codec.Msgpack.DecodeStrict([]byte(c.data), c.ptr)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var p plain
	if err := codec.Msgpack.DecodeStrict([]byte("\x82\xa4list\x91\xa1a\xa1n\x05"), &p); err != nil || p.N != 5 || len(p.List) != 1 {
		t.Error(p, err)
	}
}
