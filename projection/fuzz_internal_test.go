package projection

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
)

// FuzzQuery: whatever is asked, is a key, a list, or an error that names the field.
func FuzzQuery(f *testing.F) {
	f.Add("a1", `{"prefix":"a","after":"1-z","limit":10}`)
	f.Add("=41=2", `{"after":"-1-zz"}`)
	f.Add("=", `{"limit":-9223372036854775808}`)
	f.Add("=ff=00", `[]`)
	f.Add(strings.Repeat("=41", 1000), `{"after":"999999999999999999999-1"}`)
	f.Fuzz(func(t *testing.T, stored, body string) {
		key, err := decodeKey(stored)
		var bad *KeyError
		if err != nil && !errors.As(err, &bad) {
			t.Errorf("%T %v", err, err)
		}
		if err == nil {
			if again, err := encodeKey(key); err == nil {
				if same, err := decodeKey(again); err != nil || same != key {
					t.Errorf("key %q is stored as %q, read as %q, %v", key, again, same, err)
				}
			}
		}
		request, err := parseList([]byte(body))
		if err == nil {
			if request.Limit < 1 || request.Limit > scanKeys {
				t.Errorf("%q lists %d keys", body, request.Limit)
			}
			_, _, err = parseToken(request.After)
			_ = prefixFilters(request.Prefix)
		}
		var invalid *jetstream.InvalidError
		if err != nil && (!errors.As(err, &invalid) || invalid.Field == "") {
			t.Errorf("%T %v", err, err)
		}
	})
}

// FuzzOwnKeys: what stands under a view's own keys, which anybody with the right to
// write to its bucket can write, is read or an error of the bucket.
func FuzzOwnKeys(f *testing.F) {
	f.Add(`{"format":1,"view":"v","store":"s","position":7,"state":"running"}`)
	f.Add(`{"format":1,"generations":[{"number":1,"state":"live"},{"number":1,"state":"building"}]}`)
	f.Add(`{"format":1,"pause":{},"skips":[{"sequence":1}]}`)
	f.Add(`{"format":2}`)
	f.Add(`{"format":1,"generations":null,"last":-1}`)
	f.Fuzz(func(t *testing.T, body string) {
		m := &jetstream.Message{Subject: "$KV.bank_v._rossby.1", Sequence: 1, Data: []byte(body), Header: nats.Header{}}
		wrong := func(err error) {
			if err != nil && !errors.Is(err, ErrBucket) {
				t.Errorf("%T %v", err, err)
			}
		}
		cp, err := decodeCheckpoint(m)
		wrong(err)
		if err == nil {
			if _, err := json.Marshal(cp); err != nil {
				t.Error(err)
			}
		}
		p, err := decodePointer(m)
		wrong(err)
		if err == nil {
			_, _, _ = p.live(), p.newest(), p.next()
			_ = p.pick(1)
		}
		wrong(decodeControl(m, new(control)))
	})
}

func TestListRequestsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := parseList([]byte(`{"prefix":"` + strings.Repeat("x", maxListRequest) + `"}`))
	var invalid *jetstream.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "list request" || !strings.Contains(invalid.Reason, "at most 16384") {
		t.Errorf("%v", err)
	}
	for _, limit := range []string{"-1", "0", "1000000"} {
		r, err := parseList([]byte(`{"limit":` + limit + `}`))
		if err != nil || r.Limit != QueryPageDefault {
			t.Errorf("limit %s: %+v, %v", limit, r, err)
		}
	}
}
