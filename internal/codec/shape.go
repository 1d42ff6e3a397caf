package codec

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// shape is what encoding needs to know about a type.
type shape struct {
	// maps: holds maps whose keys the encoder does not sort by itself.
	maps bool
	// times: holds time.Time, which decodes in the local zone.
	times bool
	// addr: holds types whose pointers encode themselves, but whose values do not.
	addr bool
	// nests: holds values that may hold themselves.
	nests bool
	// plan writes and reads the type without the library; nil when it cannot.
	plan *plan
}

// shapes remembers what a walk over a type found; types never change.
var shapes sync.Map //nolint:gochecknoglobals // reflect.Type -> shape, a cache as encoding/json has one

//nolint:gochecknoglobals // constants, which Go has none of this type
var (
	timeType      = reflect.TypeFor[time.Time]()
	stringMapType = reflect.TypeFor[map[string]string]()
)

// selfPair is a pair of methods by which a type encodes and decodes itself.
type selfPair struct {
	encode, decode reflect.Type
	msgpack, json  bool
}

//nolint:gochecknoglobals // a constant, which Go has none of this type
var selfPairs = []selfPair{
	{reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), true, true},
	{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](), false, true},
	{reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](), true, false},
	{reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.CustomDecoder](), true, false},
	{reflect.TypeFor[msgpack.Marshaler](), reflect.TypeFor[msgpack.Unmarshaler](), true, false},
}

func shapeOf(t reflect.Type) shape {
	if t == nil {
		return shape{maps: true, times: true}
	}
	if s, ok := shapes.Load(t); ok {
		return s.(shape) //nolint:forcetypeassert // only shapes are stored
	}
	var s shape
	if walk(t, "", map[reflect.Type]bool{}, &s) == nil {
		s.plan = planOf(t)
	}
	s.nests = recursive(t, map[reflect.Type]bool{})
	shapes.Store(t, s)
	return s
}

// Check returns an error that names each field of t that encoding would lose or
// refuse, in either codec: unexported fields, functions, channels, interfaces,
// names that occur twice. Types that encode and decode themselves in both codecs
// are trusted.
func Check(t reflect.Type) error {
	if t == nil {
		return errors.New("no type")
	}
	var s shape
	return walk(t, t.String(), map[reflect.Type]bool{}, &s)
}

// self tells whether a type encodes itself in both codecs, and whether only its
// pointer does. A type that does so in one of them must still survive the other.
func self(t reflect.Type) (both, addr bool) {
	var inMsgpack, inJSON bool
	ptr := reflect.PointerTo(t)
	for _, p := range selfPairs {
		if !ptr.Implements(p.encode) || !ptr.Implements(p.decode) {
			continue
		}
		inMsgpack, inJSON = inMsgpack || p.msgpack, inJSON || p.json
		addr = addr || !t.Implements(p.encode)
	}
	return inMsgpack && inJSON, addr
}

func walk(t reflect.Type, path string, seen map[reflect.Type]bool, s *shape) error {
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Uintptr:
		return fmt.Errorf("%s: a %s cannot be stored", path, t.Kind())
	case reflect.Interface:
		s.maps, s.times = true, true
		return fmt.Errorf("%s: an interface does not say what to decode; use a concrete type", path)
	case reflect.Pointer:
		return walk(t.Elem(), path, seen, s)
	default:
	}
	if t == timeType {
		s.times = true
		return nil
	}
	if both, addr := self(t); both || addr {
		s.addr = s.addr || addr
		if both {
			return nil
		}
	}
	if seen[t] {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return walk(t.Elem(), path+"[]", seen, s)
	case reflect.Map:
		if t != stringMapType {
			s.maps = true
		}
		return errors.Join(walkKey(t.Key(), path), walk(t.Elem(), path+"[]", seen, s))
	case reflect.Struct:
		return walkStruct(t, path, seen, s)
	default:
		return nil
	}
}

func walkKey(t reflect.Type, path string) error {
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	default:
		return fmt.Errorf("%s: map keys must be strings or integers, not %s", path, t)
	}
}

func walkStruct(t reflect.Type, path string, seen map[reflect.Type]bool, s *shape) error {
	var errs []error
	names := map[string]string{}
	for f := range t.Fields() {
		at := path + "." + f.Name
		whole := f.Tag.Get("json")
		if whole == "-" {
			continue
		}
		if f.Tag.Get("msgpack") == "-" {
			errs = append(errs, fmt.Errorf("%s: is lost in msgpack; tag it `json:\"-\"` to leave it out everywhere", at))
			continue
		}
		name, _, _ := strings.Cut(whole, ",")
		if name == "-" {
			errs = append(errs, fmt.Errorf("%s: the name \"-\" is lost in msgpack", at))
			continue
		}
		if f.Anonymous {
			errs = append(errs, walkEmbedded(f, at, seen, s))
			continue
		}
		if !f.IsExported() {
			errs = append(errs, fmt.Errorf("%s: unexported fields are lost; export it or tag it `json:\"-\"`", at))
			continue
		}
		if name == "" {
			name = f.Name
		}
		if other, twice := names[name]; twice {
			errs = append(errs, fmt.Errorf("%s: is named %q as %s is: one of them would be lost", at, name, other))
		}
		names[name] = f.Name
		errs = append(errs, walk(f.Type, at, seen, s))
	}
	return errors.Join(errs...)
}

func walkEmbedded(f reflect.StructField, at string, seen map[reflect.Type]bool, s *shape) error {
	if !f.IsExported() && f.Type.Kind() != reflect.Struct {
		return fmt.Errorf("%s: an embedded unexported %s is lost; export it or name it", at, f.Type.Kind())
	}
	if both, _ := self(f.Type); both && !f.IsExported() {
		return fmt.Errorf("%s: an embedded unexported type that encodes itself is lost; export it or name it", at)
	}
	return walk(f.Type, at, seen, s)
}

// toUTC moves every time that ptr reaches to UTC: msgpack decodes to the local
// zone, and equal instants should be equal values on every machine.
func toUTC(ptr any) error {
	v := reflect.ValueOf(ptr)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("decode into %T: not a pointer", ptr)
	}
	if shapeOf(v.Type().Elem()).times {
		utc(v.Elem())
	}
	return nil
}

func utc(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			utc(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		if !shapeOf(v.Type().Elem()).times {
			return
		}
		for i := range v.Len() {
			utc(v.Index(i))
		}
	case reflect.Map:
		if !shapeOf(v.Type().Elem()).times {
			return
		}
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			utc(e)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(v.Interface().(time.Time).UTC())) //nolint:forcetypeassert // the type was compared
			return
		}
		for _, i := range timeFieldsOf(v.Type()) {
			utc(v.Field(i))
		}
	default:
	}
}

// holdsLocal tells whether v reaches a time that is not in UTC.
func holdsLocal(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && holdsLocal(v.Elem())
	case reflect.Slice, reflect.Array:
		if !shapeOf(v.Type().Elem()).times {
			return false
		}
		for i := range v.Len() {
			if holdsLocal(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		if !shapeOf(v.Type().Elem()).times {
			return false
		}
		for it := v.MapRange(); it.Next(); {
			if holdsLocal(it.Value()) {
				return true
			}
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return v.Interface().(time.Time).Location() != time.UTC //nolint:forcetypeassert // the type was compared
		}
		for _, i := range timeFieldsOf(v.Type()) {
			if holdsLocal(v.Field(i)) {
				return true
			}
		}
	default:
	}
	return false
}

// timeFields remembers which stored fields of a struct hold times.
var timeFields sync.Map //nolint:gochecknoglobals // reflect.Type -> []int, a cache as shapes is one

// timeFieldsOf includes embedded structs that are not exported: their exported
// fields are stored, and can be set.
func timeFieldsOf(t reflect.Type) []int {
	if list, ok := timeFields.Load(t); ok {
		return list.([]int) //nolint:forcetypeassert // only such lists are stored
	}
	var list []int
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous) && shapeOf(f.Type).times {
			list = append(list, i)
		}
	}
	timeFields.Store(t, list)
	return list
}
