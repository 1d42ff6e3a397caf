package aggregate

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

type fuzzed struct {
	Text  string
	List  []int64
	Map   map[string]float64
	Inner *fuzzed `json:",omitempty"`
}

func fuzzType(f *testing.F) *Type[fuzzed] {
	f.Helper()
	typ := New[fuzzed](jetstream.NewSchema("thing", jetstream.Event[fuzzed]("changed")),
		Apply(func(s *fuzzed, e fuzzed, _ jetstream.Meta) { *s = e }),
		Handle("change", func(_ fuzzed, c fuzzed, _ Decision) ([]any, error) { return []any{c}, nil }))
	if err := typ.Err(); err != nil {
		f.Fatal(err)
	}
	return typ
}

// FuzzCommand: whatever arrives at a command service is a command, or an error
// that names the field. Headers that are taken travel on unchanged.
func FuzzCommand(f *testing.F) {
	typ := fuzzType(f)
	packed, err := codec.Msgpack.Encode(fuzzed{Text: "x", List: []int64{1}, Map: map[string]float64{"a": 1}})
	if err != nil {
		f.Fatal(err)
	}
	deep := bytes.Repeat([]byte(`{"Inner":`), 20_000)
	f.Add("application/json", []byte(`{"Text":"x","List":[1],"Map":{"a":1.5}}`), "c1", "7", "true", "r e s - 5", "2500ms", "who")
	f.Add("application/msgpack", packed, "", "", "false", "r e s bank-5 1764072000000000", "", "")
	f.Add("application/json", deep, "\x00", "-1", "yes", " ", "-3s", "\n")
	f.Add("application/msgpack", bytes.Repeat([]byte{0x81, 0xa5, 'I', 'n', 'n', 'e', 'r'}, 20_000), "", "1", "", "", "1h", "")
	f.Add("application/msgpack", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, "", "", "", "", "", "")
	f.Add("text/plain", []byte("x"), strings.Repeat("i", 200), "18446744073709551616", "", "a b c d e f", "x", "")
	f.Fuzz(func(t *testing.T, media string, body []byte, id, version, record, trigger, deadline, meta string) {
		e, cdc, err := (&Encoded{Name: "change", ContentType: media, Body: body}).normal()
		if err == nil {
			var command any
			if command, err = typ.def.handlers["change"].decode(cdc, e.Body); err == nil {
				if _, err := cdc.Encode(command); err != nil {
					t.Errorf("a command that was read cannot be stored: %v", err)
				}
			}
		}
		wantsField(t, err)
		h := nats.Header{
			protocol.HeaderCommandID: {id}, protocol.HeaderExpectVersion: {version},
			protocol.HeaderRecordRejections: {record}, protocol.HeaderTrigger: {trigger},
			protocol.HeaderMetaPrefix + "Who": {meta},
		}
		for name, values := range h {
			if values[0] == "" {
				delete(h, name)
			}
		}
		if _, err := protocol.Timeout(deadline, time.Second); err == nil && deadline != "" {
			if d, err := time.ParseDuration(deadline); err != nil || d <= 0 {
				t.Errorf("deadline %q is taken", deadline)
			}
		}
		c, err := callOf(h)
		if err == nil {
			err = c.validate(time.Now())
		}
		wantsField(t, err)
		if err != nil {
			return
		}
		again, err := callOf(c.header(t.Context(), media))
		if err != nil {
			t.Fatalf("%+v does not travel: %v", c, err)
		}
		if c.trigger != nil && again.trigger != nil {
			// The time travels in microseconds.
			again.trigger.Time = c.trigger.Time
		}
		if !reflect.DeepEqual(c, again) {
			t.Errorf("%+v arrives as %+v", c, again)
		}
	})
}

// wantsField wants errors that say what is wrong with what was sent.
func wantsField(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	invalid, ok := errors.AsType[*jetstream.InvalidError](err)
	if !ok || invalid.Field == "" || invalid.Reason == "" {
		t.Errorf("%T %v names no field", err, err)
	}
	if b := errorBody(err); b.Kind != protocol.KindInvalid {
		t.Errorf("%v is answered as %q", err, b.Kind)
	}
	if len(err.Error()) > 64<<10 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// FuzzReply: whatever a service answers, a client makes a result or an error of it.
func FuzzReply(f *testing.F) {
	typ := fuzzType(f)
	good, err := encodeReply(Result{ID: "a", Version: 2, Events: []jetstream.Recorded{
		{Meta: jetstream.Meta{EventID: "c.0", Name: "changed", Version: 2}, Event: fuzzed{Text: "x"}},
	}}, codec.Msgpack, &typ.def)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, true, "")
	f.Add([]byte(`{"id":"a","version":1,"position":"x-1","events":[{"id":"c.0","name":"changed","data":{"Text":"x"}}]}`), false, "")
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, true, "500")
	f.Add([]byte(`{"kind":"conflict","actual":-1,"version":"x"}`), false, "409")
	f.Fuzz(func(t *testing.T, body []byte, packed bool, code string) {
		cdc := codec.JSON
		if packed {
			cdc = codec.Msgpack
		}
		if res, err := decodeReply(body, cdc, &typ.def); err == nil {
			if _, err := encodeReply(res, cdc, &typ.def); err != nil && len(res.Events) > 0 && res.Events[0].Event != nil {
				t.Errorf("%+v: %v", res, err)
			}
		}
		var b protocol.ErrorBody
		if json.Unmarshal(body, &b) == nil && b.Kind != "" {
			if err := remoteError("thing", "a", b); err == nil || err.Error() == "" {
				t.Errorf("%+v is no error", b)
			}
		}
		msg := &nats.Msg{Data: body, Header: nats.Header{"Nats-Service-Error-Code": {code}}}
		_, _ = (&Client{name: "thing", def: &typ.def}).reply("a", msg)
	})
}
