package jetstream_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
)

type (
	creditV1 struct {
		Euros int64 `json:"euros"`
	}
	creditV2 struct {
		Cents int64 `json:"cents"`
	}
	credit struct {
		Cents int64  `json:"cents"`
		Note  string `json:"note"`
	}
	fee struct {
		Cents int64 `json:"cents"`
	}
	split struct {
		Cents []int64 `json:"cents"`
	}
	stranger struct {
		A string `json:"a"`
	}
	hasFunc struct {
		F func() `json:"f"`
	}
	hasHidden struct {
		hidden int //nolint:unused // the schema is to find it
	}
)

var ledger = jetstream.NewSchema("account",
	jetstream.Event[credit]("credited", jetstream.Version(3),
		jetstream.Upcast(func(o creditV1) creditV2 { return creditV2{Cents: o.Euros * 100} }),
		jetstream.Upcast(func(o creditV2) credit { return credit{Cents: o.Cents, Note: "was 2"} }),
	),
	jetstream.Event[fee]("charged", jetstream.Version(2),
		jetstream.UpcastMany(func(o split) []any {
			var out []any
			for i, c := range o.Cents {
				if i%2 == 0 {
					out = append(out, fee{Cents: c})
				} else {
					out = append(out, &credit{Cents: c})
				}
			}
			return out
		}),
	),
	jetstream.Renamed("deposited", "credited"),
)

func encodeAs(t *testing.T, v any, name string, version int) jetstream.EventData {
	t.Helper()
	data, err := jetstream.Msgpack.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return jetstream.EventData{Name: name, Version: version, Data: data}
}

func TestSchemaMistakesAreFound(t *testing.T) {
	t.Parallel()
	up := func(o creditV1) creditV2 { return creditV2(struct{ Cents int64 }{o.Euros}) }
	var missing func(creditV1) credit
	for name, c := range map[string]struct {
		schema *jetstream.Schema
		want   []string
	}{
		"type":             {jetstream.NewSchema("Account", jetstream.Event[fee]("a")), []string{"aggregate type", "Account"}},
		"no events":        {jetstream.NewSchema("account"), []string{"no events"}},
		"no name":          {jetstream.NewSchema("account", jetstream.Event[fee]("")), []string{"event name", "empty"}},
		"name":             {jetstream.NewSchema("account", jetstream.Event[fee]("a,b")), []string{`"a,b"`}},
		"long name":        {jetstream.NewSchema("account", jetstream.Event[fee](strings.Repeat("n", 129))), []string{"longer than 128"}},
		"name twice":       {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Event[credit]("a")), []string{`"a" is declared twice`}},
		"type twice":       {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Event[fee]("b")), []string{"is declared as a, too"}},
		"no struct":        {jetstream.NewSchema("account", jetstream.Event[int]("a")), []string{"is not a struct"}},
		"pointer":          {jetstream.NewSchema("account", jetstream.Event[*fee]("a")), []string{"is not a struct"}},
		"func":             {jetstream.NewSchema("account", jetstream.Event[hasFunc]("a")), []string{"hasFunc.F"}},
		"unexported":       {jetstream.NewSchema("account", jetstream.Event[hasHidden]("a")), []string{"hasHidden.hidden"}},
		"version 0":        {jetstream.NewSchema("account", jetstream.Event[fee]("a", jetstream.Version(0))), []string{"below 1"}},
		"no upcaster":      {jetstream.NewSchema("account", jetstream.Event[fee]("a", jetstream.Version(2))), []string{"needs 1 upcasters, declared are 0"}},
		"no version":       {jetstream.NewSchema("account", jetstream.Event[creditV2]("a", jetstream.Upcast(up))), []string{"needs 0 upcasters"}},
		"chain's end":      {jetstream.NewSchema("account", jetstream.Event[credit]("a", jetstream.Version(2), jetstream.Upcast(up))), []string{"creditV2, but version 2 is", "credit"}},
		"chain's middle":   {jetstream.NewSchema("account", jetstream.Event[credit]("a", jetstream.Version(3), jetstream.Upcast(up), jetstream.Upcast(func(creditV1) credit { return credit{} }))), []string{"creditV2, but version 2 is"}},
		"nil upcaster":     {jetstream.NewSchema("account", jetstream.Event[credit]("a", jetstream.Version(2), jetstream.Upcast(missing))), []string{"nil function"}},
		"nil many":         {jetstream.NewSchema("account", jetstream.Event[credit]("a", jetstream.Version(2), jetstream.UpcastMany[fee](nil))), []string{"nil function"}},
		"old type":         {jetstream.NewSchema("account", jetstream.Event[credit]("a", jetstream.Version(2), jetstream.Upcast(func(hasFunc) credit { return credit{} }))), []string{"hasFunc.F"}},
		"renamed to none":  {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Renamed("b", "c")), []string{`"b" leads to "c"`}},
		"renamed declared": {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Event[credit]("b"), jetstream.Renamed("b", "a")), []string{`"b" is declared as an event`}},
		"renamed twice":    {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Renamed("b", "a"), jetstream.Renamed("b", "a")), []string{`"b" is declared twice`}},
		"renamed name":     {jetstream.NewSchema("account", jetstream.Event[fee]("a"), jetstream.Renamed("b ", "a")), []string{`"b "`}},
		"several":          {jetstream.NewSchema("", jetstream.Event[int](""), jetstream.Renamed("x", "y")), []string{"aggregate type", "event name", "not a struct", `"x" leads`}},
	} {
		err := c.schema.Err()
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		if _, err := jetstream.NewDecoder(jetstream.StopOnUnknown, c.schema); err == nil {
			t.Errorf("%s: a decoder takes it", name)
		}
	}
	if err := ledger.Err(); err != nil {
		t.Error(err)
	}
}

func TestSchemaNames(t *testing.T) {
	t.Parallel()
	if got := ledger.Names(); !slices.Equal(got, []string{"charged", "credited"}) {
		t.Errorf("names %q", got)
	}
	if got := ledger.WireNames(); !slices.Equal(got, []string{"charged", "credited", "deposited"}) {
		t.Errorf("wire names %q", got)
	}
	if got := ledger.Signature(); got != "account,charged=2,credited=3" {
		t.Errorf("signature %q", got)
	}
	if got, ok := ledger.NameOf(reflect.TypeFor[credit]()); got != "credited" || !ok {
		t.Errorf("name %q %v", got, ok)
	}
	if _, ok := ledger.NameOf(reflect.TypeFor[stranger]()); ok {
		t.Error("a stranger has a name")
	}
	if ledger.GoType("charged") != reflect.TypeFor[fee]() || ledger.GoType("deposited") != nil || ledger.Type() != "account" {
		t.Error("types differ")
	}
}

func TestSchemaEncode(t *testing.T) {
	t.Parallel()
	for _, cdc := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		byValue, err1 := ledger.Encode(credit{Cents: 5}, cdc)
		byPointer, err2 := ledger.Encode(&credit{Cents: 5}, cdc)
		if err1 != nil || err2 != nil || !reflect.DeepEqual(byValue, byPointer) {
			t.Errorf("%v: %v %v %v %v", cdc, byValue, err1, byPointer, err2)
		}
		if byValue.Name != "credited" || byValue.Version != 3 || byValue.Codec != cdc {
			t.Errorf("%+v", byValue)
		}
		got, err := ledger.Decode(byValue)
		if err != nil || !slices.Equal(got, []any{credit{Cents: 5}}) {
			t.Errorf("%v: %v %v", cdc, got, err)
		}
	}
	var none *credit
	for _, v := range []any{stranger{}, nil, none, 5, creditV1{}} {
		_, err := ledger.Encode(v, jetstream.Msgpack)
		if !errors.Is(err, jetstream.ErrUnknownEvent) || !strings.Contains(err.Error(), "not declared") {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func TestUpcasting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stored jetstream.EventData
		want   []any
	}{
		"1 to 3":         {encodeAs(t, creditV1{Euros: 2}, "credited", 1), []any{credit{Cents: 200, Note: "was 2"}}},
		"2 to 3":         {encodeAs(t, creditV2{Cents: 7}, "credited", 2), []any{credit{Cents: 7, Note: "was 2"}}},
		"current":        {encodeAs(t, credit{Cents: 7}, "credited", 3), []any{credit{Cents: 7}}},
		"renamed, old":   {encodeAs(t, creditV1{Euros: 1}, "deposited", 1), []any{credit{Cents: 100, Note: "was 2"}}},
		"to none":        {encodeAs(t, split{}, "charged", 1), nil},
		"to several":     {encodeAs(t, split{Cents: []int64{1, 2, 3}}, "charged", 1), []any{fee{1}, credit{Cents: 2}, fee{3}}},
		"many, currents": {encodeAs(t, fee{1}, "charged", 2), []any{fee{1}}},
	} {
		got, err := ledger.Decode(c.stored)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func TestUpcastersThatFail(t *testing.T) {
	t.Parallel()
	many := func(out ...any) *jetstream.Schema {
		return jetstream.NewSchema("account", jetstream.Event[fee]("charged", jetstream.Version(2),
			jetstream.UpcastMany(func(split) []any { return out })))
	}
	var none *fee
	for name, c := range map[string]struct {
		schema *jetstream.Schema
		want   string
	}{
		"panic": {jetstream.NewSchema("account", jetstream.Event[fee]("charged", jetstream.Version(2),
			jetstream.Upcast(func(split) fee { panic("boom") }))), "panicked: boom"},
		"foreign product": {many(stranger{}), "stranger, which is no event"},
		"old product":     {many(split{}), "split, which is no event"},
		"nil product":     {many(nil), "no event"},
		"nil pointer":     {many(none), "no event"},
	} {
		if err := c.schema.Err(); err != nil {
			t.Fatal(err)
		}
		got, err := c.schema.Decode(encodeAs(t, split{Cents: []int64{1}}, "charged", 1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSchemaDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stored jetstream.EventData
		want   error
	}{
		"unknown name":        {encodeAs(t, fee{}, "closed", 1), jetstream.ErrUnknownEvent},
		"newer version":       {encodeAs(t, fee{}, "charged", 3), jetstream.ErrUnknownEvent},
		"version 0":           {encodeAs(t, fee{}, "charged", 0), jetstream.ErrUnknownEvent},
		"encrypted":           {jetstream.EventData{Name: "charged", Version: 2, KeyRef: "k", Data: []byte{1}}, jetstream.ErrErased},
		"encrypted, unknown":  {jetstream.EventData{Name: "closed", Version: 2, KeyRef: "k"}, jetstream.ErrUnknownEvent},
		"newer renamed event": {encodeAs(t, fee{}, "deposited", 4), jetstream.ErrUnknownEvent},
	} {
		if got, err := ledger.Decode(c.stored); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := ledger.Decode(jetstream.EventData{Name: "charged", Version: 2, Data: []byte{0xc1}}); err == nil {
		t.Errorf("garbage: %v", got)
	}
	var unknown *jetstream.UnknownEventError
	_, err := ledger.Decode(encodeAs(t, fee{}, "closed", 4))
	if !errors.As(err, &unknown) || unknown.Name != "closed" || unknown.Version != 4 || unknown.Type != "account" {
		t.Errorf("%+v", unknown)
	}
}

func TestDecoderEvents(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	trig := jetstream.Decision{Kind: jetstream.KindTrigger, Outcome: jetstream.OutcomeNone}
	c := &jetstream.Commit{
		Head: jetstream.Head{Sequence: 50, CommitID: "c9", Ordinal: 4, Version: 15},
		Type: "account", ID: "a1", Time: storedAt, TraceParent: "of the commit",
		EventNames: []string{"credited", "charged", "charged", "deposited", "charged"},
		Decisions: []jetstream.Decision{
			{
				CommandID: "1", Time: decidedAt, Correlation: "co", Causation: "ca", Metadata: map[string]string{"u": "ann"},
				Events: []jetstream.EventData{
					encodeAs(t, credit{Cents: 1}, "credited", 3),
					encodeAs(t, split{Cents: []int64{2, 3, 4}}, "charged", 1),
				},
			},
			trig,
			{CommandID: "2", TraceParent: "own", Events: []jetstream.EventData{
				encodeAs(t, split{}, "charged", 1),
				encodeAs(t, creditV1{Euros: 5}, "deposited", 1),
				encodeAs(t, fee{6}, "charged", 2),
			}},
		},
	}
	dec, err := jetstream.NewDecoder(jetstream.StopOnUnknown, ledger)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dec.Events(s, c)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		id, name string
		version  uint64
		event    any
		trace    string
	}
	want := []row{
		{"c9.0", "credited", 11, credit{Cents: 1}, "of the commit"},
		{"c9.1", "charged", 12, fee{2}, "of the commit"},
		{"c9.1.1", "credited", 12, credit{Cents: 3}, "of the commit"},
		{"c9.1.2", "charged", 12, fee{4}, "of the commit"},
		// c9.2 was upcast to nothing; its version is used up all the same.
		{"c9.3", "credited", 14, credit{Cents: 500, Note: "was 2"}, "own"},
		{"c9.4", "charged", 15, fee{6}, "own"},
	}
	rows := make([]row, 0, len(got))
	for _, r := range got {
		rows = append(rows, row{r.EventID, r.Name, r.Version, r.Event, r.TraceParent})
		if r.Type != "account" || r.ID != "a1" || r.Position != s.Position(50) || r.StoredAt != storedAt {
			t.Errorf("meta %+v", r.Meta)
		}
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("got\n%+v\nwant\n%+v", rows, want)
	}
	if m := got[0].Meta; m.Time != decidedAt || m.Correlation != "co" || m.Causation != "ca" || m.Metadata["u"] != "ann" {
		t.Errorf("meta %+v", m)
	}
	if c.EventID(3) != "c9.3" || c.Events() != 5 {
		t.Errorf("%s of %d", c.EventID(3), c.Events())
	}
}

func TestDecoderPolicies(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	commit := func(events ...jetstream.EventData) *jetstream.Commit {
		c := &jetstream.Commit{Type: "account", ID: "a1", Head: jetstream.Head{CommitID: "c", Version: uint64(len(events))}, Decisions: []jetstream.Decision{{Events: events}}}
		for _, e := range events {
			c.EventNames = append(c.EventNames, e.Name)
		}
		return c
	}
	known := encodeAs(t, fee{1}, "charged", 2)
	for _, c := range []struct {
		name   string
		policy jetstream.UnknownPolicy
		event  jetstream.EventData
		stops  error
	}{
		{"unknown name", jetstream.StopOnUnknown, encodeAs(t, fee{}, "closed", 1), jetstream.ErrUnknownEvent},
		{"unknown name", jetstream.SkipUnknown, encodeAs(t, fee{}, "closed", 1), nil},
		{"unknown version", jetstream.StopOnUnknown, encodeAs(t, fee{}, "charged", 9), jetstream.ErrUnknownEvent},
		{"unknown version", jetstream.SkipUnknown, encodeAs(t, fee{}, "charged", 9), nil},
		{"encrypted", jetstream.SkipUnknown, jetstream.EventData{Name: "charged", Version: 2, KeyRef: "k"}, jetstream.ErrErased},
	} {
		dec, err := jetstream.NewDecoder(c.policy, ledger)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dec.Events(s, commit(known, c.event, known))
		switch {
		case c.stops != nil:
			if !errors.Is(err, c.stops) || !strings.Contains(err.Error(), `account "a1" version 2`) || got != nil {
				t.Errorf("%s, %d: %v, %v", c.name, c.policy, got, err)
			}
		case err != nil || len(got) != 2 || got[1].EventID != "c.2" || got[1].Version != 3:
			t.Errorf("%s, %d: %+v, %v", c.name, c.policy, got, err)
		}
	}
	dec, err := jetstream.NewDecoder(jetstream.StopOnUnknown, ledger, ledger)
	if err != nil {
		t.Fatal(err)
	}
	other := commit(known)
	other.Type = "other"
	if got, err := dec.Events(s, other); got != nil || err != nil || dec.Knows("other") || !dec.Knows("account") {
		t.Errorf("another type: %v %v", got, err)
	}
	if got := dec.Types(); !slices.Equal(got, []string{"account"}) {
		t.Errorf("types %q", got)
	}
	twin := jetstream.NewSchema("account", jetstream.Event[fee]("charged"))
	if _, err := jetstream.NewDecoder(jetstream.StopOnUnknown, ledger, twin, nil); err == nil ||
		!strings.Contains(err.Error(), "two schemas") || !strings.Contains(err.Error(), "nil") {
		t.Errorf("two schemas and none: %v", err)
	}
}
