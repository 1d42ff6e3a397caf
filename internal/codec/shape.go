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
}

// shapes remembers what a walk over a type found; types never change.
var shapes sync.Map // reflect.Type -> shape

var (
	timeType  = reflect.TypeFor[time.Time]()
	selfTypes = []reflect.Type{
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.BinaryMarshaler](),
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.Marshaler](),
	}
)

func shapeOf(t reflect.Type) shape {
	if t == nil {
		return shape{maps: true, times: true}
	}
	if s, ok := shapes.Load(t); ok {
		return s.(shape) //nolint:forcetypeassert // only shapes are stored
	}
	var s shape
	_ = walk(t, "", map[reflect.Type]bool{}, &s)
	shapes.Store(t, s)
	return s
}

// Check returns an error that names each field of t that encoding would lose or
// refuse: unexported fields, functions, channels, interfaces. Types that encode
// themselves are trusted.
func Check(t reflect.Type) error {
	if t == nil {
		return errors.New("no type")
	}
	var s shape
	return walk(t, t.String(), map[reflect.Type]bool{}, &s)
}

func walk(t reflect.Type, path string, seen map[reflect.Type]bool, s *shape) error {
	if t == timeType {
		s.times = true
		return nil
	}
	for _, self := range selfTypes {
		if t.Implements(self) || reflect.PointerTo(t).Implements(self) {
			return nil
		}
	}
	if seen[t] {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128, reflect.Uintptr:
		return fmt.Errorf("%s: a %s cannot be stored", path, t.Kind())
	case reflect.Interface:
		s.maps, s.times = true, true
		return fmt.Errorf("%s: an interface does not say what to decode; use a concrete type", path)
	case reflect.Pointer:
		return walk(t.Elem(), path, seen, s)
	case reflect.Slice, reflect.Array:
		return walk(t.Elem(), path+"[]", seen, s)
	case reflect.Map:
		if t != reflect.TypeFor[map[string]string]() {
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
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" {
			continue
		}
		at := path + "." + f.Name
		if !f.IsExported() && !f.Anonymous {
			errs = append(errs, fmt.Errorf("%s: unexported fields are lost; export it or tag it `json:\"-\"`", at))
			continue
		}
		errs = append(errs, walk(f.Type, at, seen, s))
	}
	return errors.Join(errs...)
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
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() && v.Kind() == reflect.Pointer {
			utc(v.Elem())
		}
	case reflect.Slice, reflect.Array:
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
			if t := v.Interface().(time.Time); v.CanSet() { //nolint:forcetypeassert // the type was compared
				v.Set(reflect.ValueOf(t.UTC()))
			}
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				utc(v.Field(i))
			}
		}
	default:
	}
}
