package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// DecodeStrict is [Codec.Decode] for data from outside: fields that the type lacks
// and a bare null are errors, so that a misspelt field does not become a zero.
func (c Codec) DecodeStrict(data []byte, ptr any) error {
	if c == JSON {
		return decodeStrictJSON(data, ptr)
	}
	if v := reflect.ValueOf(ptr); v.Kind() == reflect.Pointer && !v.IsNil() {
		if p := shapeOf(v.Type().Elem()).plan; p != nil {
			r := &Reader{data: data, strict: true}
			if p.decode(r, v.Elem()) && r.Rest() == 0 {
				return nil
			}
		}
	}
	if len(data) == 1 && data[0] == msgpackNil {
		return errors.New("it is nil")
	}
	if err := wellFormed(data); err != nil {
		return err
	}
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(data))
	dec.SetCustomStructTag("json")
	dec.DisallowUnknownFields(true)
	if err := dec.Decode(ptr); err != nil {
		return err
	}
	return toUTC(ptr)
}

func decodeStrictJSON(data []byte, ptr any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(ptr); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return errors.New("it ends too early")
		}
		return err
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
		return errors.New("there is more after the value")
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return errors.New("it is null")
	}
	return toUTC(ptr)
}
