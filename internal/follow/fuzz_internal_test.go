package follow

import (
	"errors"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

// FuzzRecord: what stands where a follower keeps its record is a record, which is
// written again as it was, or an error that says it is none.
func FuzzRecord(f *testing.F) {
	f.Add(`{"v":1,"owner":"a/1/x","epoch":3,"position":7,"store":"s","version":1,"lanes":{"b.event.t.1.a":{"from":8,"to":9,"tries":2,"parked":true,"error":"x"}}}`)
	f.Add(`{"v":1,"lanes":{"":{"from":9,"to":1,"notBefore":9223372036854775807}}}`)
	f.Add(`{"v":2}`)
	f.Add(`{"v":1,"paused":{},"replay":{"from":5,"to":1}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := decodeRecord(wire.Message{Data: []byte(body), Sequence: 1})
		if err != nil {
			if !errors.Is(err, ErrRecordFormat) {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		now := time.Now()
		lanes := lanesOf(r, now)
		again, err := decodeRecord(wire.Message{Data: r.encode(lanes, errorTextMax), Sequence: 2})
		if err != nil {
			t.Fatalf("%q is written so that it cannot be read: %v", body, err)
		}
		if again.Position != r.Position || again.Epoch != r.Epoch || again.Store != r.Store || len(again.Lanes) != len(r.Lanes) {
			t.Errorf("%+v, then %+v", r, again)
		}
		for key, l := range r.Lanes {
			if got := again.Lanes[key]; got.From != l.From || got.To != l.To || got.Parked != l.Parked {
				t.Errorf("lane %q: %+v, then %+v", key, l, got)
			}
		}
	})
}
