package jetstream

import (
	"fmt"
	"reflect"
)

// Encode writes an event of the schema, a struct or a pointer to one. An event
// that is not declared is an [*UnknownEventError].
func (s *Schema) Encode(event any, cdc Codec) (data EventData, err error) {
	if s.err != nil {
		return EventData{}, s.err
	}
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
	// Types may encode and decode themselves, with code of the user's.
	defer func() {
		if r := recover(); r != nil {
			data, err = EventData{}, fmt.Errorf("encode event %q of %q: panicked: %v", d.name, s.name, r)
		}
	}()
	encoded, err := cdc.Encode(event)
	if err != nil {
		return EventData{}, fmt.Errorf("encode event %q of %q: %w", d.name, s.name, err)
	}
	return EventData{Name: d.name, Version: d.version, Codec: cdc, Data: encoded}, nil
}

// Decode reads a stored event and brings it to the current version, which may
// give none or several. Fields that the data lacks are zero; data that the type
// has no field for is skipped. Returns an [*UnknownEventError] for a name or a version
// that the schema lacks, [ErrErased] for encrypted data.
func (s *Schema) Decode(e EventData) ([]any, error) {
	if s.err != nil {
		return nil, s.err
	}
	name := s.CurrentName(e.Name)
	if s.removed[name] {
		return nil, nil
	}
	d := s.byName[name]
	if d == nil || e.Version > d.stored() || e.Version < 1 {
		return nil, &UnknownEventError{Type: s.name, Name: e.Name, Version: e.Version}
	}
	if e.KeyRef != "" {
		return nil, fmt.Errorf("event %q of %q: %w", e.Name, s.name, ErrErased)
	}
	typ := d.typ
	if e.Version < d.version {
		typ = d.upcasters[e.Version-1].from
	}
	event, err := decodeAs(typ, e.Codec, e.Data)
	if err != nil {
		return nil, fmt.Errorf("decode event %q version %d of %q: %w", e.Name, e.Version, s.name, err)
	}
	events := []any{event}
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

// decodeAs reads a value of the type, which may decode itself with code of the
// user's.
func decodeAs(typ reflect.Type, cdc Codec, data []byte) (event any, err error) {
	defer func() {
		if r := recover(); r != nil {
			event, err = nil, fmt.Errorf("%s panicked: %v", typ, r)
		}
	}()
	ptr := reflect.New(typ)
	if err := cdc.Decode(data, ptr.Interface()); err != nil {
		return nil, err
	}
	return ptr.Elem().Interface(), nil
}
