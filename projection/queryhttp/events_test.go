package queryhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// event is a server-sent event, or a comment.
type event struct{ id, name, data, comment string }

func (e event) String() string {
	var d struct {
		Key   string   `json:"key"`
		Value *balance `json:"value"`
	}
	_ = json.Unmarshal([]byte(e.data), &d)
	text := e.name
	if d.Key != "" {
		text += " " + d.Key
	}
	if d.Value != nil {
		text += fmt.Sprint(" ", d.Value.Cents)
	}
	return text
}

// source reads an event stream.
type source struct {
	t    *testing.T
	resp *http.Response
	scan *bufio.Scanner
	last string // the last event's id
}

func open(t *testing.T, url, last string) *source {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // it ends with the test
	if err != nil {
		t.Fatal(err)
	}
	s := &source{t: t, resp: resp, scan: bufio.NewScanner(resp.Body)}
	s.scan.Buffer(nil, 4<<20)
	t.Cleanup(s.close)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-cache" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	return s
}

func (s *source) close() { _ = s.resp.Body.Close() }

// next is the next event or comment, false at the end.
func (s *source) next() (e event, ok bool) {
	for s.scan.Scan() {
		line := s.scan.Text()
		if line == "" {
			if e.id != "" {
				s.last = e.id
			}
			return e, true
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			e.comment = "comment"
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		default:
			s.t.Errorf("line %q", line)
		}
	}
	return e, false
}

// want reads events, comments aside.
func (s *source) want(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		e, ok := s.next()
		for ok && e.comment != "" {
			e, ok = s.next()
		}
		if !ok || e.String() != text || e.id == "" {
			s.t.Fatalf("%+v is not %q", e, text)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := f.serve(queryhttp.Config{})
	f.append("a1", credited{Cents: 1})
	f.append("b1", credited{Cents: 2})
	pos := f.append("a2", credited{Cents: 3})
	s := open(t, at+"?prefix=a&after="+pos.String(), "")
	s.want("put a1 1", "put a2 3", "ready")
	one := open(t, at+"a2", "")
	one.want("put a2 3", "ready")
	f.append("b1", credited{Cents: 1})
	f.append("a1", credited{Cents: 1})
	s.want("put a1 2")
	f.append("a2", closed{})
	s.want("delete a2")
	one.want("delete a2")

	// It goes on where it was, at another instance, too: nothing twice, nothing missing.
	s.close()
	f.append("a1", closed{})
	pos = f.append("a3", credited{Cents: 7})
	other := f.serve(queryhttp.Config{})
	s = open(t, other+"?prefix=a&after="+pos.String(), s.last)
	s.want("delete a1", "put a3 7", "ready")
	f.append("a3", credited{Cents: 1})
	s.want("put a3 8")
	again := open(t, other+"a3", s.last)
	again.want("ready")
	one.close()
	one = open(t, other+"a2", one.last)
	one.want("ready")

	// The view is rebuilt.
	f.run(2)
	s.want("reset", "put a3 8", "ready")
	one.want("reset", "ready")
	f.append("a2", credited{Cents: 1})
	s.want("put a2 1")
	one.want("put a2 1")
	// What was there before it is told from what is there now.
	old := open(t, at+"?prefix=a", "1-2")
	old.want("reset", "put a3 8", "put a2 1", "ready")
}

func TestEventsHeartbeat(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := f.serve(queryhttp.Config{Heartbeat: time.Millisecond})
	s := open(t, at, "")
	for comments := 0; comments < 3; {
		e, ok := s.next()
		if !ok {
			t.Fatal("it ended")
		}
		if e.comment != "" {
			comments++
		}
	}
	s.resp.Body = http.NoBody
	if r := do(t, "HEAD", at, "Accept", "text/event-stream"); r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
}

// TestEventsEnd: streams end with their server, and are bounded.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h, err := queryhttp.New(f.reader(), queryhttp.Config{MaxWatches: 2, Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	srv.Config.RegisterOnShutdown(h.Close)
	a, b := open(t, srv.URL, ""), open(t, srv.URL, "")
	a.want("ready")
	b.want("ready")
	if r := do(t, "GET", srv.URL, "Accept", "text/event-stream"); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" ||
		!strings.HasSuffix(fmt.Sprint(r.json(t)["type"]), "#busy") {
		t.Errorf("%d %v %s", r.StatusCode, r.Header, r.body)
	}
	b.close()
	natstest.Eventually(t, "a place is free", func() error {
		r := do(t, "HEAD", srv.URL, "Accept", "text/event-stream")
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if e, ok := a.next(); ok {
		t.Errorf("after the end: %+v", e)
	}
	if err := a.scan.Err(); err != nil {
		t.Errorf("the stream did not end in order: %v", err)
	}
}

// TestEventsSlowClient: a client that takes nothing is disconnected.
func TestEventsSlowClient(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h, err := queryhttp.New(large{f.reader()}, queryhttp.Config{Heartbeat: time.Hour, WriteTimeout: 100 * time.Millisecond, MaxWatches: 1, Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	defer h.Close()
	// There is nothing yet: it takes what there is.
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the only place is taken", func() error {
		if r := do(t, "HEAD", srv.URL, "Accept", "text/event-stream"); r.StatusCode != http.StatusTooManyRequests {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
	natstest.Eventually(t, "the place is free", func() error {
		f.append("a1", credited{Cents: 1})
		if r := do(t, "HEAD", srv.URL, "Accept", "text/event-stream"); r.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
}

// large makes every value of a watch a megabyte.
type large struct{ *projection.Reader[balance] }

func (l large) Watch(ctx context.Context, o projection.WatchOptions) iter.Seq2[projection.Change[balance], error] {
	return func(yield func(projection.Change[balance], error) bool) {
		for c, err := range l.Reader.Watch(ctx, o) {
			c.Entry.Value.Note = strings.Repeat("x", 1<<20)
			if !yield(c, err) {
				return
			}
		}
	}
}
