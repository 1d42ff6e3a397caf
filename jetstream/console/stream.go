package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rossby-go/rossby/internal/sse"
	"github.com/rossby-go/rossby/jetstream"
)

// How pages are fed.
const (
	tailEvery = 100 * time.Millisecond
	tailBack  = 20
	tailMost  = 2000
	tailRetry = time.Second
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
				h.event(ctx, sse.Event{ID: commit.Sequence, Name: "event", Data: data})
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

// stream is the server-sent events that a page lives on.
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
	sse.Serve(w, r, listener.wake, func() []sse.Event {
		events, skipped := c.hub.take(listener)
		if skipped > 0 {
			gap := sse.Event{Name: "gap", Data: fmt.Appendf(nil, `{"skipped":%d}`, skipped)}
			events = append([]sse.Event{gap}, events...)
		}
		return events
	})
}
