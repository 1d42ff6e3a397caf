package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// How pages are fed.
const (
	heartbeatEvery = 10 * time.Second
	flushEvery     = 100 * time.Millisecond
	writeTimeout   = 10 * time.Second
	reconnectAfter = 2 * time.Second
)

// events is the stream of server-sent events that a page lives on. A client that
// does not take what it is sent loses the connection; what changes faster than
// flushEvery is sent once.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	c := a.hub.join(last)
	if c == nil {
		return notReady("no more listeners now")
	}
	defer a.hub.leave(c)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies are not to collect it
	w.WriteHeader(http.StatusOK)
	s := stream{w: w, rc: http.NewResponseController(w)}
	s.text(fmt.Sprintf("retry: %d\n\n", reconnectAfter.Milliseconds()))

	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	for s.err == nil {
		select {
		case <-r.Context().Done():
			return nil
		case _, ok := <-c.wake:
			if !ok {
				return nil
			}
			for _, f := range a.hub.take(c) {
				s.frame(f)
			}
			s.flush()
			if pause(r.Context(), flushEvery) != nil {
				return nil
			}
		case <-heartbeat.C:
			s.text(": still here\n\n")
			s.flush()
		}
	}
	return nil
}

// stream writes server-sent events until one cannot be written.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (s *stream) frame(f frame) {
	var b strings.Builder
	if f.id > 0 {
		b.WriteString("id: " + strconv.FormatUint(f.id, 10) + "\n")
	}
	b.WriteString("event: " + f.name + "\ndata: ")
	b.Write(f.data) // JSON in one line
	b.WriteString("\n\n")
	s.text(b.String())
}

func (s *stream) text(text string) {
	if s.err == nil {
		_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
		_, s.err = s.w.Write([]byte(text))
	}
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = s.rc.Flush()
	}
}
