package console

import (
	"context"
	"sync"

	"github.com/rossby-go/rossby/internal/sse"
)

// What is kept for pages.
const (
	hubRecent  = 100
	hubPending = 256
)

// hub hands on what one feed finds to all pages that listen. The feed runs while
// there are any.
type hub struct {
	most int
	feed func(ctx context.Context, h *hub)

	mu      sync.Mutex
	clients map[*client]bool
	stop    context.CancelFunc
	// recent are the last events, status is the last status.
	recent []sse.Event
	status *sse.Event
}

// client is a page that listens. What it does not take is left out but for the
// newest.
type client struct {
	wake    chan struct{}
	pending []sse.Event
	status  *sse.Event
	skipped int
}

func newHub(most int, feed func(context.Context, *hub)) *hub {
	return &hub{most: most, feed: feed, clients: map[*client]bool{}}
}

// join adds a page, which is told the events after a sequence as far as they are
// remembered; nil when there are too many.
func (h *hub) join(ctx context.Context, after uint64) *client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) >= h.most {
		return nil
	}
	c := &client{wake: make(chan struct{}, 1), status: h.status}
	for _, f := range h.recent {
		if f.ID > after {
			c.pending = append(c.pending, f)
		}
	}
	h.clients[c] = true
	c.call()
	if h.stop == nil {
		// The feed is for whoever comes later, too.
		feed, stop := context.WithCancel(context.WithoutCancel(ctx))
		h.stop = stop
		go h.feed(feed, h)
	}
	return c
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
	if len(h.clients) == 0 && h.stop != nil {
		h.stop()
		h.stop, h.recent, h.status = nil, nil, nil
	}
}

// event hands on an event, unless the feed was stopped meanwhile.
func (h *hub) event(ctx context.Context, f sse.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	h.recent = append(h.recent, f)
	if len(h.recent) > hubRecent {
		h.recent = h.recent[1:]
	}
	for c := range h.clients {
		if len(c.pending) >= hubPending {
			c.pending = c.pending[1:]
			c.skipped++
		}
		c.pending = append(c.pending, f)
		c.call()
	}
}

// gap tells that events were left out.
func (h *hub) gap(ctx context.Context, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	for c := range h.clients {
		c.skipped += n
		c.call()
	}
}

func (h *hub) statusNow(ctx context.Context, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	h.status = &sse.Event{Name: "status", Data: data}
	for c := range h.clients {
		c.status = h.status
		c.call()
	}
}

func (c *client) call() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take is what a page has not been told.
func (h *hub) take(c *client) (frames []sse.Event, skipped int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	frames, skipped = c.pending, c.skipped
	if c.status != nil {
		frames = append(frames, *c.status)
	}
	c.pending, c.status, c.skipped = nil, nil, 0
	return frames, skipped
}
