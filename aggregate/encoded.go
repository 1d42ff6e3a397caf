package aggregate

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"reflect"
	"slices"
	"strings"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// Encoded is a command as bytes, for programs that take commands from somewhere
// and pass them on. A [Repository] reads it as strictly as a [Service] does: a
// field that the command does not have is an error. A [Client] sends it as it is.
// It is the same command as another with its id when its bytes are the same.
type Encoded struct {
	// Name is the command's.
	Name string
	// ContentType is application/json, the default, or application/msgpack.
	ContentType string
	Body        []byte
}

// normal gives an absent JSON body for what it stands for.
func (e *Encoded) normal() (*Encoded, codec.Codec, error) {
	cdc, err := e.codec()
	if err == nil && len(e.Body) == 0 && cdc == codec.JSON {
		return &Encoded{Name: e.Name, ContentType: e.ContentType, Body: []byte("{}")}, cdc, nil
	}
	return e, cdc, err
}

// codec is that of the body.
func (e *Encoded) codec() (codec.Codec, error) {
	switch e.ContentType {
	case "", "application/json":
		return codec.JSON, nil
	case "application/msgpack":
		return codec.Msgpack, nil
	}
	media, _, err := mime.ParseMediaType(e.ContentType)
	for _, cdc := range []codec.Codec{codec.JSON, codec.Msgpack} {
		if err == nil && media == cdc.ContentType() {
			return cdc, nil
		}
	}
	return 0, &jetstream.InvalidError{
		Field: "Content-Type", Value: e.ContentType, Reason: "is neither application/json nor application/msgpack",
	}
}

// encoded gives the handler of an encoded command.
func (d *definition) encoded(e *Encoded) (*handler, error) {
	if h := d.handlers[e.Name]; h != nil {
		return h, nil
	}
	return nil, d.unknown(e.Name)
}

func (d *definition) unknown(command string) error {
	return &jetstream.InvalidError{
		Field: "command", Value: command, Reason: fmt.Sprintf("is not a command of %q", d.schema.Type()),
	}
}

// formerNames are the names of a command but the given one.
func (d *definition) formerNames(but string) []string {
	var names []string
	for name, h := range d.handlers {
		if h == d.handlers[but] && name != but {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// decode reads the command, as a struct.
func (h *handler) decode(cdc codec.Codec, body []byte) (any, error) {
	command := reflect.New(h.command)
	if err := cdc.DecodeStrict(body, command.Interface()); err != nil {
		return nil, h.unreadable(cdc, body, err)
	}
	return command.Elem().Interface(), nil
}

// unreadable says which field cannot be read, where that is known.
func (h *handler) unreadable(cdc codec.Codec, body []byte, err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return &jetstream.InvalidError{
			Field: wrong.Field, Value: wrong.Value, Reason: fmt.Sprintf("is no %s, which %q takes", wrong.Type, h.name),
		}
	}
	_, name, ok := strings.Cut(err.Error(), ": unknown field ")
	if ok {
		return &jetstream.InvalidError{
			Field: strings.Trim(name, `"`), Value: "", Reason: fmt.Sprintf("is no field of %q", h.name),
		}
	}
	value := string(body)
	if cdc != codec.JSON {
		value = fmt.Sprintf("%d bytes of %s", len(body), cdc)
	}
	return &jetstream.InvalidError{Field: "command " + h.name, Value: value, Reason: "cannot be read: " + err.Error()}
}

// resolve finds a command's handler and the command as a struct. The body of one
// with an id is remembered by its hash.
func (d *definition) resolve(command any, c *call) (*handler, any, error) {
	var e *Encoded
	switch given := command.(type) {
	case Encoded:
		e = &given
	case *Encoded:
		e = given
	}
	if e == nil {
		h, command, err := d.lookup(command)
		if err == nil && c.commandID != "" && c.hash == nil {
			c.hash, err = hashOf(h, command)
		}
		return h, command, err
	}
	h, err := d.encoded(e)
	if err != nil {
		return nil, nil, err
	}
	e, cdc, err := e.normal()
	if err != nil {
		return nil, nil, err
	}
	if command, err = h.decode(cdc, e.Body); err != nil {
		return nil, nil, err
	}
	if c.commandID != "" {
		c.hash = bodyHash(h.key, e.Body)
	}
	return h, command, nil
}

// hashOf is the hash under which clients send the command, too.
func hashOf(h *handler, command any) ([]byte, error) {
	body, err := jetstream.Msgpack.Encode(command)
	if err != nil {
		return nil, &jetstream.InvalidError{Field: "command", Value: h.name, Reason: "does not encode: " + err.Error()}
	}
	return bodyHash(h.key, body), nil
}
