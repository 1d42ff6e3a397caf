package sse_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/sse"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

func TestServe(t *testing.T) {
	t.Parallel()
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	w := httptest.NewRecorder()
	sse.Serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), wake, func() []sse.Event {
		close(wake) // after these
		return []sse.Event{
			{Name: "gap", Data: []byte(`{"skipped":3}`)}, {ID: 7, Name: "event", Data: []byte(`{}`)},
		}
	})
	const want = "retry: 2000\n\nevent: gap\ndata: {\"skipped\":3}\n\nid: 7\nevent: event\ndata: {}\n\n"
	if got := w.Body.String(); got != want {
		t.Errorf("%q", got)
	}
	if got := w.Header().Get("Content-Type"); got != "text/event-stream" || !w.Flushed {
		t.Errorf("%q, flushed: %v", got, w.Flushed)
	}
}
