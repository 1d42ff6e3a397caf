package jetstream

import (
	"fmt"
	"reflect"
)

// DecodeCurrent reads an event in its current version, as replies carry it.
// Returns an [*UnknownEventError] for a name that the schema lacks.
func (s *Schema) DecodeCurrent(name string, cdc Codec, data []byte) (any, error) {
	d := s.byName[name]
	if d == nil {
		return nil, &UnknownEventError{Type: s.name, Name: name}
	}
	ptr := reflect.New(d.typ)
	if err := cdc.Decode(data, ptr.Interface()); err != nil {
		return nil, fmt.Errorf("decode event %q of %q: %w", name, s.name, err)
	}
	return ptr.Elem().Interface(), nil
}

// CurrentName is the name that a stored event's name has become; an unknown one
// is returned as it is.
func (s *Schema) CurrentName(stored string) string {
	if now, ok := s.renamed[stored]; ok {
		return now
	}
	return stored
}

// Upcasts tells whether events stored under the name may be of an older version,
// which an upcaster may turn into other events.
func (s *Schema) Upcasts(stored string) bool {
	d := s.byName[s.CurrentName(stored)]
	return d != nil && d.version > 1
}
