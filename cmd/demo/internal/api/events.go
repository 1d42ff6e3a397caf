package api

import (
	"net/http"
	"strconv"

	"github.com/rossby-go/rossby/internal/sse"
)

// events is the stream of server-sent events that a page lives on. What changes faster
// than it is sent is sent once.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	c := a.hub.join(last)
	if c == nil {
		return notReady("no more listeners now")
	}
	defer a.hub.leave(c)
	sse.Serve(w, r, c.wake, func() []sse.Event { return a.hub.take(c) })
	return nil
}
