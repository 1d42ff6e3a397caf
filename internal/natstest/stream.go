package natstest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// firstAttempt bounds the first of several requests, longestAttempt any. What goes to
// a leader that resigns is lost without an answer, so nothing waits for one request as
// long as for all; what is only slow has the longer, the longer it takes.
const (
	firstAttempt   = 2 * time.Second
	longestAttempt = Patience / 3
)

// Retry calls f, each time with a context of its own that ends after two seconds, and
// later more, until it returns nil, and fails the test when it never does. It may be
// called from any goroutine; the result tells whether f succeeded.
func Retry(t testing.TB, what string, f func(context.Context) error) bool {
	t.Helper()
	attempt := firstAttempt
	return Eventually(t, what, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), attempt)
		defer cancel()
		attempt = min(attempt*3/2, longestAttempt)
		return f(ctx)
	})
}

// JetStream asks over the connection, and waits for each answer as long as a test may
// wait: nats.go gives up after five seconds when a context has no deadline.
func JetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream { //nolint:ireturn // nats.go has interfaces only
	t.Helper()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(Patience))
	if err != nil {
		t.Fatalf("natstest: JetStream: %v", err)
	}
	return js
}

// CreateStream creates a stream, whatever happens to the request, and waits until
// its leader is known to the server of the connection. A cluster acknowledges a
// stream before every server sends it what it should get: until then, publishes
// find no responders.
func CreateStream(t testing.TB, nc *nats.Conn, cfg jetstream.StreamConfig) {
	t.Helper()
	js := JetStream(t, nc)
	created := Retry(t, "create stream "+cfg.Name, func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, cfg)
		return err
	})
	reachable := created && Retry(t, "reach stream "+cfg.Name, func(ctx context.Context) error {
		if cfg.Replicas < 2 || cfg.Mirror != nil || len(cfg.Sources) > 0 {
			return nil
		}
		subject := cfg.Name
		if len(cfg.Subjects) > 0 {
			subject = probe(cfg.Subjects[0])
		}
		// An expectation that fails stores nothing.
		_, err := js.Publish(ctx, subject, nil, jetstream.WithExpectLastSequence(1<<60), jetstream.WithRetryAttempts(0))
		apiErr, ok := errors.AsType[*jetstream.APIError](err)
		if ok && apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			return nil
		}
		return err
	})
	if !reachable {
		t.FailNow()
	}
}

// probe is a literal subject that matches the pattern.
func probe(pattern string) string {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		if token == "*" || token == ">" {
			tokens[i] = "probe"
		}
	}
	return strings.Join(tokens, ".")
}
