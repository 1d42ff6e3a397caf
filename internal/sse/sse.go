// Package sse feeds pages with server-sent events.
package sse

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	heartbeatEvery = 10 * time.Second
	flushEvery     = 100 * time.Millisecond
	writeTimeout   = 10 * time.Second
	reconnectAfter = 2 * time.Second
)

// Event is one server-sent event. With an ID other than 0 it is what a page that
// connects again has seen last.
type Event struct {
	ID   uint64
	Name string
	// Data is JSON in one line.
	Data []byte
}

// Serve answers with what take returns, whenever wake says that there is something,
// though not more often than ten times a second: until the page is gone, or wake is
// closed. A page that does not take what it is sent loses the connection.
func Serve(w http.ResponseWriter, r *http.Request, wake <-chan struct{}, take func() []Event) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies are not to collect it
	w.WriteHeader(http.StatusOK)
	s := sender{w: w, rc: http.NewResponseController(w)}
	s.text(fmt.Sprintf("retry: %d\n\n", reconnectAfter.Milliseconds()))
	s.flush()
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	for s.err == nil {
		select {
		case <-r.Context().Done():
			return
		case _, ok := <-wake:
			if !ok {
				return
			}
			for _, e := range take() {
				s.event(e)
			}
			s.flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(flushEvery):
			}
		case <-heartbeat.C:
			s.text(": still here\n\n")
			s.flush()
		}
	}
}

// sender writes until something cannot be written.
type sender struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (s *sender) event(e Event) {
	var b strings.Builder
	if e.ID > 0 {
		b.WriteString("id: " + strconv.FormatUint(e.ID, 10) + "\n")
	}
	b.WriteString("event: " + e.Name + "\ndata: ")
	b.Write(e.Data)
	b.WriteString("\n\n")
	s.text(b.String())
}

func (s *sender) text(text string) {
	if s.err == nil {
		_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
		_, s.err = s.w.Write([]byte(text))
	}
}

func (s *sender) flush() {
	if s.err == nil {
		s.err = s.rc.Flush()
	}
}
