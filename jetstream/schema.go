package jetstream

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/rossby-go/rossby/internal/codec"
)

// Schema is the list of one aggregate type's events: their names as stored, their
// Go types, and how older versions of them become the current ones. It belongs
// into a package without commands, so that views and gateways need no more.
//
// A Schema is immutable and may be shared. Mistakes in its definition are kept
// and returned by [Schema.Err] and by everything that is given the schema.
type Schema struct {
	name    string
	byName  map[string]*eventDef
	byType  map[reflect.Type]*eventDef
	renamed map[string]string
	removed map[string]bool
	err     error
}

type eventDef struct {
	name string
	// typ is nil for an event that is retired.
	typ reflect.Type
	// version is the current one; that of a retired event was never stored.
	version int
	// upcasters[i] turns version i+1 into version i+2.
	upcasters []upcaster
}

// stored is the last version that may be stored.
func (d *eventDef) stored() int {
	if d.typ == nil {
		return d.version - 1
	}
	return d.version
}

// SchemaOption declares a part of a [Schema].
type SchemaOption func(*Schema) error

// EventOption declares more about one event.
type EventOption func(*eventDef) error

// NewSchema declares the events of an aggregate type. Names are written out,
// never derived from Go's, so that renaming a Go type changes nothing stored.
//
//	var Events = jetstream.NewSchema("account",
//		jetstream.Event[Opened]("opened"),
//		jetstream.Event[Credited]("credited"),
//	)
func NewSchema(aggregateType string, opts ...SchemaOption) *Schema {
	s := &Schema{
		name: aggregateType, byName: map[string]*eventDef{}, byType: map[reflect.Type]*eventDef{},
		renamed: map[string]string{}, removed: map[string]bool{},
	}
	errs := []error{ValidateName("aggregate type", aggregateType)}
	for _, o := range opts {
		if o == nil {
			errs = append(errs, errors.New("an option is nil"))
			continue
		}
		errs = append(errs, o(s))
	}
	errs = append(errs, s.checkRenamed(), s.checkRetired(), s.checkRemoved())
	if len(s.byType) == 0 {
		errs = append(errs, errors.New("no events are declared"))
	}
	if err := errors.Join(errs...); err != nil {
		s.err = fmt.Errorf("schema of %q: %w", aggregateType, err)
	}
	return s
}

// checkRenamed makes every old name lead straight to the current one.
func (s *Schema) checkRenamed() error {
	var errs []error
	names := map[string]string{}
	for _, old := range slices.Sorted(maps.Keys(s.renamed)) {
		name, steps := s.renamed[old], 0
		for s.renamed[name] != "" && steps < len(s.renamed) {
			name = s.renamed[name]
			steps++
		}
		switch {
		case steps == len(s.renamed):
			errs = append(errs, &InvalidError{Field: "renamed event", Value: old, Reason: "leads back to itself"})
		case s.byName[old] != nil:
			errs = append(errs, &InvalidError{Field: "renamed event", Value: old, Reason: "is declared as an event, too"})
		case s.byName[name] == nil && !s.removed[name]:
			errs = append(errs, &InvalidError{
				Field: "renamed event", Value: old, Reason: "leads to " + strconv.Quote(name) + ", which is not declared",
			})
		}
		names[old] = name
	}
	s.renamed = names
	return errors.Join(errs...)
}

// checkRetired finds retired events that become no event of the schema. That of
// [UpcastMany] shows only when it is called.
func (s *Schema) checkRetired() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		d := s.byName[name]
		if d.typ != nil || len(d.upcasters) == 0 {
			continue
		}
		if to := d.upcasters[len(d.upcasters)-1].to; to != nil && s.byType[to] == nil {
			errs = append(errs, &InvalidError{
				Field: "retired event", Value: name, Reason: "becomes " + to.String() + ", which is no event of the schema",
			})
		}
	}
	return errors.Join(errs...)
}

func (s *Schema) checkRemoved() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.removed)) {
		if s.renamed[name] != "" || s.byName[name] != nil {
			errs = append(errs, &InvalidError{Field: "removed event", Value: name, Reason: "is declared as an event, too"})
		}
	}
	return errors.Join(errs...)
}

// Event declares an event, the struct T, under the name it is stored with.
func Event[T any](name string, opts ...EventOption) SchemaOption {
	return func(s *Schema) error {
		d := &eventDef{name: name, typ: reflect.TypeFor[T](), version: 1}
		errs := []error{validateWireName(name), d.apply(opts)}
		if d.typ.Kind() != reflect.Struct {
			errs = append(errs, &InvalidError{Field: "event type", Value: d.typ.String(), Reason: "is not a struct"})
		} else {
			errs = append(errs, codec.Check(d.typ))
		}
		errs = append(errs, d.checkUpcasters())
		if s.byName[name] != nil {
			errs = append(errs, declaredTwice(name))
		}
		if other := s.byType[d.typ]; other != nil {
			errs = append(errs, &InvalidError{
				Field: "event type", Value: d.typ.String(), Reason: "is declared as " + other.name + ", too",
			})
		}
		s.byName[name], s.byType[d.typ] = d, d
		return errors.Join(errs...)
	}
}

func declaredTwice(name string) error {
	return &InvalidError{Field: "event name", Value: name, Reason: "is declared twice"}
}

func (d *eventDef) apply(opts []EventOption) error {
	var errs []error
	for _, o := range opts {
		if o == nil {
			errs = append(errs, fmt.Errorf("an option of event %q is nil", d.name))
			continue
		}
		errs = append(errs, o(d))
	}
	return errors.Join(errs...)
}

// Retired declares an event that is no longer written but may be stored. It has
// no Go type of its own any more: its upcasters, one for each version that was
// stored, make current events of the schema of it, or none. [Version] is the last
// one that was stored.
//
//	jetstream.Retired("moved", jetstream.UpcastMany(func(e Moved) []any {
//		return []any{Left{From: e.From}, Arrived{To: e.To}}
//	})),
func Retired(name string, opts ...EventOption) SchemaOption {
	return func(s *Schema) error {
		d := &eventDef{name: name, version: 1}
		errs := []error{validateWireName(name), d.apply(opts)}
		d.version++
		errs = append(errs, d.checkUpcasters())
		if s.byName[name] != nil {
			errs = append(errs, declaredTwice(name))
		}
		s.byName[name] = d
		return errors.Join(errs...)
	}
}

// Renamed declares that events stored as old are now called name, which may have
// been renamed again: declare each step, or lead old straight to the name of
// today. Versions are counted on across names: the first upcaster of the event
// gets its version 1, whatever it was called then.
func Renamed(old, name string) SchemaOption {
	return func(s *Schema) error {
		if _, twice := s.renamed[old]; twice {
			return &InvalidError{Field: "renamed event", Value: old, Reason: "is declared twice"}
		}
		s.renamed[old] = name
		return validateWireName(old)
	}
}

// Removed declares that there is no such event any more, and that those stored
// mean nothing now: they are read as if they were not there, but versions count
// them. A program that knows neither the event nor its removal stops at one.
func Removed(name string) SchemaOption {
	return func(s *Schema) error {
		s.removed[name] = true
		return validateWireName(name)
	}
}

// Version declares the current version of an event's schema; 1 is the default.
// Version n needs n-1 upcasters, oldest first.
func Version(n int) EventOption {
	return func(d *eventDef) error {
		d.version = n
		if n < 1 {
			return &InvalidError{Field: "event version", Value: strconv.Itoa(n), Reason: "is below 1"}
		}
		return nil
	}
}

// Type is the aggregate type.
func (s *Schema) Type() string { return s.name }

// Err returns every mistake in the definition, joined.
func (s *Schema) Err() error { return s.err }

// Names lists the names of the events that may be written, sorted.
func (s *Schema) Names() []string {
	names := make([]string, 0, len(s.byType))
	for _, d := range s.byType {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return names
}

// GoType is the Go type of an event, nil for a name that is not declared or is
// retired.
func (s *Schema) GoType(name string) reflect.Type {
	if d := s.byName[name]; d != nil {
		return d.typ
	}
	return nil
}

// NameOf is the wire name of a Go type; false when it is not an event of the
// schema.
func (s *Schema) NameOf(t reflect.Type) (string, bool) {
	if d := s.byType[t]; d != nil {
		return d.name, true
	}
	return "", false
}

// WireNames lists every name under which an event may be stored, those of renamed,
// retired and removed events too, sorted.
func (s *Schema) WireNames() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(s.byName)), maps.Keys(s.renamed))
	names = slices.AppendSeq(names, maps.Keys(s.removed))
	slices.Sort(names)
	return names
}

// CurrentName is the name that a stored event's name has become; an unknown one
// is returned as it is.
func (s *Schema) CurrentName(stored string) string {
	if now, ok := s.renamed[stored]; ok {
		return now
	}
	return stored
}

// StoredNames lists every name under which something may be stored that is read
// as one of the named events: their own, those they had before, and those of
// events whose upcasters may make them. Sorted. Filters such as [Range.Events] take
// it.
func (s *Schema) StoredNames(events ...string) []string {
	sources := map[string]bool{}
	for name, d := range s.byName {
		if slices.Contains(events, name) && d.typ != nil {
			sources[name] = true
		}
		for _, u := range d.upcasters {
			// A function that returns anything may return any event.
			if u.to == nil || s.byType[u.to] != nil && slices.Contains(events, s.byType[u.to].name) {
				sources[name] = true
			}
		}
	}
	names := make([]string, 0, len(sources))
	for _, stored := range s.WireNames() {
		if sources[s.CurrentName(stored)] {
			names = append(names, stored)
		}
	}
	return names
}

// Versions are the Go types of the versions that may be stored under a name, from
// version 1 on: what the upcasters take, then the current type. nil for a name that
// the schema lacks. Tests of a schema use it.
func (s *Schema) Versions(stored string) []reflect.Type {
	d := s.byName[s.CurrentName(stored)]
	if d == nil {
		return nil
	}
	types := make([]reflect.Type, 0, d.stored())
	for _, u := range d.upcasters {
		types = append(types, u.from)
	}
	if d.typ != nil {
		types = append(types, d.typ)
	}
	return types
}

// Signature is the schema's event names and versions as text: it changes when,
// and only when, one of them does.
func (s *Schema) Signature() string {
	names := slices.Sorted(maps.Keys(s.byName))
	parts := append(make([]string, 0, 1+len(names)), s.name)
	for _, name := range names {
		version := "retired"
		if d := s.byName[name]; d.typ != nil {
			version = strconv.Itoa(d.version)
		}
		parts = append(parts, name+"="+version)
	}
	return strings.Join(parts, ",")
}
