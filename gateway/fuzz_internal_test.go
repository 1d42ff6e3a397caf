package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzEntry: an entry of the ledger is read as it was written, or refused.
func FuzzEntry(f *testing.F) {
	for _, text := range []string{
		`{"event":"c.0","sequence":2,"highest":3,"epoch":1,"note":"n","time":"2026-11-26T00:00:00Z"}`,
		`{"event":"c.0","sequence":4,"highest":3}`, `{"highest":18446744073709551615}`, `{"highest":-1}`, `null`, `[]`, ``,
		`{"time":"yesterday"}`, strings.Repeat("[", 1<<14),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err != nil {
			if e != (entry{}) {
				t.Fatalf("%v, and %+v", err, e)
			}
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			return // a time that JSON cannot have
		}
		got, err := decodeEntry(again)
		if err != nil || got.Event != e.Event || got.Sequence != e.Sequence || got.Highest != e.Highest ||
			got.Epoch != e.Epoch || got.Note != e.Note || !got.Time.Equal(e.Time) {
			t.Fatalf("%q is %+v, written again %+v, %v", data, e, got, err)
		}
	})
}
