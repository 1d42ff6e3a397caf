package aggregate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// wireReply is the reply to a command. E is how an event's data is held.
type wireReply[E any] struct {
	ID        string             `json:"id"`
	Version   uint64             `json:"version"`
	Position  jetstream.Position `json:"position"`
	Duplicate bool               `json:"duplicate,omitempty"`
	Events    []wireEvent[E]     `json:"events"`
}

type wireEvent[E any] struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version uint64 `json:"version"`
	Data    E      `json:"data"`
}

func encodeReply(res Result, cdc codec.Codec) ([]byte, error) {
	if cdc == codec.JSON {
		return encodeReplyAs[json.RawMessage](res, cdc)
	}
	return encodeReplyAs[[]byte](res, cdc)
}

func encodeReplyAs[E ~[]byte](res Result, cdc codec.Codec) ([]byte, error) {
	out := wireReply[E]{
		ID: res.ID, Version: res.Version, Position: res.Position, Duplicate: res.Duplicate,
		Events: make([]wireEvent[E], 0, len(res.Events)),
	}
	for _, e := range res.Events {
		data, err := cdc.Encode(e.Event)
		if err != nil {
			return nil, err
		}
		out.Events = append(out.Events, wireEvent[E]{ID: e.EventID, Name: e.Name, Version: e.Version, Data: data})
	}
	return cdc.Encode(out)
}

// decodeCommand reads a request's body strictly: a misspelt field must not become
// a zero.
func decodeCommand(cdc codec.Codec, body []byte, ptr any) error {
	strict := reflect.New(reflect.TypeOf(ptr).Elem()).Interface()
	if cdc == codec.JSON {
		if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
			return errors.New("it is null")
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(strict); err != nil {
			return err
		}
	} else {
		if len(body) == 1 && body[0] == msgpackNil {
			return errors.New("it is nil")
		}
		dec := msgpack.NewDecoder(bytes.NewReader(body))
		dec.SetCustomStructTag("json")
		dec.DisallowUnknownFields(true)
		if err := dec.Decode(strict); err != nil {
			return err
		}
	}
	return cdc.Decode(body, ptr)
}

const msgpackNil = 0xc0

// decodeReply reads a JSON reply into typed events.
func decodeReply(data []byte, d *definition) (Result, error) {
	var in wireReply[json.RawMessage]
	if err := codec.JSON.Decode(data, &in); err != nil {
		return Result{}, fmt.Errorf("reply: %w", err)
	}
	res := Result{ID: in.ID, Version: in.Version, Position: in.Position, Duplicate: in.Duplicate}
	for _, e := range in.Events {
		events, err := d.schema.DecodeCurrent(e.Name, codec.JSON, e.Data)
		if err != nil {
			return Result{}, fmt.Errorf("reply: %w", err)
		}
		res.Events = append(res.Events, jetstream.Recorded{
			Meta: jetstream.Meta{
				Type: d.schema.Type(), ID: in.ID, EventID: e.ID, Name: e.Name, Version: e.Version, Position: in.Position,
			},
			Event: events,
		})
	}
	return res, nil
}

// header writes the call's choices into a request.
func (c *call) header(ctx context.Context) nats.Header {
	h := nats.Header{}
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{value}
		}
	}
	set(protocol.HeaderContentType, codec.JSON.ContentType())
	set(protocol.HeaderCommandID, c.commandID)
	set(protocol.HeaderDeadline, protocol.Deadline(ctx))
	set(protocol.HeaderCorrelation, c.correlation)
	set(protocol.HeaderCausation, c.causation)
	set(protocol.HeaderTraceParent, c.traceParent)
	if c.expectVersion != nil {
		set(protocol.HeaderExpectVersion, strconv.FormatUint(*c.expectVersion, 10))
	}
	if c.recordRejections {
		set(protocol.HeaderRecordRejections, "true")
	}
	if t := c.trigger; t != nil {
		set(protocol.HeaderTrigger, protocol.Trigger{
			Subscriber: t.Subscriber, EventID: t.EventID, Step: t.Step, Position: t.Position.String(), Time: t.Time,
		}.String())
	}
	for k, v := range c.metadata {
		h[protocol.HeaderMetaPrefix+k] = []string{v}
	}
	return h
}

// callOf reads a request's headers.
func callOf(h nats.Header) (*call, error) {
	c := new(call)
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		value := strings.TrimSpace(values[0])
		switch name {
		case protocol.HeaderCommandID:
			c.commandID = value
		case protocol.HeaderCorrelation:
			c.correlation = value
		case protocol.HeaderCausation:
			c.causation = value
		case protocol.HeaderTraceParent:
			c.traceParent = value
		case protocol.HeaderExpectVersion:
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return nil, &jetstream.InvalidError{Field: "header " + name, Value: value, Reason: "is not a version"}
			}
			c.expectVersion = &n
		case protocol.HeaderRecordRejections:
			if value != "true" && value != "false" {
				return nil, &jetstream.InvalidError{Field: "header " + name, Value: value, Reason: `is neither "true" nor "false"`}
			}
			c.recordRejections = value == "true"
		case protocol.HeaderTrigger:
			t, err := protocol.ParseTrigger(value)
			if err != nil {
				return nil, &jetstream.InvalidError{Field: "header " + name, Value: value, Reason: err.Error()}
			}
			position, err := jetstream.ParsePosition(t.Position)
			if err != nil {
				return nil, err
			}
			c.trigger = &Trigger{Subscriber: t.Subscriber, EventID: t.EventID, Step: t.Step, Position: position, Time: t.Time}
		default:
			if key, ok := strings.CutPrefix(name, protocol.HeaderMetaPrefix); ok && key != "" {
				if c.metadata == nil {
					c.metadata = map[string]string{}
				}
				c.metadata[key] = value
			}
		}
	}
	return c, nil
}

// The codes beside the kinds, on the wire.
const (
	codeWrongVersion = "version"
	codeOtherPayload = "other-payload"
	codeContended    = "contended"
	codeRefused      = "refused"
)

// errorBody is what a caller far away learns of an error.
func errorBody(err error) protocol.ErrorBody {
	var (
		rejected *RejectedError
		version  *VersionError
		invalid  *jetstream.InvalidError
		refused  *jetstream.RefusedError
		foreign  *jetstream.ForeignPositionError
	)
	switch {
	case errors.As(err, &rejected):
		return protocol.ErrorBody{Kind: protocol.KindRejected, Code: rejected.Code, Reason: rejected.Reason}
	case errors.As(err, &version):
		return protocol.ErrorBody{
			Kind: protocol.KindConflict, Code: codeWrongVersion, Reason: err.Error(),
			Expected: version.Expected, Actual: version.Actual,
		}
	case errors.Is(err, ErrNotFound):
		return protocol.ErrorBody{Kind: protocol.KindNotFound, Reason: err.Error()}
	case errors.Is(err, ErrExists):
		return protocol.ErrorBody{Kind: protocol.KindExists, Reason: err.Error()}
	case errors.Is(err, ErrOtherPayload):
		return protocol.ErrorBody{Kind: protocol.KindConflict, Code: codeOtherPayload, Reason: err.Error()}
	case errors.Is(err, ErrContended):
		return protocol.ErrorBody{Kind: protocol.KindBusy, Code: codeContended, Reason: err.Error()}
	case errors.As(err, &invalid), errors.As(err, &foreign):
		return protocol.ErrorBody{Kind: protocol.KindInvalid, Reason: err.Error()}
	case errors.As(err, &refused):
		return protocol.ErrorBody{Kind: protocol.KindInvalid, Code: codeRefused, Reason: err.Error()}
	case errors.Is(err, ErrBusy):
		return protocol.ErrorBody{Kind: protocol.KindBusy, Reason: err.Error()}
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return protocol.ErrorBody{Kind: protocol.KindUnknown, Reason: err.Error()}
	case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled):
		return protocol.ErrorBody{Kind: protocol.KindUnavailable, Reason: err.Error()}
	default:
		// The reason may hold what is no business of the caller; the service logs it.
		return protocol.ErrorBody{Kind: protocol.KindInternal, Reason: "the command failed; see the service's log"}
	}
}

// remoteError is the error that a reply stands for, as if it had happened here.
func remoteError(typ, id string, b protocol.ErrorBody) error {
	at := func(err error) error { return fmt.Errorf("%s %q: %w: %s", typ, id, err, b.Reason) }
	switch b.Kind {
	case protocol.KindRejected:
		return &RejectedError{Code: b.Code, Reason: b.Reason}
	case protocol.KindNotFound:
		return at(ErrNotFound)
	case protocol.KindExists:
		return at(ErrExists)
	case protocol.KindConflict:
		if b.Code == codeWrongVersion {
			return &VersionError{Type: typ, ID: id, Expected: b.Expected, Actual: b.Actual}
		}
		return at(ErrOtherPayload)
	case protocol.KindInvalid:
		if b.Code == codeRefused {
			return &jetstream.RefusedError{Type: typ, ID: id, Cause: errors.New(b.Reason)}
		}
		return &jetstream.InvalidError{Field: "command for " + typ, Value: id, Reason: "was refused: " + b.Reason}
	case protocol.KindBusy:
		if b.Code == codeContended {
			return at(ErrContended)
		}
		return at(ErrBusy)
	case protocol.KindUnknown:
		return &jetstream.UnknownError{Type: typ, ID: id, Cause: errors.New(b.Reason)}
	case protocol.KindUnavailable:
		return at(jetstream.ErrUnavailable)
	case protocol.KindInternal, protocol.KindStale:
	}
	return at(ErrInternal)
}
