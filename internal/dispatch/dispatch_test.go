package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	a struct{ N int }
	b struct{ N int }
	c struct{ N int }
	// aV1 is a's first version.
	aV1 struct{ Old int }
)

func schema(name string, opts ...jetstream.SchemaOption) *jetstream.Schema {
	return jetstream.NewSchema(name, append([]jetstream.SchemaOption{jetstream.Event[a]("a"), jetstream.Event[b]("b")}, opts...)...)
}

// table has handlers for the events of a schema that note what they get.
func table(t *testing.T, got *[]string, s *jetstream.Schema, events ...reflect.Type) *dispatch.Table {
	t.Helper()
	tab := dispatch.NewTable()
	add(t, tab, got, s, events...)
	if err := tab.Build(); err != nil {
		t.Fatal(err)
	}
	return tab
}

func add(t *testing.T, tab *dispatch.Table, got *[]string, s *jetstream.Schema, events ...reflect.Type) {
	t.Helper()
	for _, e := range events {
		err := tab.Add(s, e, func(_ context.Context, e dispatch.Event) error {
			*got = append(*got, fmt.Sprintf("%s %v %d %d", e.Type, e.Event, e.Epoch, e.Attempt))
			if e.Event == (b{13}) {
				return errors.New("unlucky")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T) *jetstream.Store {
	t.Helper()
	store, err := jetstream.Open(t.Context(), natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func configure(tab *dispatch.Table, store *jetstream.Store) follow.Config {
	var cfg follow.Config
	tab.Configure(&cfg, store, 3)
	return cfg
}

// store appends a commit of the events and returns it as a follower gets it.
func deliver(t *testing.T, store *jetstream.Store, s *jetstream.Schema, id string, events ...any) follow.Delivery {
	t.Helper()
	d := jetstream.Decision{}
	for _, e := range events {
		data, err := s.Encode(e, store.Codec())
		if err != nil {
			t.Fatal(err)
		}
		d.Events = append(d.Events, data)
	}
	_, err := store.Append(t.Context(), jetstream.Write{Type: s.Type(), ID: id, Decisions: []jetstream.Decision{d}})
	if err != nil {
		t.Fatal(err)
	}
	subject, err := store.Subject(s.Type(), id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := store.Conn().RequestWithContext(t.Context(), "$JS.API.DIRECT.GET."+store.Name()+"."+subject, nil)
	if err != nil {
		t.Fatal(err)
	}
	return follow.Delivery{
		Message: jetstream.Message{Subject: subject, Sequence: 7, Header: m.Header, Data: m.Data}, Epoch: 5, Attempt: 2,
	}
}

func TestEventsReachTheirHandlers(t *testing.T) {
	t.Parallel()
	store := open(t)
	var got []string
	one, two := schema("one"), schema("two")
	tab := dispatch.NewTable()
	// Two aggregate types share Go types; of "two" only b is handled.
	add(t, tab, &got, one, reflect.TypeFor[a](), reflect.TypeFor[b]())
	add(t, tab, &got, two, reflect.TypeFor[b]())
	if err := tab.Build(); err != nil {
		t.Fatal(err)
	}
	cfg := configure(tab, store)
	if cfg.Filter != "" || cfg.Version != 3 || cfg.Stream != store.Name() || cfg.StoreID != store.ID() {
		t.Errorf("%+v", cfg)
	}
	for _, d := range []follow.Delivery{
		deliver(t, store, one, "1", a{1}, b{2}), deliver(t, store, two, "1", a{3}, b{4}),
	} {
		if cfg.Skip(&d.Message) {
			t.Error("skipped", d.Subject)
		}
		if err := cfg.Handle(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"one {1} 5 2", "one {2} 5 1", "two {4} 5 2"}; !slices.Equal(got, want) {
		t.Error(got)
	}
	// The error names the event; those after it wait.
	got = nil
	err := cfg.Handle(t.Context(), deliver(t, store, one, "2", a{1}, b{13}, a{2}))
	if err == nil || !strings.Contains(err.Error(), `b of one "2", version 2`) || len(got) != 2 {
		t.Error(got, err)
	}
	// Skipped without being decoded.
	for what, d := range map[string]follow.Delivery{
		"not handled": deliver(t, store, two, "3", a{1}), "another type": deliver(t, store, schema("three"), "1", a{1}),
		"genesis": {Message: jetstream.Message{Subject: store.Name() + ".event._store.0.genesis"}},
	} {
		if !cfg.Skip(&d.Message) {
			t.Error("not skipped:", what)
		}
	}
}

// What this program does not know is neither skipped nor handled: it stops.
func TestUnknownEventsStop(t *testing.T) {
	t.Parallel()
	store := open(t)
	var got []string
	old := schema("one")
	cfg := configure(table(t, &got, old, reflect.TypeFor[a]()), store)
	if cfg.Filter != store.SubjectFilter("one") {
		t.Error(cfg.Filter)
	}
	newer := schema("one", jetstream.Event[c]("c"))
	d := deliver(t, store, newer, "1", b{1}, c{1})
	if cfg.Skip(&d.Message) {
		t.Error("skipped")
	}
	if err := cfg.Handle(t.Context(), d); !dispatch.Unreadable(err) || !errors.Is(err, jetstream.ErrUnknownEvent) {
		t.Error(err)
	}
	d.Data = []byte("garbage")
	if err := cfg.Handle(t.Context(), d); !dispatch.Unreadable(err) || !errors.Is(err, jetstream.ErrFormat) {
		t.Error(err)
	}
	if dispatch.Unreadable(errors.New("another")) || len(got) != 0 {
		t.Error(got)
	}
}

// What somebody planted past the store, where no commit stands before it, is not handled,
// and a person decides what becomes of it.
func TestPlantedCommitsAreParked(t *testing.T) {
	t.Parallel()
	store := open(t)
	var got []string
	tab := table(t, &got, schema("one"), reflect.TypeFor[a]())
	tab.Decide = func(follow.Failure) follow.Verdict { return follow.Verdict{Action: follow.Stop} }
	cfg := configure(tab, store)
	const expected = "Nats-Expected-Last-Subject-Sequence"
	sound := deliver(t, store, schema("one"), "1", a{1}, a{2})
	for what, edit := range map[string]func(d *follow.Delivery){
		"without an expectation": func(d *follow.Delivery) { delete(d.Header, expected) },
		// The server takes an empty one for none.
		"stored without an expectation": func(d *follow.Delivery) { d.Header[expected] = []string{""} },
		"follows one at 5":              func(d *follow.Delivery) { d.Header[expected] = []string{"5"} },
		"ordinal 2": func(d *follow.Delivery) {
			d.Header["Rossby-Chain"] = []string{"2 2 before"}
		},
	} {
		d := sound
		d.Header = maps.Clone(sound.Header)
		edit(&d)
		err := cfg.Handle(t.Context(), d)
		damage, ok := errors.AsType[*jetstream.DamageError](err)
		if !ok || damage.Kind != jetstream.DamageChain || damage.Sequence != 7 || damage.Subject != d.Subject || !strings.Contains(damage.Detail, what) {
			t.Errorf("%s: %v", what, err)
		}
		if v := cfg.Decide(follow.Failure{Message: d.Message, Attempt: 1, Err: err}); v.Action != follow.Park {
			t.Errorf("%s: %v", what, v)
		}
		if d.Done = 2; cfg.Handle(t.Context(), d) != nil {
			t.Errorf("%s: not given up with all of its events", what)
		}
	}
	// What a handler says of another aggregate is its own affair.
	handled := &dispatch.EventError{Err: &jetstream.DamageError{}}
	if v := cfg.Decide(follow.Failure{Attempt: 1, Err: handled}); v.Action != follow.Stop || len(got) != 0 {
		t.Error(v, got)
	}
	if err := cfg.Handle(t.Context(), sound); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
}

// An event that an upcaster turns into a handled one is not skipped by its name.
func TestUpcastEventsAreHandled(t *testing.T) {
	t.Parallel()
	store := open(t)
	old := jetstream.NewSchema("one", jetstream.Event[aV1]("first"))
	now := jetstream.NewSchema("one", jetstream.Event[b]("b"), jetstream.Renamed("first", "a"),
		jetstream.Event[a]("a", jetstream.Version(2), jetstream.UpcastMany(func(o aV1) []any { return []any{a{o.Old}, b{o.Old}} })))
	var got []string
	cfg := configure(table(t, &got, now, reflect.TypeFor[b]()), store)
	d := deliver(t, store, old, "1", aV1{4})
	if cfg.Skip(&d.Message) {
		t.Error("skipped")
	}
	if err := cfg.Handle(t.Context(), d); err != nil || !slices.Equal(got, []string{"one {4} 5 2"}) {
		t.Error(got, err)
	}
}

// The definition changes with what is handled, and with nothing else.
func TestDefinition(t *testing.T) {
	t.Parallel()
	store := open(t)
	typeA, typeB := reflect.TypeFor[a](), reflect.TypeFor[b]()
	definition := func(s *jetstream.Schema, events ...reflect.Type) string {
		return configure(table(t, new([]string), s, events...), store).Definition
	}
	base := definition(schema("one"), typeA)
	if again := definition(schema("one", jetstream.Event[c]("c")), typeA); again != base {
		t.Error("an event that is not handled changed the definition")
	}
	upcast := jetstream.Upcast(func(o aV1) a { return a{o.Old} })
	for what, other := range map[string]string{
		"another event": definition(schema("one"), typeB), "one more": definition(schema("one"), typeA, typeB),
		"another type": definition(schema("two"), typeA),
		"another version": definition(
			jetstream.NewSchema("one", jetstream.Event[a]("a", jetstream.Version(2), upcast)), typeA),
	} {
		if other == base {
			t.Error("the same definition for", what)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	tab := dispatch.NewTable()
	handler := func(context.Context, dispatch.Event) error { return nil }
	if err := tab.Build(); err == nil {
		t.Error("no handlers")
	}
	one := schema("one")
	if err := tab.Add(one, reflect.TypeFor[a](), handler); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"nil schema": tab.Add(nil, reflect.TypeFor[a](), handler), "twice": tab.Add(one, reflect.TypeFor[a](), handler),
		"not an event": tab.Add(one, reflect.TypeFor[c](), handler), "two schemas": tab.Add(schema("one"), reflect.TypeFor[b](), handler),
		"bad schema": tab.Add(schema("No Name"), reflect.TypeFor[a](), handler),
	} {
		if err == nil {
			t.Error(what)
		}
	}
}
