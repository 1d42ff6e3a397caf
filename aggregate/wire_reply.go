package aggregate

import (
	"encoding/json"
	"reflect"
	"strconv"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// wireReply is the reply to a command.
type wireReply struct {
	ID        string             `json:"id"`
	Version   uint64             `json:"version"`
	Position  jetstream.Position `json:"position"`
	Duplicate bool               `json:"duplicate,omitempty"`
	Events    []wireEvent        `json:"events"`
}

type wireEvent struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version uint64 `json:"version"`
	// SchemaVersion is that of the event's data; 0 stands for 1.
	SchemaVersion int `json:"schemaVersion,omitempty"`
	// Data is in the reply's codec: in msgpack a binary.
	Data json.RawMessage `json:"data"`
}

// encodeReply writes a result as a reply.
func encodeReply(res Result, cdc codec.Codec, d *definition) ([]byte, error) {
	out := wireReply{
		ID: res.ID, Version: res.Version, Position: res.Position, Duplicate: res.Duplicate,
		Events: make([]wireEvent, 0, len(res.Events)),
	}
	for _, e := range res.Events {
		data, err := d.schema.Encode(e.Event, cdc)
		if err != nil {
			return nil, err
		}
		w := wireEvent{ID: e.EventID, Name: data.Name, Version: e.Version, Data: data.Data}
		if data.Version > 1 {
			w.SchemaVersion = data.Version
		}
		out.Events = append(out.Events, w)
	}
	if cdc == codec.JSON {
		return cdc.Encode(out)
	}
	return out.pack(), nil
}

// The room that a reply and an event take beside their data, mostly.
const (
	replyRoom = 160
	eventRoom = 96
)

// pack writes the reply in msgpack: programs in Go talk like that, and the library
// would take longer than all else that a service does for a command.
func (w *wireReply) pack() []byte {
	size := replyRoom
	for i := range w.Events {
		size += len(w.Events[i].Data) + eventRoom
	}
	b, entries := make([]byte, 0, size), 4
	if w.Duplicate {
		entries++
	}
	b = codec.AppendMap(b, entries)
	b = codec.AppendString(codec.AppendString(b, "id"), w.ID)
	b = codec.AppendInt(codec.AppendString(b, "version"), int64(w.Version)) //nolint:gosec // a count of events
	b = codec.AppendString(codec.AppendString(b, "position"), w.Position.String())
	if w.Duplicate {
		b = codec.AppendBool(codec.AppendString(b, "duplicate"), true)
	}
	b = codec.AppendArray(codec.AppendString(b, "events"), len(w.Events))
	for i := range w.Events {
		e := &w.Events[i]
		entries := 4
		if e.SchemaVersion > 0 {
			entries++
		}
		b = codec.AppendMap(b, entries)
		b = codec.AppendString(codec.AppendString(b, "id"), e.ID)
		b = codec.AppendString(codec.AppendString(b, "name"), e.Name)
		b = codec.AppendInt(codec.AppendString(b, "version"), int64(e.Version)) //nolint:gosec // a count of events
		if e.SchemaVersion > 0 {
			b = codec.AppendInt(codec.AppendString(b, "schemaVersion"), int64(e.SchemaVersion))
		}
		b = codec.AppendBytes(codec.AppendString(b, "data"), e.Data)
	}
	return b
}

// unpack reads what pack wrote, or somebody else did.
func (w *wireReply) unpack(data []byte) error {
	r := codec.NewReader(data)
	for range r.Map() {
		switch string(r.Bytes()) {
		case "id":
			w.ID = r.String()
		case "version":
			w.Version = uint64(r.Int()) //nolint:gosec // a count of events
		case "position":
			position, err := jetstream.ParsePosition(r.String())
			if err != nil {
				r.Fail(err)
			}
			w.Position = position
		case "duplicate":
			w.Duplicate = r.Bool()
		case "events":
			n := r.Array()
			w.Events = make([]wireEvent, 0, min(n, r.Rest()/eventRoom+1))
			for range n {
				w.Events = append(w.Events, unpackEvent(r))
				if r.Err() != nil {
					break
				}
			}
		default:
			r.Skip()
		}
	}
	return r.Err()
}

func unpackEvent(r *codec.Reader) (e wireEvent) {
	for range r.Map() {
		switch string(r.Bytes()) {
		case "id":
			e.ID = r.String()
		case "name":
			e.Name = r.String()
		case "version":
			e.Version = uint64(r.Int()) //nolint:gosec // a count of events
		case "schemaVersion":
			e.SchemaVersion = int(r.Int())
		case "data":
			e.Data = r.Bytes()
		default:
			r.Skip()
		}
	}
	return e
}

// decodeReply reads a reply into typed events. A service may be newer than this
// program, or older: events are upcast, and of those that this program's schema does
// not know, or cannot read, only the Meta is there. The command happened all the same.
func decodeReply(data []byte, cdc codec.Codec, d *definition) (Result, error) {
	var in wireReply
	var err error
	if cdc == codec.JSON {
		err = cdc.Decode(data, &in)
	} else {
		err = in.unpack(data)
	}
	if err != nil {
		return Result{}, err
	}
	res := Result{ID: in.ID, Version: in.Version, Position: in.Position, Duplicate: in.Duplicate}
	if len(in.Events) > 0 {
		res.Events = make([]jetstream.Recorded, 0, len(in.Events))
	}
	for i := range in.Events {
		e := &in.Events[i]
		r := jetstream.Recorded{Meta: jetstream.Meta{
			Type: d.schema.Type(), ID: in.ID, EventID: e.ID, Name: e.Name, Version: e.Version, Position: in.Position,
		}}
		events, err := d.schema.Decode(jetstream.EventData{
			Name: e.Name, Version: max(e.SchemaVersion, 1), Codec: cdc, Data: e.Data,
		})
		if err != nil {
			res.Events = append(res.Events, r)
			continue
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
