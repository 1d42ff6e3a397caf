package aggregate

import (
	"context"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// headersUsual is the room for the headers that most requests have.
const headersUsual = 4

// header writes the call's choices into a request.
func (c *call) header(ctx context.Context, contentType string) nats.Header {
	h := make(nats.Header, headersUsual)
	values := make([]string, 0, headersUsual)
	set := func(name, value string) {
		if value != "" {
			values = append(values, value)
			h[name] = values[len(values)-1:]
		}
	}
	set(protocol.HeaderContentType, contentType)
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
