// Package publish passes events on to other NATS subjects: of another account, of
// another cluster, or of a stream with other readers.
//
//	out, err := publish.New(publish.Config{
//		Conn: partner, Subject: func(d gateway.Delivery) string { return "partner.account." + d.Name },
//	})
//	gw, err := gateway.New(store, "partner", gateway.Config{Start: jetstream.FromNow()},
//		gateway.OnAll(account.Events, out.Deliver))
//
// A message is a CloudEvent in the binary mode of its NATS binding: the event's
// JSON, with "ce-" headers. It bears nothing of the stored message's headers, whose
// Nats- ones would mean something to the stream that it gets to; its Nats-Msg-Id is
// the idempotency key, so that a stream keeps one of repeated messages within its
// duplicates window.
package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// TimeoutDefault bounds one attempt.
const TimeoutDefault = 5 * time.Second

// Config describes where events are published. Conn and Subject are required.
type Config struct {
	// Conn is the connection, of any account or cluster. A connection that buffers
	// while it is disconnected makes messages late; see [jetstream.Connect].
	Conn *nats.Conn
	// Core publishes without a stream: whoever listens gets the message, and if
	// nobody does, nobody knows. Defaults to waiting for a stream's acknowledgement.
	Core bool
	// Header adds headers to a message. Names that begin with "Nats-" or "ce-" are
	// left out. Defaults to none.
	Header func(d gateway.Delivery) nats.Header
	// Source is the CloudEvents source, TypePrefix stands before its type. Default to
	// "/" and the store's name, and to nothing.
	Source, TypePrefix string
	// Subject is where to.
	Subject func(d gateway.Delivery) string
	// Timeout bounds one attempt. Defaults to [TimeoutDefault].
	Timeout time.Duration
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Conn == nil {
		errs = append(errs, &jetstream.InvalidError{Field: "Conn", Reason: "is missing"})
	}
	if c.Subject == nil {
		errs = append(errs, &jetstream.InvalidError{Field: "Subject", Reason: "is missing"})
	}
	if c.Timeout < 0 {
		errs = append(errs, &jetstream.InvalidError{Field: "Timeout", Value: c.Timeout.String(), Reason: "is negative"})
	}
	return errors.Join(errs...)
}

// Publisher publishes events. It is safe for concurrent use.
type Publisher struct{ cfg Config }

// New makes a publisher. Returns the configuration's mistakes, joined.
func New(cfg Config) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, TimeoutDefault)
	return &Publisher{cfg: cfg}, nil
}

// Deliver publishes an event; give it to [gateway.OnAll]. With [gateway.On], use
// [Send]. A subject that cannot be published to is a permanent failure, and so is
// what a stream refuses for good; that nobody keeps the subject is not.
func (p *Publisher) Deliver(ctx context.Context, event any, d gateway.Delivery) error {
	msg, err := p.message(ctx, event, d)
	if err != nil {
		return gateway.Permanent(err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if p.cfg.Core {
		if err := p.cfg.Conn.PublishMsg(msg); err != nil {
			return failed(msg, err)
		}
		if err := p.cfg.Conn.FlushWithContext(ctx); err != nil {
			return fmt.Errorf("publish to %q: %w", msg.Subject, err)
		}
		return nil
	}
	if _, err := wire.Publish(ctx, p.cfg.Conn, msg); err != nil {
		return failed(msg, err)
	}
	return nil
}

// failed tells failures of this message from those of the connection.
func failed(msg *nats.Msg, err error) error {
	const tooLarge, headersTooLarge = 10054, 10097
	number := wire.Number(err)
	text := fmt.Errorf("publish to %q: %w", msg.Subject, err)
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) ||
		number == tooLarge || number == headersTooLarge {
		return gateway.Permanent(text)
	}
	return text
}

// Send is [Publisher.Deliver] for one event type; give it to [gateway.On].
func Send[E any](p *Publisher) func(ctx context.Context, event E, d gateway.Delivery) error {
	return func(ctx context.Context, event E, d gateway.Delivery) error { return p.Deliver(ctx, event, d) }
}

func (p *Publisher) message(ctx context.Context, event any, d gateway.Delivery) (*nats.Msg, error) {
	e, err := cloudevent.New(event, d, p.cfg.Source, p.cfg.TypePrefix)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	subject := p.cfg.Subject(d)
	if err := checkSubject(subject, d.Store); err != nil {
		return nil, fmt.Errorf("publish: event %s: %w", d.EventID, err)
	}
	msg := &nats.Msg{Subject: subject, Data: e.Data, Header: nats.Header{}}
	set := func(name, value string) { msg.Header[name] = []string{value} }
	if p.cfg.Header != nil {
		for name, values := range p.cfg.Header(d) {
			if lower := strings.ToLower(name); !strings.HasPrefix(lower, "nats-") && !strings.HasPrefix(lower, "ce-") {
				msg.Header[name] = values
			}
		}
	}
	set("Content-Type", e.DataContentType)
	e.WriteHeaders(set)
	if parent := cmp.Or(tracing.Parent(ctx), d.TraceParent); parent != "" {
		set("traceparent", cloudevent.Escape(parent))
	}
	set("Idempotency-Key", d.IdempotencyKey)
	if !p.cfg.Core {
		set(nats.MsgIdHdr, d.IdempotencyKey)
	}
	return msg, nil
}

// checkSubject refuses subjects that no event must get to: those of a store, which
// holds commits only, and those that command servers.
func checkSubject(subject, store string) error {
	bad := func(reason string) error {
		return &jetstream.InvalidError{Field: "subject", Value: subject, Reason: reason}
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" || strings.ContainsAny(token, " \t\r\n\x00") {
			return bad("is not a subject to publish to")
		}
	}
	switch {
	case strings.HasPrefix(subject, store+".event."):
		return bad("is of the store itself, which holds commits only")
	case strings.HasPrefix(subject, "$JS."), strings.HasPrefix(subject, "$SYS."), strings.HasPrefix(subject, "$SRV."):
		return bad("commands servers")
	}
	return nil
}
