package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/internal/tracing"
)

// The headers of Standard Webhooks.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

const (
	// bodyShown is how much of an answer an error shows.
	bodyShown = 200
	// bodyPatience is how long an answer's body is waited for: its status is what
	// counts.
	bodyPatience = time.Second
)

// Hook sends events to one URL. It is safe for concurrent use.
type Hook struct {
	cfg     Config
	signers []*standard.Webhook
	client  *http.Client
}

// New makes a webhook. Returns the configuration's mistakes, joined.
func New(cfg Config) (*Hook, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	cfg = cfg.withDefaults()
	keys, err := signers(cfg.Secrets)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		config = cfg.TLS.Clone()
	}
	return &Hook{cfg: cfg, signers: keys, client: &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{
			// No proxy: it would dial in our place, past the guard.
			DialContext:     guarded(cfg.AllowNetworks),
			TLSClientConfig: config, TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout,
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, // an answer is what it is long
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (h *Hook) Close() { h.client.CloseIdleConnections() }

// Deliver sends an event; give it to [gateway.OnAll]. With [gateway.On], use
// [Send]. Its errors are a [*StatusError], an [*AddressError], or those of
// net/http; permanent ones match [gateway.ErrPermanent].
func (h *Hook) Deliver(ctx context.Context, event any, d gateway.Delivery) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := h.request(ctx, event, d)
	if err != nil {
		return gateway.Permanent(err)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	// Read to its end, an answer leaves a connection that can be used again.
	defer time.AfterFunc(bodyPatience, cancel).Stop()
	body, err := io.ReadAll(io.LimitReader(resp.Body, h.cfg.MaxResponse))
	if resp.StatusCode/100 == 2 { //nolint:mnd // the class of success
		return nil // whatever became of the rest of the answer
	}
	status := &StatusError{Code: resp.StatusCode, Body: shown(body)}
	switch {
	case h.cfg.Permanent(resp.StatusCode):
		return gateway.Permanent(status)
	case resp.Header.Get("Retry-After") != "":
		if after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
			return gateway.RetryAfter(errors.Join(status, err), after)
		}
	}
	return errors.Join(status, err)
}

// Send is [Hook.Deliver] for one event type; give it to [gateway.On].
func Send[E any](h *Hook) func(ctx context.Context, event E, d gateway.Delivery) error {
	return func(ctx context.Context, event E, d gateway.Delivery) error { return h.Deliver(ctx, event, d) }
}

func (h *Hook) request(ctx context.Context, event any, d gateway.Delivery) (*http.Request, error) {
	e, err := cloudevent.New(event, d, h.cfg.Source, h.cfg.TypePrefix)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	header := http.Header{}
	for name, values := range h.cfg.Header {
		for _, v := range values {
			header.Add(name, v)
		}
	}
	body, err := write(e, h.cfg.Mode, header)
	if err != nil {
		return nil, fmt.Errorf("webhook: event %s: %w", d.EventID, err)
	}
	if len(body) > h.cfg.MaxRequest {
		return nil, fmt.Errorf("webhook: event %s: %w: %d bytes, allowed are %d",
			d.EventID, ErrTooLarge, len(body), h.cfg.MaxRequest)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	req.Header = header
	// The body names the trace of the event, the header that of this attempt.
	if parent := cmp.Or(tracing.Parent(ctx), d.TraceParent); parent != "" {
		header.Set("Traceparent", cloudevent.Escape(parent))
	}
	// The signature's parts are separated by dots, so the id must not hold one.
	id := strings.ReplaceAll(d.IdempotencyKey, ".", "~")
	header.Set("Idempotency-Key", id)
	return req, h.sign(header, id, body)
}

// write gives body and headers in the mode.
func write(e cloudevent.Event, mode Mode, header http.Header) ([]byte, error) {
	if mode == Structured {
		header.Set("Content-Type", cloudevent.ContentType+"; charset=utf-8")
		return json.Marshal(e)
	}
	header.Set("Content-Type", e.DataContentType)
	e.WriteHeaders(header.Set)
	return e.Data, nil
}

// sign sets the headers of Standard Webhooks.
func (h *Hook) sign(header http.Header, id string, body []byte) error {
	now := time.Now()
	signatures := make([]string, 0, len(h.signers))
	for _, s := range h.signers {
		signature, err := s.Sign(id, now, body)
		if err != nil {
			return fmt.Errorf("webhook: sign: %w", err)
		}
		signatures = append(signatures, signature)
	}
	header.Set(HeaderID, id)
	header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	header.Set(HeaderSignature, strings.Join(signatures, " "))
	return nil
}

// retryAfter reads a Retry-After: seconds, or a date.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(text)
	return max(at.Sub(now), 0), err == nil
}

func shown(body []byte) string {
	return strings.ToValidUTF8(string(body[:min(len(body), bodyShown)]), "")
}
