package webhook_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/jetstream"
)

func newReceiver(t testing.TB, secrets ...string) *webhook.Receiver {
	t.Helper()
	r, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r request) again(change func(*http.Request)) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(r.body))
	req.Header = r.header.Clone()
	if change != nil {
		change(req)
	}
	return req
}

// What a hook sends is what a receiver of ours takes, and the library of Standard
// Webhooks, in both modes and while a secret is replaced.
func TestSenderAndReceiverAgree(t *testing.T) {
	t.Parallel()
	want := cloudevent.Event{
		SpecVersion: "1.0", ID: "AbC-_123.0", Source: "/bank", Type: "com.example.account.opened", Subject: "a/1 \"ü\"",
		Time: delivery().Time, Version: 7, Correlation: "c 1", Causation: "x%1", TraceParent: delivery().TraceParent,
		DataContentType: "application/json", Data: []byte(`{"owner":"Ada","cents":700}`),
	}
	for name, mode := range map[string]webhook.Mode{"structured": webhook.Structured, "binary": webhook.Binary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, nil)
			h := newHook(t, s.URL, func(c *webhook.Config) {
				c.Mode, c.TypePrefix, c.Secrets = mode, "com.example.", []string{secret('n'), secret('o')}
			})
			if err := deliver(t, h); err != nil {
				t.Fatal(err)
			}
			got := s.requests()[0]
			for what, secrets := range map[string][]string{
				"the new secret": {secret('n')}, "the old secret": {secret('o')}, "both": {secret('x'), secret('o')},
			} {
				m, err := newReceiver(t, secrets...).Verify(got.again(nil))
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if m.ID != "partner-AbC-_123~0" || !bytes.Equal(m.Body, got.body) {
					t.Errorf("%s: %+v", what, m)
				}
				if e, err := m.Event(got.header); err != nil || !reflect.DeepEqual(e, want) {
					t.Errorf("%s: %v\n got %+v\nwant %+v", what, err, e, want)
				}
			}
			if _, err := newReceiver(t, secret('x')).Verify(got.again(nil)); !errors.Is(err, webhook.ErrSignature) {
				t.Errorf("another secret: %v", err)
			}
			theirs, err := standard.NewWebhook(secret('o'))
			if err != nil {
				t.Fatal(err)
			}
			if err := theirs.Verify(got.body, got.header); err != nil {
				t.Errorf("the library: %v", err)
			}
		})
	}
}

func TestReceiverRefuses(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	if err := deliver(t, newHook(t, s.URL, nil)); err != nil {
		t.Fatal(err)
	}
	got := s.requests()[0]
	r, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: []string{secret('a')}, MaxBody: int64(len(got.body))})
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(off time.Duration) func(*http.Request) {
		return func(q *http.Request) {
			q.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(time.Now().Add(off).Unix(), 10))
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   error
		code   int
	}{
		"nothing changed": {nil, nil, http.StatusNoContent},
		"another body": {func(q *http.Request) {
			q.Body = io.NopCloser(strings.NewReader(strings.Replace(string(got.body), "700", "900", 1)))
		}, webhook.ErrSignature, http.StatusUnauthorized},
		"another id":       {func(q *http.Request) { q.Header.Set(webhook.HeaderID, "other") }, webhook.ErrSignature, http.StatusUnauthorized},
		"another time":     {stamp(time.Minute), webhook.ErrSignature, http.StatusUnauthorized},
		"too old":          {stamp(-time.Hour), webhook.ErrTimestamp, http.StatusUnauthorized},
		"too new":          {stamp(time.Hour), webhook.ErrTimestamp, http.StatusUnauthorized},
		"far beyond":       {func(q *http.Request) { q.Header.Set(webhook.HeaderTimestamp, "9223372036854775807") }, webhook.ErrTimestamp, http.StatusUnauthorized},
		"no time":          {func(q *http.Request) { q.Header.Set(webhook.HeaderTimestamp, "now") }, webhook.ErrUnsigned, http.StatusUnauthorized},
		"no id":            {func(q *http.Request) { q.Header.Del(webhook.HeaderID) }, webhook.ErrUnsigned, http.StatusUnauthorized},
		"no signature":     {func(q *http.Request) { q.Header.Del(webhook.HeaderSignature) }, webhook.ErrUnsigned, http.StatusUnauthorized},
		"a bare signature": {func(q *http.Request) { q.Header.Set(webhook.HeaderSignature, "v1") }, webhook.ErrSignature, http.StatusUnauthorized},
		"another scheme": {func(q *http.Request) {
			q.Header.Set(webhook.HeaderSignature, strings.Replace(q.Header.Get(webhook.HeaderSignature), "v1,", "v9,", 1))
		}, webhook.ErrSignature, http.StatusUnauthorized},
		"too large": {func(q *http.Request) {
			q.Body = io.NopCloser(bytes.NewReader(append(bytes.Clone(got.body), ' ')))
		}, webhook.ErrTooLarge, http.StatusRequestEntityTooLarge},
	} {
		if _, err := r.Verify(got.again(c.change)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		taken := 0
		handler := r.Handler(func(q *http.Request, m webhook.Message) error {
			taken++
			if body, err := io.ReadAll(q.Body); err != nil || !bytes.Equal(body, m.Body) {
				t.Errorf("%s: the handler cannot read the body: %v", name, err)
			}
			return nil
		})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, got.again(c.change))
		if w.Code != c.code || (taken == 1) != (c.want == nil) {
			t.Errorf("%s: %d, want %d; taken %d times", name, w.Code, c.code, taken)
		}
	}
	w := httptest.NewRecorder()
	r.Handler(func(*http.Request, webhook.Message) error { return errors.New("no") }).ServeHTTP(w, got.again(nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("a handler that fails: %d", w.Code)
	}
	w = httptest.NewRecorder()
	r.Handler(nil).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
	if _, err := webhook.NewReceiver(webhook.ReceiverConfig{MaxBody: -1, Tolerance: -1}); err == nil ||
		!strings.Contains(err.Error(), "Secrets") || !strings.Contains(err.Error(), "MaxBody") || !strings.Contains(err.Error(), "Tolerance") {
		t.Errorf("%v", err)
	}
}

func TestEventsThatAreNone(t *testing.T) {
	t.Parallel()
	const structured = "application/cloudevents+json"
	for name, c := range map[string]struct {
		header map[string]string
		body   string
	}{
		"no type":          {nil, "{}"},
		"not JSON":         {map[string]string{"Content-Type": structured}, "{"},
		"empty":            {map[string]string{"Content-Type": structured}, "{}"},
		"other version":    {map[string]string{"Content-Type": structured}, `{"specversion":"2.0","id":"1","source":"/","type":"t"}`},
		"binary, bare":     {map[string]string{"Content-Type": "application/json"}, "{}"},
		"binary, encoding": {map[string]string{"Content-Type": "application/json", "ce-id": "%zz"}, "{}"},
		"binary, time":     {map[string]string{"Content-Type": "application/json", "ce-time": "noon"}, "{}"},
		"binary, order":    {map[string]string{"Content-Type": "application/json", "ce-aggregateversion": "-1"}, "{}"},
	} {
		header := http.Header{}
		for k, v := range c.header {
			header.Set(k, v)
		}
		_, err := webhook.Message{Body: []byte(c.body)}.Event(header)
		if _, ok := errors.AsType[*jetstream.InvalidError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReceive: no request ends a receiver, and none without the secret is taken.
func FuzzReceive(f *testing.F) {
	f.Add("id", "1764072000", "v1,AAAA", "application/cloudevents+json", []byte(`{"specversion":"1.0","id":"1","source":"/","type":"t"}`), "1.0", "%41")
	f.Add("", "", "", "application/json", []byte("{}"), "1.0", "x")
	f.Add("a.b", "-9223372036854775808", "v1, v1,, v2,x", ";", []byte{}, "", "%")
	r, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: []string{secret('a')}, Tolerance: 1 << 62})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, stamp, signature, media string, body []byte, version, ce string) {
		header := http.Header{
			webhook.HeaderID: {id}, webhook.HeaderTimestamp: {stamp}, webhook.HeaderSignature: {signature},
			"Content-Type": {media}, "Ce-Specversion": {version}, "Ce-Id": {ce}, "Ce-Source": {ce}, "Ce-Type": {ce}, "Ce-Time": {ce},
		}
		if _, err := r.Verify((request{header, body}).again(nil)); err == nil {
			t.Fatalf("taken: %q %q %q", id, stamp, signature)
		}
		e, err := webhook.Message{Body: body}.Event(header)
		if err == nil && (e.ID == "" || e.Type == "" || e.Source == "" || e.SpecVersion != "1.0") {
			t.Fatalf("an event that is none: %+v", e)
		}
	})
}
