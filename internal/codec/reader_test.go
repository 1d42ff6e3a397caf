package codec_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/rossby-go/rossby/internal/codec"
)

// lengths are the first and last of each of msgpack's forms, but for the longest.
var lengths = []int{0, 1, 15, 16, 31, 32, 255, 256, math.MaxUint16, math.MaxUint16 + 1}

func TestAppendedStringsAndBytesAreReadByBoth(t *testing.T) {
	t.Parallel()
	for _, n := range lengths {
		text := strings.Repeat("x", n)
		data := codec.AppendBytes(codec.AppendString(nil, text), []byte(text))
		r := codec.NewReader(data)
		if s, b := r.String(), r.Bytes(); s != text || string(b) != text || r.Err() != nil || r.Rest() != 0 {
			t.Errorf("%d: read %d and %d bytes, %v, %d left", n, len(s), len(b), r.Err(), r.Rest())
		}
		dec := msgpack.NewDecoder(bytes.NewReader(data))
		s, err1 := dec.DecodeString()
		b, err2 := dec.DecodeBytes()
		if s != text || string(b) != text || err1 != nil || err2 != nil {
			t.Errorf("%d: the library reads %d and %d bytes, %v, %v", n, len(s), len(b), err1, err2)
		}
		whole, err := msgpack.Marshal(text)
		if err != nil || !bytes.Equal(whole, codec.AppendString(nil, text)) {
			t.Errorf("%d: not the shortest form: %v", n, err)
		}
	}
}

func TestAppendedHeadsAreReadByBoth(t *testing.T) {
	t.Parallel()
	for _, n := range lengths {
		body := bytes.Repeat([]byte{1}, 2*n)
		r := codec.NewReader(append(codec.AppendMap(nil, n), body...))
		if got := r.Map(); got != n || r.Err() != nil {
			t.Errorf("map of %d: read %d, %v", n, got, r.Err())
		}
		r = codec.NewReader(append(codec.AppendArray(nil, n), body...))
		if got := r.Array(); got != n || r.Err() != nil {
			t.Errorf("array of %d: read %d, %v", n, got, r.Err())
		}
		if got, err := msgpack.NewDecoder(bytes.NewReader(codec.AppendMap(nil, n))).DecodeMapLen(); got != n || err != nil {
			t.Errorf("map of %d: the library reads %d, %v", n, got, err)
		}
		if got, err := msgpack.NewDecoder(bytes.NewReader(codec.AppendArray(nil, n))).DecodeArrayLen(); got != n || err != nil {
			t.Errorf("array of %d: the library reads %d, %v", n, got, err)
		}
	}
}

func TestIntegers(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{
		0, 1, 127, 128, 255, 256, math.MaxUint16, math.MaxUint16 + 1, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64,
		-1, -32, -33, -128, -129, math.MinInt16, math.MinInt16 - 1, math.MinInt32, math.MinInt32 - 1, math.MinInt64,
	} {
		r := codec.NewReader(codec.AppendInt(nil, n))
		if got := r.Int(); got != n || r.Err() != nil || r.Rest() != 0 {
			t.Errorf("%d: read %d, %v", n, got, r.Err())
		}
		var buf bytes.Buffer
		enc := msgpack.NewEncoder(&buf)
		if err := enc.EncodeInt(n); err != nil {
			t.Fatal(err)
		}
		r = codec.NewReader(buf.Bytes())
		if got := r.Int(); got != n || r.Err() != nil {
			t.Errorf("%d as the library writes it: read %d, %v", n, got, r.Err())
		}
		if n >= 0 && !bytes.Equal(buf.Bytes(), codec.AppendInt(nil, n)) {
			t.Errorf("%d: not the shortest form", n)
		}
	}
	r := codec.NewReader([]byte{0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0})
	if r.Int(); !errors.Is(r.Err(), codec.ErrMalformed) {
		t.Errorf("beyond 63 bits: %v", r.Err())
	}
}

func TestSkipPassesOverEveryKind(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		"\x05", "\xe5", "\xc0", "\xc2", "\xc3", "\xa1x", "\xd9\x01x", "\xda\x00\x01x", "\xdb\x00\x00\x00\x01x",
		"\xc4\x01x", "\xc5\x00\x01x", "\xc6\x00\x00\x00\x01x", "\xc7\x01\x05x", "\xc8\x00\x01\x05x", "\xc9\x00\x00\x00\x01\x05x",
		"\xca1234", "\xcb12345678", "\xcc1", "\xcd12", "\xce1234", "\xcf12345678", "\xd01", "\xd112", "\xd21234", "\xd312345678",
		"\xd4\x051", "\xd5\x0512", "\xd6\x051234", "\xd7\x0512345678", "\xd8\x051234567812345678",
		"\x92\x01\xa1x", "\xdc\x00\x01\x01", "\xdd\x00\x00\x00\x01\x01", "\x81\x01\x02", "\xde\x00\x01\x01\x02", "\xdf\x00\x00\x00\x01\x01\x02",
	} {
		r := codec.NewReader([]byte(data + "\x2a"))
		r.Skip()
		if got := r.Int(); got != 42 || r.Err() != nil || r.Offset() != len(data)+1 {
			t.Errorf("%x: then %d, %v", data, got, r.Err())
		}
		for cut := range len(data) {
			r := codec.NewReader([]byte(data[:cut]))
			if r.Skip(); !errors.Is(r.Err(), codec.ErrMalformed) {
				t.Errorf("%x: %v", data[:cut], r.Err())
			}
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*codec.Reader){
		"map": func(r *codec.Reader) { r.Map() }, "array": func(r *codec.Reader) { r.Array() },
		"string": func(r *codec.Reader) { _ = r.String() }, "integer": func(r *codec.Reader) { r.Int() },
		"reserved": func(r *codec.Reader) { r.Skip() },
	} {
		for _, data := range []string{"", "\xc1"} {
			r := codec.NewReader([]byte(data))
			read(r)
			first := r.Err()
			if !errors.Is(first, codec.ErrMalformed) {
				t.Errorf("%s: %v", name, first)
			}
			read(r)
			if r.Fail(errors.New("later")); !errors.Is(r.Err(), first) {
				t.Errorf("%s: the first error does not stay: %v", name, r.Err())
			}
		}
	}
	for name, data := range map[string]string{
		"array": "\xdd\x7f\xff\xff\xff", "map": "\xdf\xff\xff\xff\xff", "string": "\xdb\xff\xff\xff\xff", "nested": strings.Repeat("\x91", 1000),
	} {
		r := codec.NewReader([]byte(data))
		if r.Skip(); !errors.Is(r.Err(), codec.ErrMalformed) {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
}

func TestSortMaps(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"\x82\xa1b\x01\xa1a\x02":                 "\x82\xa1a\x02\xa1b\x01",
		"\x91\x82\x02\xc0\x01\xc0":               "\x91\x82\x01\xc0\x02\xc0",
		"\x81\xa1x\x82\xa1b\x01\xa1a\x90":        "\x81\xa1x\x82\xa1a\x90\xa1b\x01",
		"\x82\x81\xa1b\x01\x01\x81\xa1a\x01\x01": "\x82\x81\xa1a\x01\x01\x81\xa1b\x01\x01",
	} {
		if got, err := codec.SortMaps([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%x: %x, %v, want %x", in, got, err, want)
		}
	}
	if _, err := codec.SortMaps([]byte(strings.Repeat("\x91", 20_000))); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("nested too deeply: %v", err)
	}
	// Deeper than what a reader of commits passes over: users may nest.
	if _, err := codec.SortMaps([]byte(strings.Repeat("\x91", 5000) + "\x01")); err != nil {
		t.Error(err)
	}
}

func seeds(f *testing.F) {
	f.Helper()
	data, err := codec.Msgpack.Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	files, err := filepath.Glob(filepath.Join("..", "..", "jetstream", "testdata", "format", "*.golden"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden files: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, n := range lengths[:8] {
		f.Add(codec.AppendBytes(codec.AppendString(codec.AppendArray(nil, 2), strings.Repeat("x", n)), make([]byte, n)))
	}
}

// FuzzReader: any bytes give values or ErrMalformed, and never more than there is.
func FuzzReader(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func(*codec.Reader){
			func(r *codec.Reader) { r.Skip() },
			func(r *codec.Reader) { r.Int() },
			func(r *codec.Reader) {
				if n := len(r.Bytes()); n > len(data) {
					t.Fatalf("%d of %d bytes", n, len(data))
				}
			},
			func(r *codec.Reader) {
				if n := r.Map(); n > len(data) {
					t.Fatalf("%d entries in %d bytes", n, len(data))
				}
			},
			func(r *codec.Reader) {
				if n := r.Array(); n > len(data) {
					t.Fatalf("%d elements in %d bytes", n, len(data))
				}
			},
		} {
			r := codec.NewReader(data)
			for r.Err() == nil && r.Rest() > 0 {
				before := r.Offset()
				read(r)
				if r.Err() == nil && r.Offset() <= before {
					t.Fatalf("no progress at %d", before)
				}
			}
			if r.Err() != nil && !errors.Is(r.Err(), codec.ErrMalformed) {
				t.Fatal(r.Err())
			}
			if r.Rest() < 0 {
				t.Fatalf("%d bytes left", r.Rest())
			}
		}
	})
}

// FuzzSort: sorting keeps every value, changes nothing when repeated, and fails
// where skipping does.
func FuzzSort(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := codec.NewReader(data)
		r.Skip()
		got, err := codec.SortMaps(data)
		if err != nil {
			if r.Err() == nil {
				t.Fatalf("can be skipped, not sorted: %v", err)
			}
			return
		}
		again, err := codec.SortMaps(got)
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("sorted again: %x, %v, not %x", again, err, got)
		}
		if r.Err() == nil && len(got) != r.Offset() {
			t.Fatalf("%d bytes became %d", r.Offset(), len(got))
		}
		if counts(got) != counts(data[:len(got)]) {
			t.Fatalf("%x became %x", data, got)
		}
	})
}

func counts(data []byte) (n [256]int) {
	for _, b := range data {
		n[b]++
	}
	return n
}

// FuzzDecodeValue: any bytes give a value or an error, and what was read can be
// written and read again.
func FuzzDecodeValue(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range both {
			var v everything
			if err := c.Decode(data, &v); err != nil {
				continue
			}
			again, err := c.Encode(v)
			if err != nil {
				continue // Such as a float that JSON lacks.
			}
			var w everything
			if err := c.Decode(again, &w); err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			if v.Float == v.Float && !reflect.DeepEqual(v.Ints, w.Ints) && len(v.Ints) > 0 {
				t.Fatalf("%v: %v became %v", c, v.Ints, w.Ints)
			}
		}
	})
}
