// Package httpfuzz is what the fuzz tests of HTTP handlers have in common.
package httpfuzz

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// patience ends answers that have no end: streams of events.
const patience = 100 * time.Millisecond

// Request sends a request to a handler and looks at the answer: it has a status, what
// is wrong is the sender's fault or that of servers that are away, and it is told as
// RFC 9457 wants it. What no server would hand to a handler is left out.
func Request(t *testing.T, h http.Handler, method, path, body string, headers map[string]string) {
	t.Helper()
	target, err := url.Parse(path)
	if err != nil || !strings.HasPrefix(path, "/") || method == "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := (&http.Request{
		Method: method, URL: &url.URL{Path: target.Path, RawPath: target.RawPath, RawQuery: target.RawQuery},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "bank.example", Body: http.NoBody, Header: http.Header{},
	}).WithContext(ctx)
	if body != "" {
		r.Body = http.MaxBytesReader(nil, readCloser{strings.NewReader(body)}, 1<<20)
	}
	for name, value := range headers {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code >= 500 && w.Code != http.StatusServiceUnavailable && w.Code != http.StatusGatewayTimeout || w.Code < 200 {
		t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
	}
	if w.Code < 400 || method == http.MethodHead {
		return
	}
	var problem struct {
		Status int    `json:"status"`
		Type   string `json:"type"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Status != w.Code || problem.Type == "" {
		t.Fatalf("%s %q: %d %s, %v", method, path, w.Code, w.Body, err)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
