package traces_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/traces"
)

// However much is sent, a bounded number of traces of a bounded size is kept, the
// newest; what is no span is left out.
func TestRecorderIsBounded(t *testing.T) {
	t.Parallel()
	r := traces.NewRecorder()
	began := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	add := func(trace string, n int) {
		for i := range n {
			body, err := json.Marshal(traces.Span{
				TraceID: trace, SpanID: strconv.Itoa(i), Name: "s", Start: began, End: began.Add(time.Millisecond),
			})
			if err != nil {
				t.Fatal(err)
			}
			r.Add(body)
		}
	}
	r.Add([]byte("no span"))
	r.Add([]byte("{}"))
	add("large", 2000)
	if got := len(r.Trace("large")); got != 500 {
		t.Errorf("%d spans of a trace are kept", got)
	}
	for i := range 150 {
		add(fmt.Sprint("t", i), 1)
	}
	list := r.Traces()
	if len(list) != 100 || list[0].TraceID != "t149" || list[0].Millis != 1 || len(r.Trace("large")) != 0 {
		t.Errorf("%d traces are kept, the newest is %+v", len(list), list[0])
	}
}
