package schematest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// The steps of one schema's life, and what goes wrong on the way.
type (
	Euros struct {
		Euros int64  `json:"euros"`
		By    string `json:"by,omitempty"`
	}
	Cents struct {
		Cents int64 `json:"cents"`
	}
	// Amount is Cents with one field more, which needs no version.
	Amount struct {
		Cents int64  `json:"cents"`
		Note  string `json:"note"`
	}
	// Text is Cents with another type.
	Text struct {
		Cents string `json:"cents"`
	}
	// Retagged is Cents under another name.
	Retagged struct {
		Amount int64 `json:"amount"`
	}
	Moved struct {
		Cents int64 `json:"cents"`
	}
	Fee struct {
		Cents int64 `json:"cents"`
	}
)

func inCents(o Euros) Cents { return Cents{o.Euros * 100} }

func schema(opts ...jetstream.SchemaOption) *jetstream.Schema {
	return jetstream.NewSchema("account", opts...)
}

var (
	v1 = schema(jetstream.Event[Euros]("deposited"))
	v2 = schema(jetstream.Event[Cents]("deposited", jetstream.Version(2), jetstream.Upcast(inCents)))
)

// keeper runs Golden in one directory.
type keeper struct {
	t   *testing.T
	dir string
}

// says runs Golden and wants it to fail with the words, or not at all.
func (k keeper) says(s *jetstream.Schema, samples []any, words ...string) {
	k.t.Helper()
	before := k.stored()
	text := natstest.Failure(k.t, func(t testing.TB) { schematest.Golden(t, s, k.dir, samples...) })
	if len(words) == 0 && text != "" {
		k.t.Errorf("fails: %s", text)
	}
	if len(words) > 0 && text == "" {
		k.t.Errorf("does not fail, want %q", words)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			k.t.Errorf("says %q, want %q", text, w)
		}
	}
	// Whatever happens, what was stored is not written again.
	after := k.stored()
	for path, data := range before {
		if after[path] != data {
			k.t.Errorf("%s was %s, is %s", path, data, after[path])
		}
	}
}

// updating is says with files to be written.
func (k keeper) updating(s *jetstream.Schema, samples []any, words ...string) {
	k.t.Helper()
	k.t.Setenv("ROSSBY_UPDATE", "1")
	k.says(s, samples, words...)
	k.t.Setenv("ROSSBY_UPDATE", "0")
}

// stored is the part of each file that must never change.
func (k keeper) stored() map[string]string {
	k.t.Helper()
	out := map[string]string{}
	for _, name := range k.names() {
		var f map[string]json.RawMessage
		if err := json.Unmarshal(k.read(name), &f); err != nil {
			continue
		}
		out[name] = fmt.Sprintf("%s %s %s %s %s", f["type"], f["event"], f["version"], f["json"], f["msgpack"])
	}
	return out
}

func (k keeper) names() []string {
	k.t.Helper()
	paths, err := filepath.Glob(filepath.Join(k.dir, "*.json"))
	if err != nil {
		k.t.Fatal(err)
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	slices.Sort(paths)
	return paths
}

func (k keeper) read(name string) []byte {
	k.t.Helper()
	data, err := os.ReadFile(filepath.Join(k.dir, name))
	if err != nil {
		k.t.Fatal(err)
	}
	return data
}

func keep(t *testing.T) keeper {
	t.Helper()
	return keeper{t, filepath.Join(t.TempDir(), "events")}
}

// Every step of a schema's life that is right, with the file it adds.
//
//nolint:paralleltest // sets the environment
func TestALife(t *testing.T) {
	k := keep(t)
	files := func(want ...string) {
		t.Helper()
		if got := k.names(); !slices.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
	}
	k.says(v1, nil, `no golden file has event "deposited" in version 1: give a schematest_test.Euros`)
	k.says(v1, []any{Euros{Euros: 5}}, `not recorded yet as "deposited" version 1`, "ROSSBY_UPDATE=1 go test", "no golden file")
	files()
	k.updating(v1, []any{Euros{Euros: 5}})
	files("deposited.v1.json")
	k.says(v1, []any{Euros{Euros: 5}})
	k.says(v1, []any{&Euros{Euros: 5}})
	k.says(v1, nil)
	// A second sample.
	both := []any{Euros{Euros: 5}, Euros{Euros: 7, By: "<Ann> & \"Bob\""}}
	k.says(v1, both, `sample 2, schematest_test.Euros: it is not recorded yet`)
	k.updating(v1, both)
	files("deposited.v1-2.json", "deposited.v1.json")
	want := `{
  "type": "account",
  "event": "deposited",
  "version": 1,
  "json": {
    "euros": 7,
    "by": "<Ann> & \"Bob\""
  },
  "msgpack": "82a56575726f7307a26279ad3c416e6e3e20262022426f6222",
  "reads": [
    {
      "event": "deposited",
      "data": {
        "euros": 7,
        "by": "<Ann> & \"Bob\""
      }
    }
  ]
}
`
	if got := string(k.read("deposited.v1-2.json")); got != want {
		t.Errorf("file %s", got)
	}
	// The second version: it needs a file, and the first is read as another event.
	k.says(v2, nil, `no golden file has event "deposited" in version 2`, `read as something else now`,
		`was: deposited {"euros":5}`, `is:  deposited {"cents":500}`)
	k.updating(v2, []any{Cents{700}})
	files("deposited.v1-2.json", "deposited.v1.json", "deposited.v2.json")
	k.says(v2, []any{Cents{700}, Euros{Euros: 5}})
	// A field more: the old files read the same but for it.
	more := schema(jetstream.Event[Amount]("deposited", jetstream.Version(2),
		jetstream.Upcast(func(o Euros) Amount { return Amount{Cents: o.Euros * 100} })))
	k.says(more, nil, `is:  deposited {"cents":700,"note":""}`)
	k.updating(more, []any{Amount{800, "x"}})
	files("deposited.v1-2.json", "deposited.v1.json", "deposited.v2-2.json", "deposited.v2.json")
	// Another name: the old one's files stay.
	renamed := schema(jetstream.Event[Amount]("credited", jetstream.Version(2),
		jetstream.Upcast(func(o Euros) Amount { return Amount{Cents: o.Euros * 100} })), jetstream.Renamed("deposited", "credited"))
	k.updating(renamed, nil)
	k.says(renamed, nil)
	// Retired, then removed.
	retired := schema(jetstream.Event[Fee]("charged"), jetstream.Renamed("deposited", "credited"),
		jetstream.Retired("credited", jetstream.Version(2),
			jetstream.Upcast(func(o Euros) Amount { return Amount{Cents: o.Euros * 100} }),
			jetstream.UpcastMany(func(o Amount) []any { return []any{Fee{o.Cents}, Fee{1}} })))
	k.updating(retired, []any{Fee{3}})
	// A sample counts under whatever name it was recorded.
	k.says(retired, []any{Amount{800, "x"}, Euros{Euros: 5}, Fee{3}})
	k.says(retired, []any{schematest.Stored{Name: "credited", Version: 2, Event: Amount{800, "x"}}}, "not recorded yet")
	removed := schema(jetstream.Event[Fee]("charged"), jetstream.Removed("deposited"))
	k.updating(removed, []any{Fee{3}, schematest.Stored{Name: "deposited", Version: 1, Event: Euros{Euros: 5}}})
	k.says(removed, nil)
	files("charged.v1.json", "deposited.v1-2.json", "deposited.v1.json", "deposited.v2-2.json", "deposited.v2.json")
}

// What would make stored events unreadable fails with what to do about it, and
// cannot be recorded away.
//
//nolint:paralleltest // sets the environment
func TestMistakesAreFound(t *testing.T) {
	deposited := jetstream.Event[Cents]("deposited", jetstream.Version(2), jetstream.Upcast(inCents))
	for name, c := range map[string]struct {
		schema *jetstream.Schema
		want   []string
	}{
		"event deleted": {schema(jetstream.Event[Fee]("charged")), []string{`schema of "account" has forgotten it`, "Renamed, Retired or Removed", "deposited.v1.json", "deposited.v2.json"}},
		"wire name changed": {
			schema(jetstream.Event[Cents]("Deposited", jetstream.Version(2), jetstream.Upcast(inCents))), []string{`event "deposited" is stored somewhere`},
		},
		"type renamed":       {jetstream.NewSchema("accounts", deposited), []string{`aggregate type "account"`, `schema of "accounts"`}},
		"field's type":       {schema(jetstream.Event[Text]("deposited", jetstream.Version(2), jetstream.Upcast(func(Euros) Text { return Text{} }))), []string{"can no longer be read", "type of a field changed", "jetstream.Upcast"}},
		"field's name":       {schema(jetstream.Event[Retagged]("deposited", jetstream.Version(2), jetstream.Upcast(func(o Euros) Retagged { return Retagged{o.Euros * 100} }))), []string{`unknown field "cents"`, "renamed or dropped", "deposited.v2.json"}},
		"old field's name":   {schema(jetstream.Event[Cents]("deposited", jetstream.Version(2), jetstream.Upcast(func(o Retagged) Cents { return Cents{o.Amount} }))), []string{`unknown field "euros"`, "deposited.v1.json"}},
		"upcaster forgotten": {schema(jetstream.Event[Cents]("deposited", jetstream.Version(2))), []string{`of "deposited" needs 1 upcasters, declared are 0`}},
		"version taken back": {schema(jetstream.Event[Cents]("deposited")), []string{"stored in version 2, and the schema knows 1", "versions only grow"}},
		"version forgotten":  {schema(jetstream.Event[Amount]("deposited", jetstream.Version(3), jetstream.Upcast(inCents), jetstream.Upcast(func(o Cents) Amount { return Amount{Cents: o.Cents} }))), []string{`no golden file has event "deposited" in version 3`}},
		"former name":        {schema(deposited, jetstream.Renamed("paid-in", "deposited")), []string{`former name "paid-in" of event "deposited"`, "schematest.Stored"}},
		"upcaster panics":    {schema(jetstream.Event[Cents]("deposited", jetstream.Version(2), jetstream.Upcast(func(Euros) Cents { panic("no") }))), []string{"panicked: no"}},
		"retired, no sample": {schema(deposited, jetstream.Retired("moved", jetstream.Upcast(func(o Moved) Cents { return Cents(o) }))), []string{`event "moved" in version 1: give a schematest_test.Moved`}},
		"nil":                {nil, []string{"schema is nil"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := keep(t)
			k.updating(v2, []any{Cents{700}, Euros{Euros: 5}})
			before := k.names()
			k.says(c.schema, nil, c.want...)
			k.updating(c.schema, nil, c.want...)
			if after := k.names(); !slices.Equal(before, after) {
				t.Errorf("files %q became %q", before, after)
			}
		})
	}
	// An upcaster that changed its meaning fails until somebody has looked at it.
	k := keep(t)
	k.updating(v2, []any{Cents{700}, Euros{Euros: 5}})
	other := schema(jetstream.Event[Cents]("deposited", jetstream.Version(2), jetstream.Upcast(func(o Euros) Cents { return Cents{o.Euros} })))
	k.says(other, nil, "read as something else now", `was: deposited {"cents":500}`, `is:  deposited {"cents":5}`)
	k.updating(other, nil)
	k.says(other, nil)
	k.says(v2, nil, "read as something else")
}

//nolint:paralleltest // sets the environment
func TestSamples(t *testing.T) {
	k := keep(t)
	twice := schema(
		jetstream.Event[Cents]("deposited", jetstream.Version(3), jetstream.Upcast(inCents), jetstream.Upcast(func(o Cents) Cents { return o })),
		jetstream.Event[Fee]("charged", jetstream.Version(2), jetstream.Upcast(func(o Moved) Fee { return Fee(o) })),
		jetstream.Retired("moved", jetstream.Upcast(func(o Moved) Fee { return Fee(o) })),
		jetstream.Renamed("paid-in", "deposited"), jetstream.Removed("noise"))
	all := []any{
		Cents{1}, Euros{Euros: 2}, schematest.Stored{Name: "deposited", Version: 2, Event: Cents{3}},
		schematest.Stored{Name: "paid-in", Version: 1, Event: Euros{Euros: 4}}, Fee{5},
		schematest.Stored{Name: "charged", Version: 1, Event: Moved{6}}, schematest.Stored{Name: "moved", Version: 1, Event: Moved{6}},
		schematest.Stored{Name: "noise", Version: 4, Event: Text{"loud"}},
	}
	k.updating(twice, all)
	k.says(twice, all)
	want := []string{
		"charged.v1.json", "charged.v2.json", "deposited.v1.json", "deposited.v2.json", "deposited.v3.json", "moved.v1.json",
		"noise.v4.json", "paid-in.v1.json",
	}
	if got := k.names(); !slices.Equal(got, want) {
		t.Errorf("files %q", got)
	}
	for words, sample := range map[string]any{
		"it is nil":                                        nil,
		"no event of schema":                               Text{},
		"no event of schema \"account\" has":               5,
		`version 1 of "charged" and version 1 of "moved"`:  Moved{1},
		`no event "x" and never had`:                       schematest.Stored{Name: "x", Version: 1, Event: Cents{}},
		`"deposited" has 3 versions, not 4`:                schematest.Stored{Name: "deposited", Version: 4, Event: Cents{}},
		"below 1":                                          schematest.Stored{Name: "deposited", Event: Cents{}},
		"event is nil":                                     schematest.Stored{Name: "deposited", Version: 1},
		"schematest_test.Euros, not schematest_test.Cents": schematest.Stored{Name: "deposited", Version: 1, Event: Cents{}},
	} {
		k.says(twice, []any{sample}, words, "sample 1, ")
	}
}

// Files are golden: what was edited by hand is found.
//
//nolint:paralleltest // sets the environment
func TestEditedFiles(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"no JSON":         {"{", "", "deposited.v1.json: "},
		"unknown field":   {`"type"`, `"kind": 1, "type"`, `unknown field "kind"`},
		"no hexadecimal":  {`"msgpack": "81`, `"msgpack": "8x`, "not hexadecimal"},
		"other msgpack":   {`7305"`, `7306"`, "read differently from each codec"},
		"broken msgpack":  {`7305"`, `73c1"`, "can no longer be read"},
		"version":         {`"version": 1`, `"version": 9`, "stored in version 9"},
		"version 0":       {`"version": 1`, `"version": 0`, "can no longer be read"},
		"other reading":   {`"data": {`, `"data": {"x": 1,`, "read as something else"},
		"other aggregate": {`"account"`, `"order"`, `aggregate type "order"`},
	} {
		k := keep(t)
		k.updating(v1, []any{Euros{Euros: 5}})
		text := strings.Replace(string(k.read("deposited.v1.json")), c.from, c.to, 1)
		if err := os.WriteFile(filepath.Join(k.dir, "deposited.v1.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { keeper{t, k.dir}.says(v1, nil, c.want) })
	}
	// A directory that cannot be read or written.
	k := keep(t)
	if err := os.WriteFile(k.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.says(v1, nil, "events")
}
