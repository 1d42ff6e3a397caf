package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// FuzzRequest: whatever somebody asks of a follower's administration is a request,
// or an error that is answered as the asker's.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"by":"ada","reason":"x","lane":"bank.event.a.1.b","sequence":7,"all":true}`))
	f.Add([]byte(`{"sequence":-1}`))
	f.Add([]byte(`{"from":"now"}`))
	f.Add(bytes.Repeat([]byte("["), 20_000))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r followers.Request
		err := decode(body, &r)
		if err == nil {
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
			return
		}
		var invalid *jetstream.InvalidError
		if !errors.As(err, &invalid) || invalid.Field == "" || bodyOf(err).Kind != protocol.KindInvalid {
			t.Errorf("%T %v", err, err)
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	err := decode([]byte(`{"reason":"`+strings.Repeat("x", 64<<10)+`"}`), new(followers.Request))
	var invalid *jetstream.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "request" || !strings.Contains(invalid.Reason, "too long") {
		t.Errorf("%v", err)
	}
}
