package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// message is a server-sent event.
type message struct {
	event, id string
	data      object
}

// listen reads server-sent events until the stream or the test ends.
func (b *bank) listen(headers ...string) <-chan message {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(req) //nolint:bodyclose // its reader closes it
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatal(resp.Status, resp.Header)
	}
	out := make(chan message, 10_000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		defer func() { _ = resp.Body.Close() }()
		var m message
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			name, value, _ := strings.Cut(s.Text(), ": ")
			switch name {
			case "event":
				m.event = value
			case "id":
				m.id = value
			case "data":
				_ = json.Unmarshal([]byte(value), &m.data)
			case "":
				if m.event != "" {
					out <- m
				}
				m = message{}
			}
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	return out
}

// await reads messages until one fits.
func await(t *testing.T, from <-chan message, what string, fits func(message) bool) message {
	t.Helper()
	timeout := time.After(natstest.Patience)
	for {
		select {
		case m, ok := <-from:
			if !ok {
				t.Fatalf("the stream ended before: %s", what)
			}
			if fits(m) {
				return m
			}
		case <-timeout:
			t.Fatalf("never came: %s", what)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	old := b.open(100)
	stream := b.listen()
	await(t, stream, "the event before", func(m message) bool {
		return m.event == "event" && m.data["id"] == old && m.data["name"] == "opened"
	})
	await(t, stream, "the account before", func(m message) bool {
		return m.event == "account" && m.data["accountId"] == old && m.data["balanceCents"] == 100.0 && m.data["history"] == nil
	})
	to := b.open(0)
	id := b.want(202, "POST", "/api/transfers", transferOf(old, to, 40)).str("transferId")
	seen := map[string]bool{}
	var event message
	await(t, stream, "all that a transfer does", func(m message) bool {
		switch {
		case m.event == "transfer" && m.data["transferId"] == id && m.data["state"] == "COMPLETED":
			seen["transfer"] = true
		case m.event == "account" && m.data["accountId"] == to && m.data["balanceCents"] == 40.0:
			seen["account"] = true
		case m.event == "event" && m.data["id"] == to && m.data["name"] == "credited":
			event = m
		case m.event == "status":
			i, _ := m.data["invariant"].(object)
			if i["settled"] == true && i["holds"] == true && i["depositedCents"] == 100.0 && m.data["followers"] != nil {
				seen["status"] = true
			}
		}
		return seen["transfer"] && seen["account"] && seen["status"] && event.event != ""
	})
	for _, field := range []string{"sequence", "position", "type", "version", "time", "data"} {
		if event.data[field] == nil {
			t.Errorf("an event has no %s: %v", field, event.data)
		}
	}
	if d, _ := event.data["data"].(object); d["transferId"] != id || d["cents"] != 40.0 {
		t.Error(event.data)
	}

	// A page that was interrupted goes on after the event it saw last.
	resumed := b.listen("Last-Event-ID", event.id)
	last := b.open(1)
	await(t, resumed, "the next event", func(m message) bool {
		if m.event == "event" && m.data["id"] == old && m.data["name"] == "opened" {
			t.Error("an old event comes again")
		}
		return m.event == "event" && m.data["id"] == last
	})

	// The end of Run ends the streams, and there are no new ones.
	b.stopAPI()
	timeout := time.After(natstest.Patience)
	for open := true; open; {
		select {
		case _, open = <-stream:
		case <-timeout:
			t.Fatal("the stream goes on")
		}
	}
	b.wantProblem(503, "not-ready", "GET", "/events", "")
	b.wantProblem(503, "not-ready", "GET", "/api/transfers", "")
}

func TestEventsSurviveNATS(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	stream := b.listen()
	await(t, stream, "a status", func(m message) bool { return m.event == "status" && m.data["error"] == nil })
	if err := b.nats.Stop(); err != nil {
		t.Fatal(err)
	}
	await(t, stream, "what is wrong", func(m message) bool { return m.event == "status" && m.data["error"] != nil })
}

func TestSlowListenerBlocksNobody(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := b.client.Do(req) // and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Body.Close() }()
	stream := b.listen()
	a, z := b.open(10_000), b.open(10_000)
	for range 100 {
		b.want(202, "POST", "/api/transfers", transferOf(a, z, 1))
	}
	await(t, stream, "the last balance", func(m message) bool {
		return m.event == "account" && m.data["accountId"] == a && m.data["balanceCents"] == 9900.0
	})
}

func TestTooManyListeners(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	for range 64 {
		b.listen()
	}
	b.wantProblem(503, "not-ready", "GET", "/events", "")
	if r := b.do("GET", "/healthz", ""); r.status != 200 {
		t.Error(errors.New(r.text))
	}
}
