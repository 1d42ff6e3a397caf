package jsonschema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/jsonschema"
)

type (
	base struct {
		ID   string `json:"id"`
		Note string `json:"note"`
	}
	// Other hides base's note; both ids are lost.
	Other struct {
		ID string `json:"id"`
	}
	tree struct {
		Name     string           `json:"name"`
		Children []tree           `json:"children,omitempty"`
		Parent   *tree            `json:"parent,omitempty"`
		Named    map[string]*tree `json:"named,omitempty"`
	}
	money string
	big   struct{ n string } // reads itself
	all   struct {
		base
		*Other

		Note   int               `json:"note"`
		Go     bool              // has no tag
		Skip   func()            `json:"-"`
		I8     int8              `json:"i8"`
		U8     uint8             `json:"u8"`
		I32    int32             `json:"i32"`
		U16    uint16            `json:"u16"`
		I64    int64             `json:"i64"`
		F      float64           `json:"f"`
		Quoted int64             `json:"quoted,string,omitempty"`
		QPtr   *bool             `json:"qptr,string"`
		Money  money             `json:"money"`
		At     time.Time         `json:"at"`
		AtPtr  *time.Time        `json:"atPtr,omitempty"`
		Data   []byte            `json:"data"`
		Fixed  [2]int            `json:"fixed"`
		Texts  []string          `json:"texts"`
		Tags   map[string]string `json:"tags"`
		ByInt  map[int]bool      `json:"byInt"`
		ByUint map[uint8]bool    `json:"byUint"`
		IP     netip.Addr        `json:"ip"`
		Big    big               `json:"big"`
		Num    json.Number       `json:"num"`
		Tree   tree              `json:"tree"`
		Roots  []*tree           `json:"roots"`
		Inner  struct {
			X *int `json:"x"`
		} `json:"inner"`
	}
)

func (b big) MarshalJSON() ([]byte, error)       { return []byte(b.n), nil }
func (b *big) UnmarshalJSON(data []byte) error   { b.n = string(data); return nil }
func (b big) MarshalBinary() ([]byte, error)     { return []byte(b.n), nil }
func (b *big) UnmarshalBinary(data []byte) error { b.n = string(data); return nil }
func read(body string, ptr any) error {
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	return dec.Decode(ptr)
}

// compile lets a validator of others read the schema.
func compile(t *testing.T, goType reflect.Type) *validator.Schema {
	t.Helper()
	text, err := jsonschema.Of(goType, "title")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	if err := c.AddResource("mem:///schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///schema.json")
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return s
}

// The schema takes exactly what is read.
func TestTheSchemaIsWhatIsRead(t *testing.T) {
	t.Parallel()
	goType := reflect.TypeFor[all]()
	if err := codec.Check(goType); err != nil {
		t.Fatal(err) // what no command may have need not be described
	}
	schema := compile(t, goType)
	for body, good := range map[string]bool{
		`{}`: true, `{"Go":true}`: true, `{"note":3}`: true, `{"note":"x"}`: false, `{"id":"x"}`: false,
		`{"Skip":null}`: false, `{"unknown":1}`: false, `[]`: false, `"x"`: false,
		`{"i8":-128}`: true, `{"i8":128}`: false, `{"u8":255}`: true, `{"u8":-1}`: false, `{"u8":256}`: false,
		`{"i32":2147483647}`: true, `{"i32":2147483648}`: false, `{"u16":65536}`: false,
		`{"i64":9223372036854775807}`: true, `{"i64":1.5}`: false, `{"i64":"1"}`: false,
		`{"f":1.5}`: true, `{"f":"1"}`: false, `{"quoted":"17"}`: true, `{"quoted":17}`: false,
		`{"qptr":"true"}`: true, `{"qptr":null}`: true, `{"qptr":true}`: false, `{"money":"5.00"}`: true, `{"money":5}`: false,
		`{"at":"2026-05-04T03:02:01Z"}`: true, `{"at":"yesterday"}`: false, `{"at":1}`: false,
		`{"atPtr":null}`: true, `{"atPtr":"2026-05-04T03:02:01.5+02:00"}`: true, `{"atPtr":"x"}`: false,
		`{"data":"AQID"}`: true, `{"data":null}`: true, `{"data":"%"}`: false,
		`{"fixed":[1,2]}`: true, `{"fixed":["a"]}`: false, `{"texts":["a"]}`: true, `{"texts":null}`: true, `{"texts":[1]}`: false,
		`{"texts":"a"}`: false, `{"tags":{"a":"b"}}`: true, `{"tags":null}`: true, `{"tags":{"a":1}}`: false,
		`{"byInt":{"-1":true}}`: true, `{"byInt":{"a":true}}`: false, `{"byUint":{"1":true}}`: true, `{"byUint":{"-1":true}}`: false,
		`{"ip":"10.0.0.1"}`: true, `{"ip":1}`: false, `{"big":{"any":["thing"]}}`: true, `{"num":1e3}`: true, `{"num":true}`: false,
		`{"tree":{"name":"a","children":[{"name":"b","parent":null,"named":{"c":{"name":"d"},"e":null}}]}}`: true,
		`{"tree":{"children":[{"children":[{"name":1}]}]}}`:                                                 false, `{"tree":{"parent":{"parent":{"x":1}}}}`: false,
		`{"roots":[null,{"name":"a"}]}`: true, `{"inner":{"x":null}}`: true, `{"inner":{"y":1}}`: false,
	} {
		if err := read(body, new(all)); (err == nil) != good {
			t.Errorf("%s is read with %v", body, err)
		}
		value, err := validator.UnmarshalJSON(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err == nil) != good {
			t.Errorf("%s is validated with %v", body, err)
		}
	}
}

// What is written can be read.
func TestTheSchemaTakesWhatIsWritten(t *testing.T) {
	t.Parallel()
	yes, when := true, time.Now()
	leaf := tree{Name: "leaf"}
	for _, v := range []all{
		{Big: big{"1"}, Num: "0", IP: netip.MustParseAddr("::1")},
		{
			Note: 1, Other: &Other{"x"}, Quoted: -5, QPtr: &yes, At: when, AtPtr: &when, Data: []byte{1}, Texts: []string{"t"},
			Tags: map[string]string{"k": "v"}, ByInt: map[int]bool{-1: true}, ByUint: map[uint8]bool{7: true}, Big: big{`[{}]`},
			Num: "1.5", Tree: tree{"r", []tree{leaf}, &leaf, map[string]*tree{"a": &leaf, "b": nil}}, Roots: []*tree{nil, &leaf},
		},
	} {
		body, err := codec.JSON.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		value, err := validator.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := compile(t, reflect.TypeFor[all]()).Validate(value); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

type (
	level1 struct{ A, B, C, D, E, F, G, H string }
	level2 struct{ A, B, C, D, E, F, G, H level1 }
	level3 struct{ A, B, C, D, E, F, G, H *level2 }
	level4 struct{ A, B, C, D, E, F, G, H []level3 }
)

// What occurs often is described once.
func TestTheSchemaIsAsLargeAsTheTypes(t *testing.T) {
	t.Parallel()
	text, err := jsonschema.Of(reflect.TypeFor[level4](), "deep")
	if err != nil || len(text) > 3000 {
		t.Error(len(text), err)
	}
	schema := compile(t, reflect.TypeFor[level4]())
	for body, good := range map[string]bool{
		`{"A":[{"B":{"C":{"D":"x"}},"A":null}],"H":[]}`: true, `{"A":[{"B":{"C":{"D":1}}}]}`: false,
	} {
		value, err := validator.UnmarshalJSON(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	text, err := jsonschema.Of(reflect.TypeFor[struct {
		Cents int64 `json:"cents"`
	}](), "debit")
	want := `{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"debit","type":"object",` +
		`"properties":{"cents":{"type":"integer","format":"int64"}},"additionalProperties":false}`
	if err != nil || string(text) != want {
		t.Errorf("%s %v", text, err)
	}
	if err := compile(t, reflect.TypeFor[big]()).Validate(17.0); err != nil { // anything
		t.Error(err)
	}
	var invalid *validator.ValidationError
	if err := compile(t, reflect.TypeFor[tree]()).Validate(map[string]any{"name": 1.0}); !errors.As(err, &invalid) {
		t.Error(err)
	}
}
