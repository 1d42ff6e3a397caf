package jetstream_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
)

// The history of one schema: "moved" was split into "charged" and "credited",
// "paid" was merged into "credited" after its own second version, "noise" and
// "hushed", once "quiet", were dropped, "added" was renamed to "deposited" and then to "credited", which is in
// its third version.
type (
	moved struct {
		Cents int64 `json:"cents"`
	}
	paidV1 struct {
		Euros int64 `json:"euros"`
	}
	paid struct {
		Cents int64 `json:"cents"`
	}
	noise struct {
		Loud bool `json:"loud"`
	}
)

var evolved = jetstream.NewSchema("account",
	jetstream.Event[credit]("credited", jetstream.Version(3),
		jetstream.Upcast(func(o creditV1) creditV2 { return creditV2{Cents: o.Euros * 100} }),
		jetstream.Upcast(func(o creditV2) credit { return credit{Cents: o.Cents, Note: "was 2"} }),
	),
	jetstream.Event[fee]("charged"),
	jetstream.Renamed("added", "deposited"),
	jetstream.Renamed("deposited", "credited"),
	jetstream.Renamed("transferred", "moved"),
	jetstream.Retired("moved", jetstream.UpcastMany(func(o moved) []any {
		return []any{fee(o), credit{Cents: o.Cents}}
	})),
	jetstream.Retired("paid", jetstream.Version(2),
		jetstream.Upcast(func(o paidV1) paid { return paid{Cents: o.Euros * 100} }),
		jetstream.Upcast(func(o paid) credit { return credit{Cents: o.Cents, Note: "was paid"} }),
	),
	jetstream.Retired("noise", jetstream.UpcastMany(func(noise) []any { return nil })),
	jetstream.Removed("hushed"),
	jetstream.Renamed("quiet", "hushed"),
)

// AC-A13: the rules of Eventuate's schema manager, and those of what it leaves out.
func TestEvolution(t *testing.T) {
	t.Parallel()
	if err := evolved.Err(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		stored jetstream.EventData
		want   []any
	}{
		// shouldUpcastAndRename, shouldUpcastTwice, shouldUpcastOnce.
		"renamed and upcast twice":       {encodeAs(t, creditV1{Euros: 2}, "deposited", 1), []any{credit{200, "was 2"}}},
		"upcast twice":                   {encodeAs(t, creditV1{Euros: 2}, "credited", 1), []any{credit{200, "was 2"}}},
		"renamed and upcast once":        {encodeAs(t, creditV2{Cents: 7}, "deposited", 2), []any{credit{7, "was 2"}}},
		"upcast once":                    {encodeAs(t, creditV2{Cents: 7}, "credited", 2), []any{credit{7, "was 2"}}},
		"renamed only":                   {encodeAs(t, credit{7, "x"}, "deposited", 3), []any{credit{7, "x"}}},
		"current":                        {encodeAs(t, credit{7, "x"}, "credited", 3), []any{credit{7, "x"}}},
		"renamed twice":                  {encodeAs(t, credit{7, "x"}, "added", 3), []any{credit{7, "x"}}},
		"renamed twice and upcast twice": {encodeAs(t, creditV1{Euros: 2}, "added", 1), []any{credit{200, "was 2"}}},
		"split":                          {encodeAs(t, moved{5}, "moved", 1), []any{fee{5}, credit{5, ""}}},
		"renamed and split":              {encodeAs(t, moved{5}, "transferred", 1), []any{fee{5}, credit{5, ""}}},
		"merged":                         {encodeAs(t, paid{5}, "paid", 2), []any{credit{5, "was paid"}}},
		"upcast and merged":              {encodeAs(t, paidV1{5}, "paid", 1), []any{credit{500, "was paid"}}},
		"dropped":                        {encodeAs(t, noise{true}, "noise", 1), nil},
		"removed":                        {encodeAs(t, noise{true}, "hushed", 9), nil},
		"renamed and removed":            {encodeAs(t, noise{true}, "quiet", 1), nil},
	} {
		got, err := evolved.Decode(c.stored)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	// shouldPassThroughUnknownEventType and …AggregateType are a reader's explicit
	// policy here: TestDecoderPolicies, TestDecoderEvents.
	for name, stored := range map[string]jetstream.EventData{
		"unknown event": encodeAs(t, fee{}, "closed", 1), "beyond a retired event": encodeAs(t, paid{}, "paid", 3),
		"beyond a renamed event": encodeAs(t, credit{}, "added", 4),
	} {
		if got, err := evolved.Decode(stored); !errors.Is(err, jetstream.ErrUnknownEvent) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// shouldReturnLatestVersion, shouldReturnEmptyForUnknownType; and what is written
// bears the current version, always (Eventuate forgot it in places: A27).
func TestVersions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]reflect.Type{
		"credited":  {reflect.TypeFor[creditV1](), reflect.TypeFor[creditV2](), reflect.TypeFor[credit]()},
		"deposited": {reflect.TypeFor[creditV1](), reflect.TypeFor[creditV2](), reflect.TypeFor[credit]()},
		"charged":   {reflect.TypeFor[fee]()},
		"paid":      {reflect.TypeFor[paidV1](), reflect.TypeFor[paid]()},
		"closed":    nil,
	} {
		if got := evolved.Versions(name); !slices.Equal(got, want) {
			t.Errorf("versions of %s: %v", name, got)
		}
	}
	for _, event := range []any{credit{1, ""}, fee{1}} {
		e, err := evolved.Encode(event, jetstream.Msgpack)
		if err != nil || e.Version != len(evolved.Versions(e.Name)) {
			t.Errorf("%T is written as %+v, %v", event, e, err)
		}
	}
}

func TestRetiredEventsAreNotWritten(t *testing.T) {
	t.Parallel()
	for _, event := range []any{moved{}, paidV1{}, paid{}, noise{}, creditV1{}} {
		if _, err := evolved.Encode(event, jetstream.Msgpack); !errors.Is(err, jetstream.ErrUnknownEvent) {
			t.Errorf("%T: %v", event, err)
		}
		if _, ok := evolved.NameOf(reflect.TypeOf(event)); ok {
			t.Errorf("%T has a name", event)
		}
	}
	if got := evolved.Names(); !slices.Equal(got, []string{"charged", "credited"}) {
		t.Errorf("names %q", got)
	}
	if got := evolved.WireNames(); !slices.Equal(got, []string{"added", "charged", "credited", "deposited", "hushed", "moved", "noise", "paid", "quiet", "transferred"}) {
		t.Errorf("wire names %q", got)
	}
	if got := evolved.Signature(); got != "account,charged=1,credited=3,moved=retired,noise=retired,paid=retired" {
		t.Errorf("signature %q", got)
	}
	if evolved.GoType("moved") != nil || evolved.CurrentName("added") != "credited" || evolved.CurrentName("x") != "x" {
		t.Error("names and types differ")
	}
}

// What is read as an event may be stored under many names: filters need them all.
func TestStoredNames(t *testing.T) {
	t.Parallel()
	for want, events := range map[string][]string{
		// "noise" and "moved" have upcasters that may return anything.
		"added credited deposited moved noise paid transferred":         {"credited"},
		"charged moved noise transferred":                               {"charged"},
		"added charged credited deposited moved noise paid transferred": {"credited", "charged"},
		"moved noise transferred":                                       {"closed"},
	} {
		if got := strings.Join(evolved.StoredNames(events...), " "); got != want {
			t.Errorf("%q are stored as %s", events, got)
		}
	}
	plain := jetstream.NewSchema("account", jetstream.Event[fee]("charged"), jetstream.Event[credit]("credited"), jetstream.Renamed("paid", "charged"))
	if got := plain.StoredNames("charged"); !slices.Equal(got, []string{"charged", "paid"}) {
		t.Errorf("%q", got)
	}
	if got := plain.StoredNames(); len(got) != 0 {
		t.Errorf("nothing is stored as %q", got)
	}
}

// The events of a split are the schema's, with names and ids of their own.
func TestDecoderOfRetiredEvents(t *testing.T) {
	t.Parallel()
	dec, err := jetstream.NewDecoder(jetstream.StopOnUnknown, evolved)
	if err != nil {
		t.Fatal(err)
	}
	c := &jetstream.Commit{
		Head: jetstream.Head{CommitID: "c", Version: 3}, Type: "account", ID: "a1",
		EventNames: []string{"transferred", "noise", "added"},
		Decisions: []jetstream.Decision{{Events: []jetstream.EventData{
			encodeAs(t, moved{5}, "transferred", 1), encodeAs(t, noise{}, "noise", 1), encodeAs(t, credit{6, ""}, "added", 3),
		}}},
	}
	got, err := dec.Events(jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64), c)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		id, name string
		version  uint64
		event    any
	}
	rows := make([]row, 0, len(got))
	for _, r := range got {
		rows = append(rows, row{r.EventID, r.Name, r.Version, r.Event})
	}
	want := []row{{"c.0", "charged", 1, fee{5}}, {"c.0.1", "credited", 1, credit{5, ""}}, {"c.2", "credited", 3, credit{6, ""}}}
	if !slices.Equal(rows, want) {
		t.Errorf("got %+v", rows)
	}
}

func TestEvolutionMistakes(t *testing.T) {
	t.Parallel()
	event := jetstream.Event[fee]("a")
	toFee := jetstream.Upcast(func(split) fee { return fee{} })
	for name, c := range map[string]struct {
		opts []jetstream.SchemaOption
		want string
	}{
		"renamed to itself":      {[]jetstream.SchemaOption{event, jetstream.Renamed("b", "b")}, `"b" leads back to itself`},
		"renamed in a circle":    {[]jetstream.SchemaOption{event, jetstream.Renamed("b", "c"), jetstream.Renamed("c", "d"), jetstream.Renamed("d", "b")}, `"c" leads back to itself`},
		"chain to none":          {[]jetstream.SchemaOption{event, jetstream.Renamed("b", "c"), jetstream.Renamed("c", "d")}, `"b" leads to "d", which is not declared`},
		"renamed name in use":    {[]jetstream.SchemaOption{event, jetstream.Renamed("a", "b")}, `"a" is declared as an event, too`},
		"retired, no upcaster":   {[]jetstream.SchemaOption{event, jetstream.Retired("b")}, `"1" of "b" needs 1 upcasters, declared are 0`},
		"retired, too many":      {[]jetstream.SchemaOption{event, jetstream.Retired("b", toFee, toFee)}, `"1" of "b" needs 1 upcasters, declared are 2`},
		"retired into no event":  {[]jetstream.SchemaOption{event, jetstream.Retired("b", jetstream.Upcast(func(split) credit { return credit{} }))}, `"b" becomes jetstream_test.credit, which is no event`},
		"retired, broken chain":  {[]jetstream.SchemaOption{event, jetstream.Retired("b", jetstream.Version(2), toFee, toFee)}, "makes jetstream_test.fee, but version 2 is jetstream_test.split"},
		"retired and declared":   {[]jetstream.SchemaOption{event, jetstream.Retired("a", toFee)}, `"a" is declared twice`},
		"declared and retired":   {[]jetstream.SchemaOption{jetstream.Retired("a", toFee), event}, `"a" is declared twice`},
		"retired name":           {[]jetstream.SchemaOption{event, jetstream.Retired("b c", toFee)}, `"b c"`},
		"retired version":        {[]jetstream.SchemaOption{event, jetstream.Retired("b", jetstream.Version(0))}, "below 1"},
		"only retired":           {[]jetstream.SchemaOption{jetstream.Retired("b", jetstream.UpcastMany(func(split) []any { return nil }))}, "no events"},
		"removed and retired":    {[]jetstream.SchemaOption{event, jetstream.Retired("b", toFee), jetstream.Removed("b")}, `"b" is declared as an event, too`},
		"removed and renamed":    {[]jetstream.SchemaOption{event, jetstream.Renamed("b", "a"), jetstream.Removed("b")}, `"b" is declared as an event, too`},
		"nil option":             {[]jetstream.SchemaOption{event, nil}, "an option is nil"},
		"nil option of an event": {[]jetstream.SchemaOption{jetstream.Event[fee]("a", nil)}, `option of event "a" is nil`},
	} {
		s := jetstream.NewSchema("account", c.opts...)
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		// A schema with mistakes is no trap for who uses it all the same.
		for _, stored := range []string{"a", "b", "c"} {
			if got, err := s.Decode(encodeAs(t, split{}, stored, 1)); err == nil {
				t.Errorf("%s: decodes to %v", name, got)
			}
		}
		if _, err := s.Encode(fee{}, jetstream.Msgpack); err == nil {
			t.Errorf("%s: encodes", name)
		}
	}
}

// Fields come and go without a new version: what the data lacks is zero, what the
// type lacks is skipped.
func TestTolerantReading(t *testing.T) {
	t.Parallel()
	type before struct {
		Cents int64    `json:"cents"`
		Gone  []string `json:"gone"`
	}
	type now struct {
		Cents int64             `json:"cents"`
		Text  string            `json:"text"`
		List  []int             `json:"list"`
		Flags map[string]bool   `json:"flags"`
		Inner struct{ N int }   `json:"inner"`
		Maybe *int              `json:"maybe"`
		Names map[string]string `json:"names"`
	}
	for _, codec := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		old, err := jetstream.NewSchema("account", jetstream.Event[before]("e")).Encode(before{5, []string{"x"}}, codec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jetstream.NewSchema("account", jetstream.Event[now]("e")).Decode(old)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], now{Cents: 5}) {
			t.Errorf("%v: %+v, %v", codec, got, err)
		}
	}
}

// grumpy encodes and decodes itself, and panics where it can.
type grumpy struct{ quiet bool }

func (g grumpy) MarshalText() ([]byte, error) {
	if g.quiet {
		return []byte("x"), nil
	}
	panic("not in the mood")
}

func (*grumpy) UnmarshalText([]byte) error { panic("go away") }

type moody struct {
	G grumpy `json:"g"`
}

// A panic in what a user's type does to be stored is an error.
func TestPanicsOfTypes(t *testing.T) {
	t.Parallel()
	s := jetstream.NewSchema("account", jetstream.Event[moody]("moody"))
	for _, codec := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		if got, err := s.Encode(moody{}, codec); err == nil || !strings.Contains(err.Error(), "not in the mood") || got.Data != nil {
			t.Errorf("%v: %+v, %v", codec, got, err)
		}
		e, err := s.Encode(moody{grumpy{quiet: true}}, codec)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Decode(e); err == nil || !strings.Contains(err.Error(), "go away") || got != nil {
			t.Errorf("%v: %v, %v", codec, got, err)
		}
	}
}
