package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/jetstream"
)

type opened struct {
	Owner string `json:"owner"`
	Cents int64  `json:"cents"`
}

func secret(c byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{c}, 32))
}

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// delivery is one as a gateway would give it.
func delivery() gateway.Delivery {
	return gateway.Delivery{
		Meta: jetstream.Meta{
			Type: "account", ID: "a/1 \"ü\"", EventID: "AbC-_123.0", Name: "opened", Version: 7,
			Time: time.Date(2026, 11, 25, 12, 0, 0, 123000, time.UTC), Correlation: "c 1", Causation: "x%1",
			TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		},
		Store: "bank", IdempotencyKey: "partner-AbC-_123.0", Attempt: 1, Epoch: 1,
	}
}

// request is what a service got.
type request struct {
	header http.Header
	body   []byte
}

// service is a web service that keeps what it gets and answers as it is told.
type service struct {
	*httptest.Server

	mu     sync.Mutex
	got    []request
	answer http.HandlerFunc
}

func newService(t testing.TB, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.got = append(s.got, request{r.Header.Clone(), body})
		s.mu.Unlock()
		if s.answer != nil {
			s.answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.got...)
}

func newHook(t testing.TB, url string, change func(*webhook.Config)) *webhook.Hook {
	t.Helper()
	cfg := webhook.Config{URL: url, InsecureHTTP: true, Secrets: []string{secret('a')}, AllowNetworks: loopback()}
	if change != nil {
		change(&cfg)
	}
	h, err := webhook.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func deliver(t testing.TB, h *webhook.Hook) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return h.Deliver(ctx, opened{"Ada", 700}, delivery())
}
