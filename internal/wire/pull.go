package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// How a [Puller] asks for messages. What is under way is bounded in number and in
// bytes; the server forgets requests and consumers that nobody comes back to.
const (
	pullMessages = 2048
	pullBytes    = 4 << 20
	pullExpires  = 10 * time.Second
	pullIdle     = 500 * time.Millisecond
	pullInactive = 30 * time.Second
)

// Puller reads a long stretch of a stream in order. It goes through a consumer of
// its own that needs no acknowledgements: what [Batch] reads costs the server about
// three times as much a message, in headers. It is for one goroutine.
type Puller struct {
	nc             *nats.Conn
	stream, name   string
	sub            *nats.Subscription
	msgs           chan *nats.Msg
	inbox, subject string
	request        []byte
	next           uint64
	delivered      uint64
	outstanding    int
}

// ErrGap is returned by [Puller.Take] when a message is missing: open another one.
var ErrGap = errors.New("a message of the stream did not arrive")

// OpenPuller begins at a sequence, with the messages whose subjects match. The
// caller closes it. Returns an [*APIError], or nats.ErrNoResponders when the stream
// does not exist, or a [*PermissionError].
func OpenPuller(ctx context.Context, nc *nats.Conn, stream, filter string, from uint64) (*Puller, error) {
	p := &Puller{
		nc: nc, stream: stream, name: "rossby-scan-" + nuid.Next(), inbox: nc.NewInbox(), next: max(from, 1),
		msgs: make(chan *nats.Msg, 2*pullMessages+64),
	}
	p.subject = "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + p.name
	create := "$JS.API.CONSUMER.CREATE." + stream + "." + p.name
	config := map[string]any{
		"name": p.name, "deliver_policy": "by_start_sequence", "opt_start_seq": p.next, "ack_policy": "none",
		"replay_policy": "instant", "mem_storage": true, "num_replicas": 1, "inactive_threshold": pullInactive,
		"description": "Rossby scan: goes away by itself",
	}
	if filter != Everything {
		config["filter_subject"] = filter
		create += "." + filter
	}
	body, err := json.Marshal(map[string]any{"stream_name": stream, "config": config})
	if err != nil {
		return nil, err
	}
	p.request, err = json.Marshal(map[string]any{
		"batch": pullMessages, "max_bytes": pullBytes, "expires": pullExpires, "idle_heartbeat": pullIdle,
	})
	if err != nil {
		return nil, err
	}
	answer, err := Ask(ctx, nc, create, body)
	if err != nil {
		return nil, err
	}
	var resp struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	if p.sub, err = nc.ChanSubscribe(p.inbox, p.msgs); err != nil {
		return nil, err
	}
	return p, p.refill()
}

// Close gives the consumer back.
func (p *Puller) Close() {
	if p.sub != nil {
		_ = p.sub.Unsubscribe()
	}
	_ = p.nc.Publish("$JS.API.CONSUMER.DELETE."+p.stream+"."+p.name, nil)
}

// Next is the sequence that the next message has at least.
func (p *Puller) Next() uint64 { return p.next }

// refill keeps about a request and a half under way.
func (p *Puller) refill() error {
	for p.outstanding <= pullMessages/2 {
		if err := p.nc.PublishRequest(p.subject, p.inbox, p.request); err != nil {
			return err
		}
		p.outstanding += pullMessages
	}
	return nil
}

// Take appends at least one message to page, and up to limit of those that are
// there. Any error but the context's is a reason to open another puller; so is a
// context that ends while messages are due, for what was lost with a server nobody
// announces.
func (p *Puller) Take(ctx context.Context, page []Message, limit int) ([]Message, error) {
	for len(page) == 0 {
		var msg *nats.Msg
		select {
		case <-ctx.Done():
			return page, ctx.Err()
		case msg = <-p.msgs:
		}
		for msg != nil {
			var err error
			if page, err = p.accept(page, msg); err != nil {
				return page, err
			}
			if msg = nil; len(page) < limit {
				select {
				case msg = <-p.msgs:
				default:
				}
			}
		}
		if err := p.refill(); err != nil {
			return page, err
		}
	}
	return page, nil
}

func (p *Puller) accept(page []Message, msg *nats.Msg) ([]Message, error) {
	if len(msg.Data) == 0 {
		if status := one(msg.Header, "Status"); status != "" {
			return page, p.status(status, msg.Header)
		}
	}
	seq, delivered, stamp, err := delivery(msg)
	if err != nil {
		return page, err
	}
	if p.delivered++; delivered != p.delivered {
		return page, ErrGap
	}
	p.outstanding--
	if seq < p.next {
		return page, nil // The server had to begin earlier: its replica was behind.
	}
	p.next = seq + 1
	return append(page, Message{
		Subject: msg.Subject, Sequence: seq, Time: time.Unix(0, stamp), Header: msg.Header, Data: msg.Data,
	}), nil
}

func (p *Puller) status(status string, h nats.Header) error {
	switch status {
	case "100":
		if n, err := strconv.ParseUint(one(h, "Nats-Last-Consumer"), 10, 64); err == nil && n != p.delivered {
			return ErrGap
		}
		return nil
	case "404", "408", "409":
		// Only what says how much of a request is left belongs to one.
		n, err := strconv.Atoi(one(h, "Nats-Pending-Messages"))
		if err != nil || n == pullMessages && status == "409" {
			return statusError(status, one(h, "Description"))
		}
		p.outstanding -= n
		return nil
	}
	return statusError(status, one(h, "Description"))
}

// delivery reads stream sequence, consumer sequence and time from the subject that
// an acknowledgement would go to.
func delivery(msg *nats.Msg) (seq, delivered uint64, stamp int64, err error) {
	// $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
	if strings.Count(msg.Reply, ".") == 8 {
		rest := msg.Reply
		var numbers [4]uint64
		ok := true
		for i := range numbers {
			dot := strings.LastIndexByte(rest, '.')
			n, err := strconv.ParseUint(rest[dot+1:], 10, 64)
			numbers[i], ok = n, ok && err == nil
			rest = rest[:dot]
		}
		if ok {
			return numbers[3], numbers[2], int64(numbers[1]), nil //nolint:gosec // nanoseconds
		}
	}
	md, err := msg.Metadata()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w: a delivery from %q: %w", ErrProtocol, msg.Reply, err)
	}
	return md.Sequence.Stream, md.Sequence.Consumer, md.Timestamp.UnixNano(), nil
}
