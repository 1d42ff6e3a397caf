package schematest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/rossby-go/rossby/internal/golden"
	"github.com/rossby-go/rossby/jetstream"
)

// Stored is a sample with the name and version that it is stored under, for those
// that its Go type does not tell: names of before a renaming, types that stand for
// several versions, events that were removed.
type Stored struct {
	Name    string
	Version int
	Event   any
}

// Golden keeps samples of a schema's events as they are stored, one file each in
// dir, with what they are read as. It fails when
//
//   - an event of any version, or under any name, that was recorded once can no
//     longer be read, loses a field, or is read as something else;
//   - an event, one of its versions, or one of its former names has no file;
//   - a sample is not recorded yet.
//
// A sample is an event, of the current version or of the Go type of an older one,
// or a [Stored]. Several of one event are welcome: with and without what may be
// empty. Files once recorded are checked for ever, whether or not a sample is still
// given.
//
// Files are written when the environment has ROSSBY_UPDATE=1, or the test a flag
// -update that is set. They belong to the sources. What a file holds as stored is
// never written anew: a sample that is encoded differently now gets another file.
// What it is read as is, so look at the difference before you commit it. Nothing is
// written while anything else is wrong.
func Golden(t testing.TB, schema *jetstream.Schema, dir string, samples ...any) {
	t.Helper()
	if schema == nil {
		t.Error("schematest: the schema is nil")
		return
	}
	if err := schema.Err(); err != nil {
		t.Errorf("schematest: %v", err)
		return
	}
	files, err := readFiles(dir)
	if err != nil {
		t.Errorf("schematest: %v", err)
		return
	}
	g := &goldens{schema: schema, dir: dir, files: files, update: golden.Update()}
	var errs []error
	for i, s := range samples {
		if err := g.sample(s); err != nil {
			errs = append(errs, fmt.Errorf("sample %d, %T: %w", i+1, s, err))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(g.files)) {
		if err := g.check(g.files[path]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	errs = append(errs, g.missing()...)
	if len(errs) == 0 {
		errs = g.write()
	}
	for _, err := range errs {
		t.Error(err)
	}
}

type goldens struct {
	schema *jetstream.Schema
	dir    string
	update bool
	// files are those in dir, by path; made are not there yet.
	files map[string]*file
	made  []*file
}

const howToRecord = "look at it and record it with " + golden.Env + "=1 go test"

// sample finds the sample's file, or records it.
func (g *goldens) sample(sample any) error {
	s, err := g.place(sample)
	if err != nil {
		return err
	}
	f, err := encode(g.schema.Type(), s)
	if err != nil {
		return err
	}
	_, exactly := sample.(Stored)
	for _, other := range g.all() {
		named := other.Event == f.Event || !exactly && g.schema.CurrentName(other.Event) == f.Event
		if named && other.same(f) {
			return nil
		}
	}
	if !g.update {
		return fmt.Errorf("it is not recorded yet as %q version %d: %s", s.Name, s.Version, howToRecord)
	}
	if f.Reads, err = g.read(f); err != nil {
		return err
	}
	g.made = append(g.made, f)
	return nil
}

// all are the files that are there and those that are made.
func (g *goldens) all() []*file {
	return slices.AppendSeq(slices.Clone(g.made), maps.Values(g.files))
}

// write writes what is new, and what is read as something else.
func (g *goldens) write() []error {
	var errs []error
	for path, f := range g.files {
		if f.changed {
			errs = append(errs, f.rewrite(path))
		}
	}
	for _, f := range g.made {
		errs = append(errs, f.create(g.dir))
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// place finds out which version of which event a sample is.
func (g *goldens) place(sample any) (Stored, error) {
	if s, ok := sample.(Stored); ok {
		return g.placeStored(s)
	}
	v := reflect.ValueOf(sample)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() {
		return Stored{}, errors.New("it is nil")
	}
	if name, ok := g.schema.NameOf(v.Type()); ok {
		return Stored{name, len(g.schema.Versions(name)), v.Interface()}, nil
	}
	var places []Stored
	for _, name := range g.schema.WireNames() {
		if g.schema.CurrentName(name) != name {
			continue
		}
		for i, typ := range g.schema.Versions(name) {
			if typ == v.Type() {
				places = append(places, Stored{name, i + 1, v.Interface()})
			}
		}
	}
	switch len(places) {
	case 0:
		return Stored{}, fmt.Errorf("no event of schema %q has this type, in any version", g.schema.Type())
	case 1:
		return places[0], nil
	}
	return Stored{}, fmt.Errorf("it is version %d of %q and version %d of %q: say which with schematest.Stored",
		places[0].Version, places[0].Name, places[1].Version, places[1].Name)
}

func (g *goldens) placeStored(s Stored) (Stored, error) {
	if !slices.Contains(g.schema.WireNames(), s.Name) {
		return Stored{}, fmt.Errorf("schema %q has no event %q and never had", g.schema.Type(), s.Name)
	}
	if s.Version < 1 {
		return Stored{}, fmt.Errorf("version %d of %q is below 1", s.Version, s.Name)
	}
	if s.Event == nil {
		return Stored{}, errors.New("its event is nil")
	}
	types := g.schema.Versions(s.Name)
	switch {
	case types == nil: // removed, whatever it was
	case s.Version > len(types):
		return Stored{}, fmt.Errorf("%q has %d versions, not %d", s.Name, len(types), s.Version)
	case types[s.Version-1] != reflect.TypeOf(s.Event):
		return Stored{}, fmt.Errorf("version %d of %q is %s, not %T", s.Version, s.Name, types[s.Version-1], s.Event)
	}
	return s, nil
}

// missing finds what of the schema has no file.
func (g *goldens) missing() []error {
	type version struct {
		name string
		n    int
	}
	recorded := map[version]bool{}
	names := map[string]bool{}
	for _, f := range g.all() {
		// A version counts under whatever name it was stored.
		recorded[version{g.schema.CurrentName(f.Event), f.Version}] = true
		names[f.Event] = true
	}
	var errs []error
	for _, name := range g.schema.WireNames() {
		types := g.schema.Versions(name)
		if now := g.schema.CurrentName(name); now != name {
			if !names[name] && types != nil {
				errs = append(errs, fmt.Errorf("no golden file has the former name %q of event %q: "+
					"give schematest.Stored{Name: %q, Version: …} as it was stored then", name, now, name))
			}
			continue
		}
		for i, typ := range types {
			if !recorded[version{name, i + 1}] {
				errs = append(errs, fmt.Errorf("no golden file has event %q in version %d: give a %s", name, i+1, typ))
			}
		}
	}
	return errs
}
