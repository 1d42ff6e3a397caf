// Package codec turns user data – events, states, commands, views – into bytes
// and back, and finds out beforehand whether a type survives that.
//
// Both codecs name fields by their `json` tags, so one set of tags serves.
// Encoding is deterministic: map keys are sorted. Decoded times are UTC.
package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// Codec is a way to write data. The zero value is [Msgpack].
type Codec uint8

// The codecs.
const (
	Msgpack Codec = iota
	JSON
)

// ErrUnknown is returned for the name of a codec that this version lacks.
var ErrUnknown = errors.New("unknown codec")

// String is the codec's name as it is stored.
func (c Codec) String() string {
	switch c {
	case Msgpack:
		return "msgpack"
	case JSON:
		return "json"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ContentType is the media type of what the codec writes.
func (c Codec) ContentType() string {
	switch c {
	case Msgpack:
		return "application/msgpack"
	case JSON:
		return "application/json"
	}
	return "application/" + c.String()
}

// Parse reads a stored name.
func Parse(name string) (Codec, error) {
	switch name {
	case "msgpack":
		return Msgpack, nil
	case "json":
		return JSON, nil
	}
	return 0, fmt.Errorf("%w %q", ErrUnknown, name)
}

// Valid tells whether c is one of the codecs.
func (c Codec) Valid() bool { return c == Msgpack || c == JSON }

// planBytes is what most events fit into; what does not grows.
const planBytes = 128

// Encode writes v, whose type must have passed [Check]. Equal values give equal
// bytes. A value that holds itself is an error.
func (c Codec) Encode(v any) ([]byte, error) {
	if val := reflect.ValueOf(v); c == Msgpack && val.Kind() == reflect.Pointer && !val.IsNil() {
		if p := shapeOf(val.Type().Elem()).plan; p != nil {
			return p.append(make([]byte, 0, planBytes), val.Elem()), nil
		}
	}
	sh := shapeOf(reflect.TypeOf(v))
	if sh.nests {
		if err := checkDepth(reflect.ValueOf(v), 0); err != nil {
			return nil, fmt.Errorf("%T is %w", v, err)
		}
	}
	if sh.addr {
		v = addressable(v)
	}
	if c == JSON {
		return encodeJSON(v, sh)
	}
	if sh.plan != nil {
		return sh.plan.append(make([]byte, 0, planBytes), reflect.ValueOf(v)), nil
	}
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	var buf bytes.Buffer
	enc.Reset(&buf)
	enc.SetCustomStructTag("json")
	enc.UseCompactInts(true)
	enc.SetSortMapKeys(true)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if sh.maps {
		return sortMaps(buf.Bytes())
	}
	return buf.Bytes(), nil
}

// encodeJSON writes times in UTC. They are rare enough elsewhere to be worth a
// copy of the value, made by reading back what was written.
func encodeJSON(v any, sh shape) ([]byte, error) {
	data, err := MarshalJSON(v)
	if err != nil || !sh.times || !holdsLocal(reflect.ValueOf(v)) {
		return data, err
	}
	ptr := reflect.New(reflect.TypeOf(v))
	if err := JSON.Decode(data, ptr.Interface()); err != nil {
		return nil, err
	}
	return MarshalJSON(ptr.Interface())
}

// MarshalJSON is json.Marshal but leaves '<', '>' and '&' as they are.
func MarshalJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

// addressable returns a pointer to v or to a copy of it: methods of pointers that
// encode a field are only found on a value that has an address.
func addressable(v any) any {
	val := reflect.ValueOf(v)
	if val.Kind() == reflect.Pointer {
		return v
	}
	ptr := reflect.New(val.Type())
	ptr.Elem().Set(val)
	return ptr.Interface()
}

// Decode reads data into the value that ptr points to. Fields that the data
// lacks keep their values; fields that the type lacks are skipped. Bytes beyond
// the value are an error.
func (c Codec) Decode(data []byte, ptr any) error {
	if c == JSON {
		if err := json.Unmarshal(data, ptr); err != nil {
			return err
		}
		return toUTC(ptr)
	}
	if v := reflect.ValueOf(ptr); v.Kind() == reflect.Pointer && !v.IsNil() {
		if p := shapeOf(v.Type().Elem()).plan; p != nil {
			if r := NewReader(data); p.decode(r, v.Elem()) && r.Rest() == 0 {
				return nil
			}
		}
	}
	if err := wellFormed(data); err != nil {
		return err
	}
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(data))
	dec.SetCustomStructTag("json")
	if err := dec.Decode(ptr); err != nil {
		return err
	}
	return toUTC(ptr)
}

// wellFormed checks that the data is one value whose lengths are those of what is
// there. The msgpack library allocates every slice as long as the data says, so
// that five bytes from anywhere would end the process.
func wellFormed(data []byte) error {
	r := NewReader(data)
	r.skip(maxDepthData)
	if r.err == nil && r.Rest() > 0 {
		r.fail(fmt.Sprintf("%d bytes after the value", r.Rest()))
	}
	return r.err
}
