package aggregate

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/rossby-go/rossby/internal/codec"
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
	// SchemaVersion is that of the event's data; 0 stands for 1.
	SchemaVersion int `json:"schemaVersion,omitempty"`
	Data          E   `json:"data"`
}

// encodeReply writes a result as a reply.
func encodeReply(res Result, cdc codec.Codec, d *definition) ([]byte, error) {
	if cdc == codec.JSON {
		return encodeReplyAs[json.RawMessage](res, cdc, d)
	}
	return encodeReplyAs[[]byte](res, cdc, d)
}

func encodeReplyAs[E ~[]byte](res Result, cdc codec.Codec, d *definition) ([]byte, error) {
	out := wireReply[E]{
		ID: res.ID, Version: res.Version, Position: res.Position, Duplicate: res.Duplicate,
		Events: make([]wireEvent[E], 0, len(res.Events)),
	}
	for _, e := range res.Events {
		data, err := d.schema.Encode(e.Event, cdc)
		if err != nil {
			return nil, err
		}
		w := wireEvent[E]{ID: e.EventID, Name: data.Name, Version: e.Version, Data: data.Data}
		if data.Version > 1 {
			w.SchemaVersion = data.Version
		}
		out.Events = append(out.Events, w)
	}
	return cdc.Encode(out)
}

// decodeReply reads a reply into typed events. A service may be newer than this
// program, or older: events are upcast, and of those that the schema does not know
// only the Meta is there. The command happened all the same.
func decodeReply(data []byte, cdc codec.Codec, d *definition) (Result, error) {
	if cdc == codec.JSON {
		return decodeReplyAs[json.RawMessage](data, cdc, d)
	}
	return decodeReplyAs[[]byte](data, cdc, d)
}

func decodeReplyAs[E ~[]byte](data []byte, cdc codec.Codec, d *definition) (Result, error) {
	var in wireReply[E]
	if err := cdc.Decode(data, &in); err != nil {
		return Result{}, fmt.Errorf("reply: %w", err)
	}
	res := Result{ID: in.ID, Version: in.Version, Position: in.Position, Duplicate: in.Duplicate}
	for _, e := range in.Events {
		r := jetstream.Recorded{Meta: jetstream.Meta{
			Type: d.schema.Type(), ID: in.ID, EventID: e.ID, Name: e.Name, Version: e.Version, Position: in.Position,
		}}
		events, err := d.schema.Decode(jetstream.EventData{
			Name: e.Name, Version: max(e.SchemaVersion, 1), Codec: cdc, Data: e.Data,
		})
		if errors.Is(err, jetstream.ErrUnknownEvent) {
			res.Events = append(res.Events, r)
			continue
		}
		if err != nil {
			return Result{}, fmt.Errorf("reply: %w", err)
		}
		for i, event := range events {
			if i > 0 {
				r.EventID = e.ID + "." + strconv.Itoa(i)
			}
			r.Name, _ = d.schema.NameOf(reflect.TypeOf(event))
			r.Event = event
			res.Events = append(res.Events, r)
		}
	}
	return res, nil
}
