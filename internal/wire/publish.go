package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// MaxBatch is the server's limit on the messages of one atomic batch.
const MaxBatch = 1000

// Ack is the server's answer to a stored message or batch.
type Ack struct {
	Stream string `json:"stream"`
	// Sequence is that of the message, of a batch's last message.
	Sequence uint64 `json:"seq"`
	// Count is the number of messages of a batch.
	Count int `json:"count"`
}

// Publish stores one message and waits for the acknowledgement. An [*APIError]
// means that the server refused it. nats.ErrNoResponders means that nobody took
// it. A [*PermissionError] means that it was not stored when [DeniedSurely]. Any
// other error leaves open whether it was or will be stored.
func Publish(ctx context.Context, nc *nats.Conn, msg *nats.Msg) (Ack, error) {
	resp, err := Request(ctx, nc, msg)
	if err != nil {
		return Ack{}, err
	}
	return ack(resp.Data)
}

// PublishBatch stores all messages or none, contiguously, and costs one round
// trip: only the last is a request, and every error comes back on it. All must go
// to one stream; an expectation may stand only on the first message that touches
// its subject. Errors are those of [Publish], and [ErrNotSent]; none leaves a part
// stored. What the server refuses about a message before the last comes back as
// [CodeBatchIncomplete]: [PublishBatchAsking] tells why.
//
// It sets the batch headers on the messages, each time with an id of its own: an
// earlier attempt with the same messages is another batch to the server.
//
// On an unreplicated file stream a batch costs milliseconds where a publish
// costs a tenth of one.
func PublishBatch(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (Ack, error) {
	if err := stamp(msgs); err != nil {
		return Ack{}, err
	}
	a := &asked{msgs: msgs}
	ack, err := publishBatch(a.watch(ctx, nc), nc, msgs)
	return ack, a.told(err)
}

func publishBatch(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (Ack, error) {
	last := len(msgs) - 1
	for i, m := range msgs[:last] {
		if err := nc.PublishMsg(m); err != nil {
			return Ack{}, fmt.Errorf("%w: message %d of a batch: %w", ErrNotSent, i+1, err)
		}
	}
	resp, err := nc.RequestMsgWithContext(ctx, msgs[last])
	if err != nil {
		return Ack{}, err
	}
	return ack(resp.Data)
}

// PublishBatchAsking is [PublishBatch] with each message answered: an error is
// that of the first message that was refused. It costs an answer a message.
func PublishBatchAsking(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (Ack, error) {
	if err := stamp(msgs); err != nil {
		return Ack{}, err
	}
	a := &asked{msgs: msgs}
	ack, err := publishBatchAsking(a.watch(ctx, nc), nc, msgs)
	return ack, a.told(err)
}

func publishBatchAsking(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (Ack, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return Ack{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for i, m := range msgs {
		asking := &nats.Msg{Subject: m.Subject, Reply: inbox, Header: m.Header, Data: m.Data}
		if err := nc.PublishMsg(asking); err != nil {
			if i == len(msgs)-1 {
				return Ack{}, err
			}
			return Ack{}, fmt.Errorf("%w: message %d of a batch: %w", ErrNotSent, i+1, err)
		}
	}
	for {
		resp, err := sub.NextMsgWithContext(ctx)
		switch {
		case err != nil:
			return Ack{}, err
		case one(resp.Header, "Status") == "503":
			return Ack{}, nats.ErrNoResponders
		case len(resp.Data) > 0: // An empty answer: taken, and more is to come.
			return ack(resp.Data)
		}
	}
}

// stamp sets the headers that make the messages a batch.
func stamp(msgs []*nats.Msg) error {
	if len(msgs) == 0 || len(msgs) > MaxBatch {
		return fmt.Errorf("%w: a batch of %d messages, allowed are 1 to %d", ErrProtocol, len(msgs), MaxBatch)
	}
	id := nuid.Next()
	for i, m := range msgs {
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
		// A message may have been the last of another batch.
		delete(m.Header, "Nats-Batch-Commit")
	}
	msgs[len(msgs)-1].Header["Nats-Batch-Commit"] = []string{"1"}
	return nil
}

// Answer reads the answer to a message that was published with a reply subject
// instead of by [Publish]. Errors are those of [Publish].
func Answer(msg *nats.Msg) (Ack, error) {
	if len(msg.Data) == 0 && one(msg.Header, "Status") == "503" {
		return Ack{}, nats.ErrNoResponders
	}
	return ack(msg.Data)
}

func ack(data []byte) (Ack, error) {
	if a, ok := plainAck(data); ok {
		return a, nil
	}
	var resp struct {
		Ack
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &resp); err != nil {
		return Ack{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if resp.Error != nil {
		return Ack{}, resp.Error
	}
	if resp.Sequence == 0 {
		return Ack{}, fmt.Errorf("%w: an acknowledgement without a sequence", ErrProtocol)
	}
	return resp.Ack, nil
}

// plainAck reads what servers answer to nearly every publish,
// {"stream":"<name>","seq":<n>}, for a tenth of what JSON in general costs.
func plainAck(data []byte) (Ack, bool) {
	data, ok := bytes.CutPrefix(data, []byte(`{"stream":"`))
	if !ok {
		return Ack{}, false
	}
	name, data, ok := bytes.Cut(data, []byte(`","seq":`))
	if !ok || bytes.IndexByte(name, '"') >= 0 || bytes.IndexByte(name, '\\') >= 0 {
		return Ack{}, false
	}
	data, ok = bytes.CutSuffix(data, []byte("}"))
	seq, err := strconv.ParseUint(string(data), 10, 64)
	return Ack{Stream: string(name), Sequence: seq}, ok && err == nil && seq > 0
}

// Expect sets the sequence that the last message on the subject must have, 0
// for none, and returns the message.
func Expect(msg *nats.Msg, sequence uint64) *nats.Msg {
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(sequence, 10)}
	return msg
}

// TxPlace is a commit's place in its transaction, from its headers: number index,
// from 1, of count. A message that is of no transaction is 1 of 1.
func TxPlace(h nats.Header) (index, count uint64) {
	text := one(h, "Rossby-Tx")
	if text == "" {
		return 1, 1
	}
	_, place, _ := strings.Cut(text, " ")
	i, n, _ := strings.Cut(place, "/")
	index, err1 := strconv.ParseUint(i, 10, 16)
	count, err2 := strconv.ParseUint(n, 10, 16)
	if err1 != nil || err2 != nil || index < 1 || index > count || count > MaxBatch {
		return 1, 1
	}
	return index, count
}
