package queryhttp

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/projection"
)

// stream answers with what changes, as server-sent events: put, delete, ready and
// reset, as in a watch. An event's id is the token to go on after it.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request, q *query) error {
	if !h.enter() {
		return problem.Of(http.StatusTooManyRequests, "busy", "there are as many event streams as there may be").Again(again)
	}
	defer h.leave()
	// What is sent begins with what the caller must see.
	ready, cancel := context.WithTimeout(r.Context(), q.wait)
	_, err := h.view.position(ready, projection.AtLeast(q.after))
	cancel()
	if err != nil {
		return err
	}
	o := projection.WatchOptions{Key: q.key, Prefix: q.prefix, After: q.last}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", eventStream)
		return nil
	}
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	defer context.AfterFunc(h.ctx, stop)() //nolint:contextcheck // the handler's end is another

	changes, ended := make(chan change), make(chan error, 1)
	go func() {
		defer close(changes)
		for c, err := range h.view.watch(ctx, o) {
			if err != nil {
				ended <- err
				return
			}
			select {
			case changes <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		stop()
		for range changes {
		}
	}()
	s := &sink{w: w, rc: http.NewResponseController(w), limit: h.cfg.WriteTimeout, tick: time.NewTicker(h.cfg.Heartbeat)}
	defer s.tick.Stop()
	defer s.end()
	if h.ctx.Err() == nil {
		err = h.pump(ctx, s, changes)
	}
	if err == nil {
		select {
		case err = <-ended:
		default:
		}
	}
	if !s.begun {
		return err
	}
	if err != nil && ctx.Err() == nil {
		h.cfg.Logger.WarnContext(r.Context(), "event stream ended", "path", r.URL.EscapedPath(), "error", err)
	}
	return nil
}

// enter takes a place for an event stream, unless there is none or the handler is
// closed.
func (h *Handler) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	select {
	case h.watches <- struct{}{}:
		h.open.Add(1)
		return true
	default:
		return false
	}
}

func (h *Handler) leave() {
	<-h.watches
	h.open.Done()
}

// pump sends events until the watch, the client or the handler ends.
func (h *Handler) pump(ctx context.Context, s *sink, changes <-chan change) error {
	for {
		select {
		case c, more := <-changes:
			if !more {
				return nil
			}
			if err := s.event(c); err != nil {
				return err
			}
		case <-s.tick.C:
			if err := s.send([]byte(":\n\n")); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// sink writes an event stream. Each write must be taken within a limit: nothing is
// kept for a client that is slow, and the watch leaves out what it is too slow for.
type sink struct {
	w             http.ResponseWriter
	rc            *http.ResponseController
	limit         time.Duration
	tick          *time.Ticker
	begun, failed bool
	buf           bytes.Buffer
}

func (s *sink) event(c change) error {
	var data any
	switch c.kind {
	case projection.Put, projection.Delete:
		data = c.entry
	case projection.Ready, projection.Reset:
		data = map[string]any{"position": c.entry.Position, "generation": c.entry.Generation}
	}
	body, err := encode(data)
	if err != nil {
		return err
	}
	s.buf.Reset()
	s.buf.WriteString("id: " + c.entry.token + "\nevent: " + c.kind.String() + "\ndata: ")
	s.buf.Write(body) // JSON has no line breaks here
	s.buf.WriteString("\n\n")
	return s.send(s.buf.Bytes())
}

func (s *sink) send(data []byte) error {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", eventStream)
		s.w.Header().Set("X-Accel-Buffering", "no") // proxies hand events on at once
		s.w.WriteHeader(http.StatusOK)
	}
	// Not every ResponseWriter can: then the server's own limits hold.
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.limit))
	_, err := s.w.Write(data)
	if err == nil {
		err = s.rc.Flush()
	}
	s.failed = err != nil
	return err
}

// end lets a connection that is still good be used for other requests.
func (s *sink) end() {
	if s.begun && !s.failed {
		_ = s.rc.SetWriteDeadline(time.Time{})
	}
}
