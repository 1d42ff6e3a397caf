package codec

import (
	"encoding/binary"
	"math"
	"reflect"
	"strings"
)

// plan encodes and decodes plain structs – strings, numbers, booleans, and structs
// and slices of them – in msgpack without the general library, whose look-ups and
// interfaces cost more than half of the time of an append of ten events. What it
// writes is byte for byte what the library writes; tests compare the two. Any
// other type has no plan.
type plan struct {
	fields []planField
	// omits tells that some field is left out when it is empty.
	omits bool
}

type planField struct {
	index     int
	name      string
	key       []byte // encoded
	omitEmpty bool
	value     planValue
}

// planValue is how one value is written and read.
type planValue struct {
	kind   reflect.Kind
	fields *plan      // of a struct
	elem   *planValue // of a slice
}

// planOf is the plan of a struct type, nil when it has none.
func planOf(t reflect.Type) *plan {
	p, _ := makePlan(t, map[reflect.Type]bool{})
	return p
}

func makePlan(t reflect.Type, within map[reflect.Type]bool) (*plan, bool) {
	if t.Kind() != reflect.Struct || within[t] {
		return nil, false
	}
	within[t] = true
	defer delete(within, t)
	p := new(plan)
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Tag.Get("msgpack") != "" || f.Anonymous || !f.IsExported() && tag != "-" {
			return nil, false
		}
		if tag == "-" {
			continue
		}
		if options != "" && options != "omitempty" {
			return nil, false
		}
		v, ok := makePlanValue(f.Type, within)
		if !ok {
			return nil, false
		}
		name := tag
		if name == "" {
			name = f.Name
		}
		p.omits = p.omits || options != ""
		p.fields = append(p.fields, planField{i, name, AppendString(nil, name), options != "", v})
	}
	return p, true
}

func makePlanValue(t reflect.Type, within map[reflect.Type]bool) (planValue, bool) {
	if t == timeType || encodesItself(t) || t.Implements(zeroerType) {
		return planValue{}, false
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return planValue{kind: t.Kind()}, true
	case reflect.Struct:
		p, ok := makePlan(t, within)
		return planValue{kind: reflect.Struct, fields: p}, ok
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return planValue{}, false
		}
		elem, ok := makePlanValue(t.Elem(), within)
		return planValue{kind: reflect.Slice, elem: &elem}, ok
	default:
		return planValue{}, false
	}
}

// zeroerType tells the library when a value is empty.
//
//nolint:gochecknoglobals // a constant, which Go has none of this type
var zeroerType = reflect.TypeFor[interface{ IsZero() bool }]()

func encodesItself(t reflect.Type) bool {
	ptr := reflect.PointerTo(t)
	for _, p := range selfPairs {
		if ptr.Implements(p.encode) || ptr.Implements(p.decode) {
			return true
		}
	}
	return false
}

func (p *plan) append(b []byte, v reflect.Value) []byte {
	n := len(p.fields)
	if p.omits {
		for i := range p.fields {
			if f := &p.fields[i]; f.omitEmpty && f.value.empty(v.Field(f.index)) {
				n--
			}
		}
	}
	b = AppendMap(b, n)
	for i := range p.fields {
		f := &p.fields[i]
		field := v.Field(f.index)
		if f.omitEmpty && f.value.empty(field) {
			continue
		}
		b = append(b, f.key...)
		b = f.value.append(b, field)
	}
	return b
}

// empty is what the library leaves out: a struct only when all of it is empty.
func (pv *planValue) empty(v reflect.Value) bool {
	switch pv.kind {
	case reflect.Slice:
		return v.Len() == 0
	case reflect.Struct:
		for i := range pv.fields.fields {
			if f := &pv.fields.fields[i]; !f.omitEmpty || !f.value.empty(v.Field(f.index)) {
				return false
			}
		}
		return true
	case reflect.Float32, reflect.Float64:
		return v.Float() == 0 // negative zero, too
	default:
		return v.IsZero()
	}
}

func (pv *planValue) append(b []byte, v reflect.Value) []byte {
	switch pv.kind {
	case reflect.String:
		return AppendString(b, v.String())
	case reflect.Bool:
		if v.Bool() {
			return append(b, 0xc3)
		}
		return append(b, 0xc2)
	case reflect.Float32:
		return binary.BigEndian.AppendUint32(append(b, 0xca), math.Float32bits(float32(v.Float())))
	case reflect.Float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v.Float()))
	case reflect.Struct:
		return pv.fields.append(b, v)
	case reflect.Slice:
		if v.IsNil() {
			return append(b, 0xc0)
		}
		b = AppendArray(b, v.Len())
		for i := range v.Len() {
			b = pv.elem.append(b, v.Index(i))
		}
		return b
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return appendUint(b, v.Uint())
	default:
		return appendSigned(b, v.Int())
	}
}

func appendUint(b []byte, n uint64) []byte {
	if n > math.MaxInt64 {
		return binary.BigEndian.AppendUint64(append(b, 0xcf), n)
	}
	return AppendInt(b, int64(n))
}

func appendSigned(b []byte, n int64) []byte {
	switch {
	case n >= 0:
		return AppendInt(b, n)
	case n >= -32:
		return append(b, byte(n)) //nolint:gosec // the negative fixint is that byte
	case n >= math.MinInt8:
		return append(b, 0xd0, byte(n)) //nolint:gosec // bounded just above
	case n >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(b, 0xd1), uint16(n)) //nolint:gosec // two's complement is meant
	case n >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(b, 0xd2), uint32(n)) //nolint:gosec // two's complement is meant
	default:
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n)) //nolint:gosec // two's complement is meant
	}
}

// decode reads a map into the struct. False is data of another shape, which the
// library may still be able to convert; it then overwrites what was read.
func (p *plan) decode(r *Reader, v reflect.Value) bool {
	n := r.Map()
	next := 0
	for range n {
		key := r.Bytes()
		if r.err != nil {
			return false
		}
		// Fields mostly come in the order in which they were written.
		var f *planField
		for i := range p.fields {
			c := &p.fields[(next+i)%len(p.fields)]
			if string(key) == c.name {
				f, next = c, (next+i+1)%len(p.fields)
				break
			}
		}
		if f == nil && r.strict {
			return false
		}
		if f == nil {
			r.Skip()
			continue
		}
		if !f.value.decode(r, v.Field(f.index)) {
			return false
		}
	}
	return r.err == nil
}

func (pv *planValue) decode(r *Reader, v reflect.Value) bool {
	switch pv.kind {
	case reflect.String:
		v.SetString(r.String())
	case reflect.Bool:
		switch r.byte() {
		case 0xc2:
			v.SetBool(false)
		case 0xc3:
			v.SetBool(true)
		default:
			return false
		}
	case reflect.Float64, reflect.Float32:
		switch r.byte() {
		case 0xca:
			v.SetFloat(float64(math.Float32frombits(uint32(r.uint(4))))) //nolint:gosec // four bytes were read
		case 0xcb:
			if pv.kind == reflect.Float32 {
				return false
			}
			v.SetFloat(math.Float64frombits(r.uint(8)))
		default:
			return false
		}
	case reflect.Struct:
		return pv.fields.decode(r, v)
	case reflect.Slice:
		return pv.decodeSlice(r, v)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := r.Int()
		if r.err != nil || n < 0 || v.OverflowUint(uint64(n)) {
			return false
		}
		v.SetUint(uint64(n))
	default:
		n := r.Int()
		if r.err != nil || v.OverflowInt(n) {
			return false
		}
		v.SetInt(n)
	}
	return r.err == nil
}

func (pv *planValue) decodeSlice(r *Reader, v reflect.Value) bool {
	if r.Rest() > 0 && r.data[r.pos] == 0xc0 {
		r.byte()
		v.SetZero()
		return true
	}
	n := r.Array()
	if r.err != nil {
		return false
	}
	// An element takes a byte at least, but may take many in memory: grow with the
	// data, not with what it promises.
	s := reflect.MakeSlice(v.Type(), 0, min(n, 64))
	zero := reflect.Zero(v.Type().Elem())
	for i := range n {
		s = reflect.Append(s, zero)
		if !pv.elem.decode(r, s.Index(i)) {
			return false
		}
	}
	v.Set(s)
	return true
}
