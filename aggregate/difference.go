package aggregate

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Bounds of what is said about two states that differ.
const (
	mostDifferences = 10
	mostValue       = 80
	mostDepth       = 100
)

// differences says which fields of two states differ, "" when none does. Both have
// been decoded, and the fields that are not stored are empty in both. Nil and empty
// are the same, and so are two values that are not a number.
func differences(stored, replayed any) string {
	var d differ
	d.compare("", reflect.ValueOf(stored), reflect.ValueOf(replayed), 0)
	if d.more > 0 {
		d.lines = append(d.lines, fmt.Sprintf("and %d more", d.more))
	}
	return strings.Join(d.lines, "; ")
}

type differ struct {
	lines []string
	more  int
}

func (d *differ) add(path string, stored, replayed any) {
	if len(d.lines) == mostDifferences {
		d.more++
		return
	}
	path = strings.TrimPrefix(path, ".")
	d.lines = append(d.lines, fmt.Sprintf("%s is %s, replayed %s", path, brief(stored), brief(replayed)))
}

// brief shows a value, a value of nothing as it is.
func brief(v any) string {
	text := fmt.Sprintf("%+v", v)
	switch {
	case v == nil:
		text = "missing"
	case reflect.TypeOf(v).Kind() == reflect.String:
		text = fmt.Sprintf("%q", v)
	}
	if len(text) > mostValue {
		text = strings.ToValidUTF8(text[:mostValue], "") + "…"
	}
	return text
}

func (d *differ) compare(path string, a, b reflect.Value, depth int) {
	if depth > mostDepth {
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			d.add(path, "something", "something else")
		}
		return
	}
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() != b.IsNil() {
				d.add(path, pointed(a), pointed(b))
			}
			return
		}
		d.compare(path, a.Elem(), b.Elem(), depth+1)
	case reflect.Struct:
		d.structs(path, a, b, depth)
	case reflect.Slice, reflect.Array:
		for i := range max(a.Len(), b.Len()) {
			at := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i >= a.Len():
				d.add(at, nil, b.Index(i).Interface())
			case i >= b.Len():
				d.add(at, a.Index(i).Interface(), nil)
			default:
				d.compare(at, a.Index(i), b.Index(i), depth+1)
			}
		}
	case reflect.Map:
		d.maps(path, a, b, depth)
	case reflect.Float32, reflect.Float64:
		if x, y := a.Float(), b.Float(); x != y && !(math.IsNaN(x) && math.IsNaN(y)) {
			d.add(path, x, y)
		}
	default:
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			d.add(path, a.Interface(), b.Interface())
		}
	}
}

func pointed(v reflect.Value) any {
	if v.IsNil() {
		return nil
	}
	return v.Elem().Interface()
}

// structs compares field by field; a type with fields of its own, which encodes
// itself, as a whole.
func (d *differ) structs(path string, a, b reflect.Value, depth int) {
	t := a.Type()
	for f := range t.Fields() {
		if !f.IsExported() && !f.Anonymous && f.Tag.Get("json") != "-" {
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				d.add(path, a.Interface(), b.Interface())
			}
			return
		}
	}
	for i := range t.NumField() {
		switch f := t.Field(i); {
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			d.structs(path, a.Field(i), b.Field(i), depth+1)
		case f.IsExported():
			d.compare(path+"."+f.Name, a.Field(i), b.Field(i), depth+1)
		}
	}
}

func (d *differ) maps(path string, a, b reflect.Value, depth int) {
	keys := a.MapKeys()
	for _, k := range b.MapKeys() {
		if !a.MapIndex(k).IsValid() {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	for _, k := range keys {
		at := path + "[" + brief(k.Interface()) + "]"
		switch x, y := a.MapIndex(k), b.MapIndex(k); {
		case !x.IsValid():
			d.add(at, nil, y.Interface())
		case !y.IsValid():
			d.add(at, x.Interface(), nil)
		default:
			d.compare(at, x, y, depth+1)
		}
	}
}
