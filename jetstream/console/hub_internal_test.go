package console

import (
	"context"
	"testing"

	"github.com/rossby-go/rossby/internal/sse"
)

// A page that takes nothing costs a bounded number of frames, and is told how many
// it has missed; it still gets the newest, and the last status only.
func TestSlowPagesAreBounded(t *testing.T) {
	t.Parallel()
	fed := make(chan context.Context, 2)
	h := newHub(2, func(ctx context.Context, _ *hub) { fed <- ctx })
	slow := h.join(t.Context(), 0)
	feed := <-fed
	const events = 1000
	for i := range uint64(events) {
		h.event(feed, sse.Event{ID: i + 1, Name: "event"})
		h.statusNow(feed, []byte{byte(i)})
	}
	frames, skipped := h.take(slow)
	if len(frames) != hubPending+1 || skipped != events-hubPending || frames[hubPending-1].ID != events ||
		frames[hubPending].Name != "status" {
		t.Errorf("%d frames, %d skipped", len(frames), skipped)
	}
	// Who comes later is told what is remembered of what it does not know.
	late := h.join(t.Context(), events-10)
	if frames, skipped := h.take(late); len(frames) != 11 || skipped != 0 || frames[0].ID != events-9 {
		t.Errorf("%d frames, %d skipped", len(frames), skipped)
	}
	if h.join(t.Context(), 0) != nil {
		t.Error("a third page was let in")
	}
	h.leave(slow)
	if feed.Err() != nil {
		t.Error("the feed ended though somebody listens")
	}
	h.leave(late)
	if feed.Err() == nil {
		t.Error("the feed goes on though nobody listens")
	}
	// What an old feed still finds is not told to new pages.
	next := h.join(t.Context(), 0)
	<-fed
	h.event(feed, sse.Event{ID: 1})
	if frames, _ := h.take(next); len(frames) != 0 {
		t.Errorf("%d frames of the old feed", len(frames))
	}
	h.leave(next)
}
