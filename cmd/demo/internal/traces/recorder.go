package traces

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of a [Recorder].
const (
	tracesMost = 100
	spansMost  = 500
)

// Recorder keeps the newest traces, a bounded number of a bounded size.
type Recorder struct {
	mu     sync.Mutex
	order  []string // oldest first
	traces map[string][]Span
}

// NewRecorder makes an empty recorder.
func NewRecorder() *Recorder { return &Recorder{traces: map[string][]Span{}} }

// Add takes a span as it was sent. What is none is left out.
func (r *Recorder) Add(body []byte) {
	var s Span
	if err := json.Unmarshal(body, &s); err != nil || s.TraceID == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	spans, known := r.traces[s.TraceID]
	if !known {
		r.order = append(r.order, s.TraceID)
		if len(r.order) > tracesMost {
			delete(r.traces, r.order[0])
			r.order = r.order[1:]
		}
	}
	if len(spans) < spansMost {
		r.traces[s.TraceID] = append(spans, s)
	}
}

// Summary is a trace in a list.
type Summary struct {
	TraceID string    `json:"traceId"`
	Name    string    `json:"name"`
	Start   time.Time `json:"start"`
	Millis  float64   `json:"millis"`
	Spans   int       `json:"spans"`
}

// Traces lists what is kept, the newest first.
func (r *Recorder) Traces() []Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Summary, 0, len(r.order))
	for _, id := range slices.Backward(r.order) {
		spans := r.traces[id]
		first, end := spans[0], spans[0].End
		for _, s := range spans {
			if s.Start.Before(first.Start) {
				first = s
			}
			if s.End.After(end) {
				end = s.End
			}
		}
		out = append(out, Summary{
			TraceID: id, Name: first.Name, Start: first.Start, Spans: len(spans),
			Millis: float64(end.Sub(first.Start).Microseconds()) / 1000,
		})
	}
	return out
}

// Trace is one trace's spans, in the order in which they began.
func (r *Recorder) Trace(id string) []Span {
	r.mu.Lock()
	spans := slices.Clone(r.traces[id])
	r.mu.Unlock()
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return spans
}

// ServeHTTP answers with the list of traces, or with the spans of the one in the
// path.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var body []byte
	var err error
	if id := req.PathValue("id"); id != "" {
		body, err = json.Marshal(append([]Span{}, r.Trace(id)...)) // of what has not come there is nothing yet
	} else {
		body, err = json.Marshal(r.Traces())
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body) // whoever asked has gone
}
