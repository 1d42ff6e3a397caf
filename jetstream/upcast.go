package jetstream

import (
	"fmt"
	"reflect"
	"strconv"

	"github.com/rossby-go/rossby/internal/codec"
)

// upcaster turns one old event into any number of newer ones.
type upcaster struct {
	from reflect.Type
	to   reflect.Type // nil when the function may return anything
	call func(old any) ([]any, error)
}

// Upcast turns an event of one version into the next one; the last upcaster makes
// the current event. Upcasters run whenever an old event is read and must be pure.
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

// UpcastMany turns an event of one version into none or several: of the next
// version, which the upcasters after it then get, or of any event of the schema as
// it is today.
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
			Field: "event version", Value: strconv.Itoa(d.stored()),
			Reason: fmt.Sprintf("of %q needs %d upcasters, declared are %d", d.name, d.version-1, len(d.upcasters)),
		}
	}
	for i, u := range d.upcasters {
		next := d.typ
		if i+1 < len(d.upcasters) {
			next = d.upcasters[i+1].from
		}
		if u.to != nil && next != nil && u.to != next {
			return &InvalidError{
				Field: "upcaster", Value: strconv.Itoa(i + 1),
				Reason: fmt.Sprintf("of %q makes %s, but version %d is %s", d.name, u.to, i+2, next),
			}
		}
	}
	return nil
}
