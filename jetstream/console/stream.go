package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// How pages are fed.
const (
	tailEvery = 100 * time.Millisecond
	tailBack  = 20
	tailMost  = 2000
	tailRetry = time.Second

	heartbeatEvery = 10 * time.Second
	flushEvery     = 100 * time.Millisecond
	writeTimeout   = 10 * time.Second
	reconnectAfter = 2 * time.Second
)

// feed tells the hub what happens until ctx ends.
func (c *Console) feed(ctx context.Context, h *hub) {
	var wg sync.WaitGroup
	wg.Go(func() { c.tail(ctx, h) })
	wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			s, err := json.Marshal(c.status(ctx))
			if err == nil {
				h.statusNow(ctx, s)
			}
			wait(ctx, max(statusEvery-time.Since(began), tailEvery))
		}
	})
	wg.Wait()
}

// tail reads the store's events from where it ends. It asks the stream, since who
// listens on its subjects hears of commits that are then refused.
func (c *Console) tail(ctx context.Context, h *hub) {
	var after uint64
	for ctx.Err() == nil {
		head, err := c.cfg.Store.LastSequence(ctx)
		if err == nil {
			if head < after || head > after+tailMost {
				next := head - min(head, tailBack)
				if after > 0 && next > after {
					h.gap(ctx, int(next-after)) //nolint:gosec // commits of a stream
				}
				after = next
			}
			after, err = c.forward(ctx, h, after, head)
		}
		if err != nil {
			wait(ctx, tailRetry)
			continue
		}
		wait(ctx, tailEvery)
	}
}

// forward hands on the events up to a sequence, and returns how far it came.
func (c *Console) forward(ctx context.Context, h *hub, after, to uint64) (uint64, error) {
	if to <= after {
		return after, nil
	}
	for commit, err := range c.cfg.Store.Scan(ctx, "", jetstream.Range{After: after, To: to}) {
		if err != nil {
			return after, err
		}
		for _, e := range eventsOf(commit, dataBytes) {
			if data, err := json.Marshal(e); err == nil {
				h.event(ctx, frame{sequence: commit.Sequence, name: "event", data: data})
			}
		}
		after = commit.Sequence
	}
	return to, nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// stream is the server-sent events that a page lives on. A page that does not take
// what it is sent loses the connection.
func (c *Console) stream(w http.ResponseWriter, r *http.Request) {
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("after")
	}
	after, err := number("after", last)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	listener := c.hub.join(r.Context(), after)
	if listener == nil {
		w.Header().Set("Retry-After", "5")
		c.fail(w, r, &problem{
			Status: http.StatusServiceUnavailable, Code: "too-many",
			Detail: fmt.Sprintf("%d pages listen already", c.cfg.Listeners),
		})
		return
	}
	defer c.hub.leave(listener)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
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
		case <-listener.wake:
			frames, skipped := c.hub.take(listener)
			if skipped > 0 {
				s.frame(frame{name: "gap", data: fmt.Appendf(nil, `{"skipped":%d}`, skipped)})
			}
			for _, f := range frames {
				s.frame(f)
			}
			s.flush()
			wait(r.Context(), flushEvery)
		case <-heartbeat.C:
			s.text(": still here\n\n")
			s.flush()
		}
	}
}

// sender writes server-sent events until one cannot be written.
type sender struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (s *sender) frame(f frame) {
	var b strings.Builder
	if f.sequence > 0 {
		b.WriteString("id: " + strconv.FormatUint(f.sequence, 10) + "\n")
	}
	b.WriteString("event: " + f.name + "\ndata: ")
	b.Write(f.data) // JSON in one line
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
