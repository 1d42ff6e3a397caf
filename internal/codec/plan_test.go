package codec_test

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"testing/quick"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/rossby-go/rossby/internal/codec"
)

type (
	plainPart struct {
		Name  string  `json:"name,omitempty"`
		Ratio float64 `json:"ratio,omitempty"`
		On    bool    `json:"on,omitempty"`
	}
	plain struct {
		Text  string `json:"text"`
		Named string
		Gone  string      `json:"-"`
		I     int         `json:"i"`
		I8    int8        `json:"i8"`
		I16   int16       `json:"i16,omitempty"`
		I32   int32       `json:"i32"`
		I64   int64       `json:"i64"`
		U     uint        `json:"u"`
		U16   uint16      `json:"u16"`
		U32   uint32      `json:"u32,omitempty"`
		U64   uint64      `json:"u64"`
		F32   float32     `json:"f32"`
		F64   float64     `json:"f64"`
		Yes   bool        `json:"yes"`
		Part  plainPart   `json:"part"`
		Maybe plainPart   `json:"maybe,omitempty"` //nolint:modernize // what it does to a struct is tested
		List  []string    `json:"list"`
		Nums  []int64     `json:"nums,omitempty"`
		Parts []plainPart `json:"parts"`
		Deep  [][]uint32  `json:"deep"`
	}
)

// library is what the msgpack library writes with the codec's settings.
func library(t *testing.T, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.SetCustomStructTag("json")
	enc.UseCompactInts(true)
	enc.SetSortMapKeys(true)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestPlainStructsAreWrittenAsByTheLibrary: the stored bytes must not depend on
// which of the two wrote them.
func TestPlainStructsAreWrittenAsByTheLibrary(t *testing.T) {
	t.Parallel()
	same := func(v plain) bool {
		want := library(t, v)
		for _, given := range []any{v, &v} {
			got, err := codec.Msgpack.Encode(given)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%+v: %x, the library writes %x (%v)", v, got, want, err)
				return false
			}
		}
		var back, theirs plain
		if err := codec.Msgpack.Decode(want, &back); err != nil {
			t.Error(err)
			return false
		}
		dec := msgpack.NewDecoder(bytes.NewReader(want))
		dec.SetCustomStructTag("json")
		if err := dec.Decode(&theirs); err != nil {
			t.Error(err)
			return false
		}
		if !reflect.DeepEqual(back, theirs) {
			t.Errorf("read %+v, the library reads %+v", back, theirs)
			return false
		}
		return true
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
	for _, n := range []int64{
		0, 1, 127, 128, 255, 256, 65535, 65536, math.MaxInt32, math.MaxUint32, math.MaxInt64,
		-1, -32, -33, -128, -129, -32768, -32769, math.MinInt32, math.MinInt32 - 1, math.MinInt64,
	} {
		same(plain{I: int(n), I64: n, U64: uint64(n), Nums: []int64{n}, F64: float64(n)})
	}
	same(plain{})
	same(plain{F64: math.Copysign(0, -1), Maybe: plainPart{Ratio: math.Copysign(0, -1)}, List: []string{}, Parts: []plainPart{{}}})
	same(plain{F64: math.Inf(1), F32: float32(math.Inf(-1)), Text: string(make([]byte, 300)), Named: string(make([]byte, 70000))})
}

// TestPlainStructsReadOtherShapes: data that was not written from the same type
// is read as the library reads it, or refused as the library refuses it.
func TestPlainStructsReadOtherShapes(t *testing.T) {
	t.Parallel()
	for _, given := range []any{
		map[string]any{"i": 5.0, "text": []byte("bytes")},
		map[string]any{"i8": 300},
		map[string]any{"u": -1},
		map[string]any{"text": 5},
		map[string]any{"unknown": map[string]any{"deep": []int{1}}, "i64": 7},
		map[string]any{"list": nil, "nums": []any{1, nil}},
		map[string]any{"yes": nil, "f64": float32(2.5), "part": nil},
		map[string]any{"u64": uint64(math.MaxUint64)},
		[]any{1, 2}, "text", nil,
	} {
		data := library(t, given)
		var ours, theirs plain
		err := codec.Msgpack.Decode(data, &ours)
		dec := msgpack.NewDecoder(bytes.NewReader(data))
		dec.SetCustomStructTag("json")
		want := dec.Decode(&theirs)
		if (err == nil) != (want == nil) || err == nil && !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%v: %+v, %v; the library reads %+v, %v", given, ours, err, theirs, want)
		}
	}
	var v plain
	if err := codec.Msgpack.Decode(append(library(t, plain{}), 0), &v); err == nil {
		t.Error("a byte after the value was not noticed")
	}
}
