package jetstream

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

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
	name    string
	typ     reflect.Type
	version int
	// upcasters[i] turns version i+1 into version i+2.
	upcasters []upcaster
}

// upcaster turns one old event into any number of newer ones.
type upcaster struct {
	from reflect.Type
	to   reflect.Type // nil when the function may return anything
	call func(old any) ([]any, error)
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
		errs = append(errs, o(s))
	}
	for old, name := range s.renamed {
		if s.byName[name] == nil {
			errs = append(errs, &InvalidError{
				Field: "renamed event", Value: old, Reason: "leads to " + strconv.Quote(name) + ", which is not declared",
			})
		}
		if s.byName[old] != nil {
			errs = append(errs, &InvalidError{Field: "renamed event", Value: old, Reason: "is declared as an event, too"})
		}
	}
	for name := range s.removed {
		if _, renamed := s.renamed[name]; renamed || s.byName[name] != nil {
			errs = append(errs, &InvalidError{Field: "removed event", Value: name, Reason: "is declared as an event, too"})
		}
	}
	if len(s.byName) == 0 {
		errs = append(errs, errors.New("no events are declared"))
	}
	if err := errors.Join(errs...); err != nil {
		s.err = fmt.Errorf("schema of %q: %w", aggregateType, err)
	}
	return s
}

// Event declares an event, the struct T, under the name it is stored with.
func Event[T any](name string, opts ...EventOption) SchemaOption {
	return func(s *Schema) error {
		d := &eventDef{name: name, typ: reflect.TypeFor[T](), version: 1}
		errs := []error{validateWireName(name)}
		for _, o := range opts {
			errs = append(errs, o(d))
		}
		if d.typ.Kind() != reflect.Struct {
			errs = append(errs, &InvalidError{Field: "event type", Value: d.typ.String(), Reason: "is not a struct"})
		} else {
			errs = append(errs, codec.Check(d.typ))
		}
		errs = append(errs, d.checkUpcasters())
		if s.byName[name] != nil {
			errs = append(errs, &InvalidError{Field: "event name", Value: name, Reason: "is declared twice"})
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

// Renamed declares that events stored as old are now called name.
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

// Upcast turns an event of the version before into the next one. Upcasters run
// whenever an old event is read and must be pure.
func Upcast[From, To any](convert func(From) To) EventOption {
	return func(d *eventDef) error {
		d.upcasters = append(d.upcasters, upcaster{
			from: reflect.TypeFor[From](), to: reflect.TypeFor[To](),
			call: func(old any) ([]any, error) {
				from, ok := old.(From)
				if !ok {
					return nil, fmt.Errorf("upcaster wants %T, got %T", from, old)
				}
				return []any{convert(from)}, nil
			},
		})
		return checkUpcaster[From](convert == nil)
	}
}

// UpcastMany turns an event of the version before into none or several of the
// schema's current events.
func UpcastMany[From any](convert func(From) []any) EventOption {
	return func(d *eventDef) error {
		d.upcasters = append(d.upcasters, upcaster{
			from: reflect.TypeFor[From](),
			call: func(old any) ([]any, error) {
				from, ok := old.(From)
				if !ok {
					return nil, fmt.Errorf("upcaster wants %T, got %T", from, old)
				}
				made := convert(from)
				events := make([]any, 0, len(made))
				for _, event := range made {
					// Pointers are as good as values here as they are in Encode.
					if v := reflect.ValueOf(event); v.Kind() == reflect.Pointer && !v.IsNil() {
						event = v.Elem().Interface()
					}
					events = append(events, event)
				}
				return events, nil
			},
		})
		return checkUpcaster[From](convert == nil)
	}
}

func checkUpcaster[From any](missing bool) error {
	from := reflect.TypeFor[From]()
	if missing {
		return &InvalidError{Field: "upcaster", Value: from.String(), Reason: "is a nil function"}
	}
	return codec.Check(from)
}

func (d *eventDef) checkUpcasters() error {
	if len(d.upcasters) != d.version-1 {
		return &InvalidError{
			Field: "event version", Value: strconv.Itoa(d.version),
			Reason: fmt.Sprintf("of %q needs %d upcasters, declared are %d", d.name, d.version-1, len(d.upcasters)),
		}
	}
	for i, u := range d.upcasters {
		next := d.typ
		if i+1 < len(d.upcasters) {
			next = d.upcasters[i+1].from
		}
		if u.to != nil && u.to != next {
			return &InvalidError{
				Field: "upcaster", Value: strconv.Itoa(i + 1),
				Reason: fmt.Sprintf("of %q makes %s, but version %d is %s", d.name, u.to, i+2, next),
			}
		}
	}
	return nil
}

// Type is the aggregate type.
func (s *Schema) Type() string { return s.name }

// Err returns every mistake in the definition, joined.
func (s *Schema) Err() error { return s.err }

// Names lists the current event names, sorted.
func (s *Schema) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// GoType is the Go type of an event, nil for a name that is not declared.
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

// WireNames lists every name under which an event may be stored, old ones too,
// sorted.
func (s *Schema) WireNames() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(s.byName)), maps.Keys(s.renamed))
	slices.Sort(names)
	return names
}

// Signature is the schema's event names and versions as text: it changes when,
// and only when, one of them does.
func (s *Schema) Signature() string {
	names := s.Names()
	parts := append(make([]string, 0, 1+len(names)), s.name)
	for _, name := range names {
		parts = append(parts, name+"="+strconv.Itoa(s.byName[name].version))
	}
	return strings.Join(parts, ",")
}

// Encode writes an event of the schema, a struct or a pointer to one. An event
// that is not declared is an [*UnknownEventError].
func (s *Schema) Encode(event any, cdc Codec) (EventData, error) {
	v := reflect.ValueOf(event)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
		event = v.Interface()
	}
	if !v.IsValid() {
		return EventData{}, &UnknownEventError{Type: s.name, Name: "nil"}
	}
	d := s.byType[v.Type()]
	if d == nil {
		return EventData{}, &UnknownEventError{Type: s.name, Name: v.Type().String()}
	}
	data, err := cdc.Encode(event)
	if err != nil {
		return EventData{}, fmt.Errorf("encode event %q of %q: %w", d.name, s.name, err)
	}
	return EventData{Name: d.name, Version: d.version, Codec: cdc, Data: data}, nil
}

// Decode reads a stored event and brings it to the current version, which may
// give none or several. Returns an [*UnknownEventError] for a name or a version
// that the schema lacks, [ErrErased] for encrypted data.
func (s *Schema) Decode(e EventData) ([]any, error) {
	if s.removed[e.Name] {
		return nil, nil
	}
	name := e.Name
	if now, ok := s.renamed[name]; ok {
		name = now
	}
	d := s.byName[name]
	if d == nil || e.Version > d.version || e.Version < 1 {
		return nil, &UnknownEventError{Type: s.name, Name: e.Name, Version: e.Version}
	}
	if e.KeyRef != "" {
		return nil, fmt.Errorf("event %q of %q: %w", e.Name, s.name, ErrErased)
	}
	typ := d.typ
	if e.Version < d.version {
		typ = d.upcasters[e.Version-1].from
	}
	ptr := reflect.New(typ)
	if err := e.Codec.Decode(e.Data, ptr.Interface()); err != nil {
		return nil, fmt.Errorf("decode event %q version %d of %q: %w", e.Name, e.Version, s.name, err)
	}
	events := []any{ptr.Elem().Interface()}
	for v := e.Version; v < d.version; v++ {
		next := make([]any, 0, len(events))
		for _, old := range events {
			up, err := s.upcast(d, v, old)
			if err != nil {
				return nil, err
			}
			next = append(next, up...)
		}
		events = next
	}
	if e.Version < d.version {
		for _, event := range events {
			if s.byType[reflect.TypeOf(event)] == nil {
				return nil, fmt.Errorf("upcasters of %q from version %d made a %T, which is no event of the schema of %q",
					d.name, e.Version, event, s.name)
			}
		}
	}
	return events, nil
}

// upcast leaves alone what an earlier upcaster already made current.
func (s *Schema) upcast(d *eventDef, version int, old any) (events []any, err error) {
	u := d.upcasters[version-1]
	if reflect.TypeOf(old) != u.from && s.byType[reflect.TypeOf(old)] != nil {
		return []any{old}, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("upcaster of %q from version %d panicked: %v", d.name, version, r)
		}
	}()
	return u.call(old)
}

// Meta stands beside an event wherever one is given to user code.
type Meta struct {
	// Type and ID name the aggregate.
	Type, ID string
	// EventID is globally unique and never changes: the key of whatever the event
	// causes.
	EventID string
	// Name is the event's wire name.
	Name string
	// Version is the aggregate's version with this event, Position its place in
	// the store.
	Version  uint64
	Position Position
	// Time is when it was decided, StoredAt when the server stored it; both UTC.
	Time, StoredAt time.Time
	// Correlation names the conversation, Causation the message that led to the
	// event: a command id, or the id of the event that was reacted to.
	Correlation, Causation, TraceParent string
	// Metadata is what the command carried; do not change it.
	Metadata map[string]string
}

// Recorded is a stored event, brought to its current version.
type Recorded struct {
	Meta

	Event any
}
