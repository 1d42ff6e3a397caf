package api

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"

	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/internal/sse"
)

// Bounds of what the hub keeps, for all clients and for each.
const (
	clientsMax   = 64
	recentEvents = 60
	eventsMax    = 200
	rowsMax      = 2000
)

// The names of what is sent to pages.
const (
	sendEvent    = "event"
	sendAccount  = "account"
	sendTransfer = "transfer"
	sendStatus   = "status"
	sendGap      = "gap"
)

// hub hands what happens to any number of pages. It never waits for one: what a
// page does not take in time is left out, but for the last state of everything.
type hub struct {
	mu      sync.Mutex
	clients map[*client]struct{}
	// changed is closed and replaced when clients come or go.
	changed chan struct{}
	closed  bool

	recent   []liveEvent
	accounts map[string]json.RawMessage
	status   json.RawMessage

	// newest are the newest transfers, newest first; known says that they are
	// complete.
	newest []views.Transfer
	known  bool
}

// liveEvent is an event as pages get it.
type liveEvent struct {
	sequence uint64
	data     json.RawMessage
}

// client is a page that listens. The hub's lock guards it.
type client struct {
	wake   chan struct{}
	events []liveEvent
	// left counts the events that were left out.
	left uint64
	// rows are the last states of accounts and transfers, in the order of their
	// first change since the client took the ones before.
	rows   map[rowKey]json.RawMessage
	order  []rowKey
	status json.RawMessage
}

// rowKey is a row of the page.
type rowKey struct{ name, id string }

func newHub() *hub {
	return &hub{clients: map[*client]struct{}{}, changed: make(chan struct{}), accounts: map[string]json.RawMessage{}}
}

// open lets the hub take clients; close ends all that are there.
func (h *hub) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = false
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.known = true, false
	for c := range h.clients {
		delete(h.clients, c)
		close(c.wake)
	}
	h.announce()
}

func (h *hub) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// join adds a client that gets what is known now, and the events after the last
// one that it has seen. It returns nil when there are too many.
func (h *hub) join(last uint64) *client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.clients) >= clientsMax {
		return nil
	}
	c := &client{wake: make(chan struct{}, 1), rows: map[rowKey]json.RawMessage{}, status: h.status}
	for _, id := range sortedKeys(h.accounts) {
		c.row(rowKey{sendAccount, id}, h.accounts[id])
	}
	for _, t := range slices.Backward(h.newest[:min(len(h.newest), transfersUsual)]) {
		c.row(rowKey{sendTransfer, t.TransferID}, encode(t))
	}
	for _, e := range h.recent {
		if e.sequence > last {
			c.events = append(c.events, e)
		}
	}
	c.poke()
	h.clients[c] = struct{}{}
	h.announce()
	return c
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.clients[c]; ok {
		delete(h.clients, c)
		h.announce()
	}
}

// present tells whether anybody listens; the channel is closed when that may have
// changed.
func (h *hub) present() (bool, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients) > 0, h.changed
}

// take returns what the client is to be sent now.
func (h *hub) take(c *client) []sse.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []sse.Event
	if c.left > 0 {
		out = append(out, sse.Event{Name: sendGap, Data: encode(map[string]uint64{"skipped": c.left})})
	}
	for _, e := range c.events {
		out = append(out, sse.Event{Name: sendEvent, ID: e.sequence, Data: e.data})
	}
	for _, k := range c.order {
		out = append(out, sse.Event{Name: k.name, Data: c.rows[k]})
	}
	if c.status != nil {
		out = append(out, sse.Event{Name: sendStatus, Data: c.status})
	}
	c.left, c.events, c.order, c.status = 0, nil, nil, nil
	clear(c.rows)
	return out
}

func (h *hub) event(e liveEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = append(h.recent, e)
	if len(h.recent) > recentEvents {
		h.recent = slices.Delete(h.recent, 0, len(h.recent)-recentEvents)
	}
	for c := range h.clients {
		c.events = append(c.events, e)
		if len(c.events) > eventsMax {
			c.events = slices.Delete(c.events, 0, 1)
			c.left++
		}
		c.poke()
	}
}

// gap notes events that nobody gets.
func (h *hub) gap(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = nil
	for c := range h.clients {
		c.left += n + uint64(len(c.events))
		c.events = nil
		c.poke()
	}
}

func (h *hub) account(v Account) {
	data := encode(v)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accounts[v.AccountID] = data
	h.rows(rowKey{sendAccount, v.AccountID}, data)
}

func (h *hub) resetAccounts() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.accounts)
}

func (h *hub) statusNow(data json.RawMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = data
	for c := range h.clients {
		c.status = data
		c.poke()
	}
}

// transfer keeps a transfer if it is one of the newest.
func (h *hub) transfer(v views.Transfer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, found := slices.BinarySearchFunc(h.newest, v, newestFirst)
	switch {
	case found:
		h.newest[i] = v
	case i >= transfersMost:
		return
	default:
		h.newest = slices.Insert(h.newest, i, v)
		if len(h.newest) > transfersMost {
			h.newest = slices.Delete(h.newest, transfersMost, len(h.newest))
		}
	}
	if h.known && len(h.clients) > 0 {
		h.rows(rowKey{sendTransfer, v.TransferID}, encode(v))
	}
}

// transfersKnown says that all there were have been seen, or that they are to be
// forgotten.
func (h *hub) transfersKnown(known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known = known; !known {
		h.newest = nil
		return
	}
	for _, v := range slices.Backward(h.newest[:min(len(h.newest), transfersUsual)]) {
		h.rows(rowKey{sendTransfer, v.TransferID}, encode(v))
	}
}

func (h *hub) newestTransfers(n int) ([]views.Transfer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]views.Transfer, min(n, len(h.newest)))
	copy(list, h.newest)
	return list, h.known
}

func newestFirst(a, b views.Transfer) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.TransferID, a.TransferID))
}

func (h *hub) rows(k rowKey, data json.RawMessage) {
	for c := range h.clients {
		c.row(k, data)
		c.poke()
	}
}

func (c *client) row(k rowKey, data json.RawMessage) {
	if _, ok := c.rows[k]; !ok {
		c.order = append(c.order, k)
		if len(c.order) > rowsMax {
			delete(c.rows, c.order[0])
			c.order = c.order[1:]
		}
	}
	c.rows[k] = data
}

func (c *client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func sortedKeys(m map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// encode is JSON of what always has some.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{}`)
	}
	return data
}
