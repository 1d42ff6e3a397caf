package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

func TestOtherDefinition(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	def := func(version int, keyed bool) projection.AnyDefinition {
		h := projection.On(accountEvents, func(a *account, _ opened, _ jetstream.Meta) { a.Events += version })
		if keyed {
			return projection.NewKeyed("v", h).Version(version)
		}
		return projection.NewKeyed("v", h,
			projection.On(accountEvents, func(*account, credited, jetstream.Meta) {})).Version(version)
	}
	up := start(t, f.store, def(2, true), quiet())
	r := reader[account](t, f, "v")
	if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Events != 2 {
		t.Errorf("a1 is %+v", e)
	}
	for _, other := range []projection.AnyDefinition{def(2, false), def(1, true)} {
		var de *projection.DefinitionError
		if err := start(t, f.store, other, quiet()).wait(); !errors.As(err, &de) || de.Advice == "" {
			t.Errorf("Run: %v", err)
		}
	}
	// A higher version is built beside and takes the place; the old one ends.
	changes := make(chan projection.ChangeKind, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for c, err := range r.Watch(ctx, projection.WatchOptions{}) {
			if err != nil {
				return
			}
			changes <- c.Kind
		}
	}()
	seen := []projection.ChangeKind{<-changes, <-changes} // It has begun.
	start(t, f.store, def(3, false), quiet())
	if err := up.wait(); !errors.Is(err, projection.ErrSuperseded) {
		t.Errorf("Run: %v", err)
	}
	pos := f.append("a2", opened{})
	if e := get(t, r, "a1", projection.AtLeast(pos)); e.Value.Events != 3 || e.Generation != 2 {
		t.Errorf("a1 is %+v", e)
	}
	for len(seen) < 6 {
		seen = append(seen, <-changes)
	}
	want := []projection.ChangeKind{projection.Put, projection.Ready, projection.Reset, projection.Put, projection.Ready, projection.Put}
	alt := []projection.ChangeKind{projection.Put, projection.Ready, projection.Reset, projection.Put, projection.Put, projection.Ready}
	if !slices.Equal(seen, want) && !slices.Equal(seen, alt) {
		t.Errorf("watch saw %v", seen)
	}
	cancel()
	<-watched
	// Readers of the old version keep its generation.
	old, err := projection.NewReader[account](t.Context(), f.nc, f.store.Name(), "v", projection.ReaderConfig{Version: 2, OpenWait: natstest.Patience, Wait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	if e := get(t, old, "a1"); e.Value.Events != 2 || e.Generation != 1 {
		t.Errorf("a1 is %+v", e)
	}
	var de *projection.DefinitionError
	if _, err := projection.NewReader[account](t.Context(), f.nc, f.store.Name(), "v", projection.ReaderConfig{Version: 9}); !errors.As(err, &de) {
		t.Errorf("version 9: %v", err)
	}
}

func TestUnknownEvent(t *testing.T) {
	t.Parallel()
	newer := jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[closed]("frozen"))
	for _, policy := range []jetstream.UnknownPolicy{jetstream.StopOnUnknown, jetstream.SkipUnknown} {
		f := newFixture(t)
		f.append("a1", opened{})
		f.appendData("account", "a1", encode(t, newer, closed{}))
		f.append("a1", credited{Cents: 3})
		cfg := quiet()
		cfg.Unknown = policy
		up := start(t, f.store, accounts(), cfg)
		if policy == jetstream.StopOnUnknown {
			if err := up.wait(); !errors.Is(err, jetstream.ErrUnknownEvent) {
				t.Errorf("Run: %v", err)
			}
			if e := get(t, reader[account](t, f, "accounts"), "a1"); e.Value.Events != 1 {
				t.Errorf("a1 is %+v", e)
			}
			continue
		}
		if e := get(t, reader[account](t, f, "accounts"), "a1", projection.AtLeast(f.last)); e.Value.Cents != 3 {
			t.Errorf("a1 is %+v", e)
		}
	}
}

func TestUnsuitableKeysAndKV(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	keys := []string{"a1", "ü ber:x@y+z$", ".dot.", "a..b", "a.", "eu.a1", "=3D", "*>", "x/y_z-0"}
	def := projection.NewKeyed("v", projection.On(accountEvents, func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner },
		projection.Keys(func(e opened, _ jetstream.Meta) []string { return []string{e.Owner} })))
	for i, k := range keys {
		f.append(id(i), opened{Owner: k})
	}
	up := start(t, f.store, def, quiet())
	r := reader[account](t, f, "v")
	for _, k := range keys {
		if e := get(t, r, k, projection.AtLeast(f.last)); e.Value.Owner != k {
			t.Errorf("%q is %+v", k, e)
		}
	}
	var got []string
	for e, err := range r.List(t.Context(), projection.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Key)
	}
	if !slices.Equal(got, keys) {
		t.Errorf("listed %q", got)
	}
	for prefix, want := range map[string]int{"a.": 2, "eu.": 1, ".": 1, "ü": 1, "a": 3, "a..": 1, "no": 0} {
		n := 0
		for e, err := range r.List(t.Context(), projection.ListOptions{Prefix: prefix}) {
			if n++; err != nil || !strings.HasPrefix(e.Key, prefix) {
				t.Error(e, err)
			}
		}
		if n != want {
			t.Errorf("%d keys begin with %q", n, prefix)
		}
	}
	// nats.go and the nats command read plain JSON.
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(patient(t), f.store.Name()+"_v")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(patient(t), "1.a1")
	if err != nil {
		t.Fatal(err)
	}
	var v account
	if err := json.Unmarshal(entry.Value(), &v); err != nil || v.Owner != "a1" {
		t.Errorf("%s, %v", entry.Value(), err)
	}
	listed, err := kv.Keys(patient(t))
	if err != nil || len(listed) != len(keys)+2 {
		t.Errorf("keys %q, %v", listed, err)
	}
	// A key that cannot be is an error that names it.
	f.append("bad", opened{Owner: strings.Repeat("x", 600)})
	var ke *projection.KeyError
	if err := up.wait(); !errors.As(err, &ke) {
		t.Errorf("Run: %v", err)
	}
	if _, err := r.Get(t.Context(), ""); !errors.As(err, &ke) {
		t.Errorf("empty key: %v", err)
	}
}

func TestDefinitionMistakes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other := jetstream.NewSchema("other", jetstream.Event[closed]("closed"))
	fold := func(*account, closed, jetstream.Meta) {}
	for name, def := range map[string]projection.AnyDefinition{
		"name":    projection.NewKeyed("Bad_Name", projection.On(other, fold)),
		"none":    projection.NewKeyed[account]("v"),
		"twice":   projection.NewKeyed("v", projection.On(other, fold), projection.On(other, fold)),
		"foreign": projection.NewKeyed("v", projection.On(other, func(*account, opened, jetstream.Meta) {})),
		"nil":     projection.NewKeyed("v", projection.On(nil, fold)),
		"version": projection.NewKeyed("v", projection.On(other, fold)).Version(0),
		"value":   projection.NewKeyed("v", projection.On(other, func(*struct{ f func() }, closed, jetstream.Meta) {})),
	} {
		if _, err := projection.NewUpdater(f.store, def, projection.UpdaterConfig{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := projection.NewUpdater(f.store, accounts(), projection.UpdaterConfig{PageBytes: -1, LeaseTTL: 1}); err == nil ||
		!strings.Contains(err.Error(), "PageBytes") || !strings.Contains(err.Error(), "LeaseTTL") {
		t.Errorf("config: %v", err)
	}
}
