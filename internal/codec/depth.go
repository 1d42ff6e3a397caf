package codec

import (
	"fmt"
	"reflect"
)

// recursive tells whether a value of the type can hold another value of the type,
// and so itself.
func recursive(t reflect.Type, within map[reflect.Type]bool) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		if t.Name() != "" {
			if within[t] {
				return true
			}
			within[t] = true
			defer delete(within, t)
		}
		return recursive(t.Elem(), within)
	case reflect.Struct:
		if within[t] {
			return true
		}
		if both, _ := self(t); both {
			return false // how it encodes itself is its own
		}
		within[t] = true
		defer delete(within, t)
		for f := range t.Fields() {
			if f.Tag.Get("json") != "-" && recursive(f.Type, within) {
				return true
			}
		}
	default:
	}
	return false
}

// checkDepth refuses a value that is nested more deeply than it could be read
// again. One that holds itself is: an encoder would follow it until the stack
// ends, and with it the process.
func checkDepth(v reflect.Value, depth int) error {
	if depth > maxDepthData {
		return fmt.Errorf("nested more than %d deep: does it hold itself?", maxDepthData)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return checkDepth(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if !shapeOf(v.Type().Elem()).nests {
			return nil
		}
		for i := range v.Len() {
			if err := checkDepth(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		if !shapeOf(v.Type().Elem()).nests {
			return nil
		}
		for it := v.MapRange(); it.Next(); {
			if err := checkDepth(it.Value(), depth+1); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Tag.Get("json") == "-" || !shapeOf(f.Type).nests {
				continue
			}
			if err := checkDepth(v.Field(i), depth+1); err != nil {
				return err
			}
		}
	default:
	}
	return nil
}
