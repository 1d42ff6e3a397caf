package commandhttp_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/internal/natstest"
)

// FuzzRequest: every request is answered as HTTP wants it, and what is wrong with
// it is said as the sender's fault. No command gets further than this test's
// connection, which is closed.
func FuzzRequest(f *testing.F) {
	nc := natstest.Conn(f, natstest.Run(f).URL())
	client, err := aggregate.NewClient(nc, "bank", accounts, aggregate.ClientConfig{})
	if err != nil {
		f.Fatal(err)
	}
	nc.Close()
	h, err := commandhttp.New(commandhttp.Config{
		Targets: []aggregate.Target{client}, MaxBody: 1 << 10, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/account/a1/credit", "application/json", `{"cents":5}`, "key", `"7"`, "", "return=minimal, wait=1")
	f.Add("POST", "/account/open", "application/msgpack", "\x80", `"k"`, "*", "*", "wait=99999999999999999999")
	f.Add("GET", "/openapi.json", "", "", "", "", "", "")
	f.Add("PUT", "/account/../x/%2e%2e/credit", "text/html", "<", "\\", `W/"1"`, `"1"`, ";;==,")
	f.Add("POST", "/account/a%2Fb/credit", "application/json; charset=\"", strings.Repeat("[", 900), "", `"`, "", "")
	f.Add("POST", "/account/a1/credit", "application/json", strings.Repeat(" ", 2000), "", "", "", "")
	f.Fuzz(func(t *testing.T, method, path, media, body, key, match, noneMatch, prefer string) {
		target, err := url.Parse(path)
		if err != nil || !strings.HasPrefix(path, "/") || method == "" {
			return
		}
		r := (&http.Request{
			Method: method, URL: &url.URL{Path: target.Path, RawPath: target.RawPath}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Host: "bank.example", Body: http.NoBody, Header: http.Header{},
		}).WithContext(t.Context())
		if body != "" {
			r.Body = http.MaxBytesReader(nil, readCloser{bytes.NewReader([]byte(body))}, 1<<20)
		}
		for name, value := range map[string]string{
			"Content-Type": media, "Idempotency-Key": key, "If-Match": match, "If-None-Match": noneMatch, "Prefer": prefer,
		} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable && w.Code != http.StatusGatewayTimeout || w.Code < 200 {
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 400 && method != http.MethodHead {
			var problem struct {
				Status int    `json:"status"`
				Type   string `json:"type"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Status != w.Code || problem.Type == "" {
				t.Errorf("%s %q: %d %s, %v", method, path, w.Code, w.Body, err)
			}
		}
	})
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
