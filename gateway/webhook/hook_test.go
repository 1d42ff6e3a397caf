package webhook_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/internal/follow"
)

func TestStatusPolicy(t *testing.T) {
	t.Parallel()
	code := make(chan int, 1)
	s := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(<-code)
		_, _ = w.Write([]byte("because"))
	})
	h := newHook(t, s.URL, nil)
	own := newHook(t, s.URL, func(c *webhook.Config) { c.Permanent = func(code int) bool { return code == http.StatusGone } })
	for _, c := range []struct {
		hook      *webhook.Hook
		code      int
		ok        bool
		permanent bool
	}{
		{h, 200, true, false}, {h, 202, true, false},
		{h, 400, false, true}, {h, 413, false, true}, {h, 422, false, true},
		{h, 401, false, false}, {h, 404, false, false}, {h, 408, false, false}, {h, 409, false, false}, {h, 410, false, false},
		{h, 425, false, false}, {h, 429, false, false}, {h, 500, false, false}, {h, 503, false, false}, {h, 301, false, false},
		{own, 410, false, true}, {own, 400, false, false},
	} {
		code <- c.code
		err := deliver(t, c.hook)
		if (err == nil) != c.ok || errors.Is(err, gateway.ErrPermanent) != c.permanent {
			t.Errorf("%d: %v, want ok %v, permanent %v", c.code, err, c.ok, c.permanent)
		}
		if status, found := errors.AsType[*webhook.StatusError](err); !c.ok && (!found || status.Code != c.code || status.Body != "because") {
			t.Errorf("%d: the error is %v", c.code, err)
		}
	}
	// 204 has no body.
	code <- http.StatusNoContent
	if err := deliver(t, h); err != nil {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	header := make(chan string, 1)
	s := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", <-header)
		w.WriteHeader(http.StatusTooManyRequests)
	})
	h := newHook(t, s.URL, nil)
	for text, want := range map[string][2]time.Duration{
		"120": {2 * time.Minute, 2 * time.Minute},
		" 0 ": {0, 0},
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): {58 * time.Minute, time.Hour},
		"Mon, 02 Jan 2006 15:04:05 GMT":                         {0, 0},
	} {
		header <- text
		err := deliver(t, h)
		after, ok := errors.AsType[*follow.RetryAfterError](err)
		if !ok || after.After < want[0] || after.After > want[1] {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	for _, text := range []string{"soon", "-1", "99999999999999999999"} {
		header <- text
		if err := deliver(t, h); err == nil {
			t.Errorf("%q: delivered", text)
		} else if _, ok := errors.AsType[*follow.RetryAfterError](err); ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A redirect may lead anywhere, so it is an answer and not followed.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	other := newService(t, nil)
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	err := deliver(t, newHook(t, s.URL, nil))
	if status, ok := errors.AsType[*webhook.StatusError](err); !ok || status.Code != http.StatusTemporaryRedirect {
		t.Errorf("%v", err)
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("it was followed %d times", n)
	}
}

// Whatever an answer is, it ends within bounds.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	huge := newService(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		line := []byte(strings.Repeat("x", 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	err := deliver(t, newHook(t, huge.URL, nil))
	if status, ok := errors.AsType[*webhook.StatusError](err); !ok || len(status.Body) != 200 {
		t.Errorf("an endless answer: %v", err)
	}
	// A status counts though its body never ends; without one, the time does.
	slow := newService(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	if err := deliver(t, newHook(t, slow.URL, nil)); err != nil {
		t.Errorf("a body that never ends: %v", err)
	}
	silent := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	if err := deliver(t, newHook(t, silent.URL, func(c *webhook.Config) { c.Timeout = 50 * time.Millisecond })); err == nil ||
		errors.Is(err, gateway.ErrPermanent) {
		t.Errorf("no answer: %v", err)
	}
	// The connection breaks after the request was processed: unknown, so again.
	reset := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	h := newHook(t, reset.URL, nil)
	for range 2 {
		if err := deliver(t, h); err == nil || errors.Is(err, gateway.ErrPermanent) {
			t.Errorf("a broken connection: %v", err)
		}
	}
	got := reset.requests()
	for _, r := range got {
		if r.header.Get(webhook.HeaderID) != got[0].header.Get(webhook.HeaderID) {
			t.Errorf("ids %q and %q", r.header.Get(webhook.HeaderID), got[0].header.Get(webhook.HeaderID))
		}
	}
	tooLarge := newHook(t, reset.URL, func(c *webhook.Config) { c.MaxRequest = 10 })
	if err := deliver(t, tooLarge); !errors.Is(err, webhook.ErrTooLarge) || !errors.Is(err, gateway.ErrPermanent) {
		t.Errorf("an event over the bound: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	h := newHook(t, s.URL, func(c *webhook.Config) {
		c.Header = http.Header{"x-tenant": {"t1", "t2"}, "Authorization": {"Bearer x"}}
	})
	if err := deliver(t, h); err != nil {
		t.Fatal(err)
	}
	got := s.requests()[0].header
	for name, want := range map[string]string{
		"Authorization": "Bearer x", "X-Tenant": "t1", "Webhook-Id": "partner-AbC-_123~0",
		"Idempotency-Key": "partner-AbC-_123~0", "Traceparent": delivery().TraceParent,
		"Content-Type": "application/cloudevents+json; charset=utf-8",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
}

// Loopback is refused by every name it has; what is in the way of a URL is told at
// once, or when it is dialled.
func TestAddressesInside(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	for _, host := range []string{"127.0.0.1", "localhost", "127.9.9.9", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "[::]"} {
		h := newHook(t, "http://"+host+port, func(c *webhook.Config) { c.AllowNetworks = nil })
		err := deliver(t, h)
		if !errors.Is(err, webhook.ErrAddress) {
			t.Errorf("%s: %v", host, err)
		}
		if errors.Is(err, gateway.ErrPermanent) {
			t.Errorf("%s: what DNS says today is not for ever", host)
		}
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	if err := deliver(t, newHook(t, s.URL, nil)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig //nolint:forcetypeassert // a test client's
	if err := deliver(t, newHook(t, s.URL, func(c *webhook.Config) { c.TLS = trusting; c.InsecureHTTP = false })); err != nil {
		t.Error(err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	good := webhook.Config{URL: "https://example.com/hook", Secrets: []string{secret('a')}}
	if err := good.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for want, change := range map[string]func(*webhook.Config){
		"URL \"\" is not an absolute":  func(c *webhook.Config) { c.URL = "" },
		"is not a URL":                 func(c *webhook.Config) { c.URL = "https://exa mple.com" },
		"is of http":                   func(c *webhook.Config) { c.URL = "http://example.com" },
		"holds a password":             func(c *webhook.Config) { c.URL = "https://u:topsecret@example.com" },
		"Secrets \"\" are missing":     func(c *webhook.Config) { c.Secrets = nil },
		"Secrets[1]":                   func(c *webhook.Config) { c.Secrets = append(c.Secrets, "!") },
		"has 3 bytes":                  func(c *webhook.Config) { c.Secrets = []string{"whsec_AAAA"} },
		"set by the webhook itself":    func(c *webhook.Config) { c.Header = http.Header{"webhook-id": {"x"}} },
		"is not a header":              func(c *webhook.Config) { c.Header = http.Header{"X": {"a\r\nB: c"}} },
		"Mode \"7\"":                   func(c *webhook.Config) { c.Mode = 7 },
		"MaxRequest \"-1\"":            func(c *webhook.Config) { c.MaxRequest = -1 },
		"MaxResponse \"-1\"":           func(c *webhook.Config) { c.MaxResponse = -1 },
		"Timeout \"-1ns\" is negative": func(c *webhook.Config) { c.Timeout = -1 },
	} {
		cfg := good
		change(&cfg)
		_, err := webhook.New(cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), "YWFh")) {
			t.Errorf("an error shows a secret: %v", err)
		}
	}
}
