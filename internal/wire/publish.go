package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

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
// it. Any other error leaves open whether it was or will be stored.
func Publish(ctx context.Context, nc *nats.Conn, msg *nats.Msg) (Ack, error) {
	resp, err := nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return Ack{}, err
	}
	return ack(resp.Data)
}

// PublishBatch stores all messages or none, contiguously, and costs one round
// trip: only the last is a request, every error comes back on it. It sets the
// batch headers on the messages. All must go to one stream; an expectation may
// stand only on the first message that touches its subject. Errors are those of
// [Publish]; none leaves a part stored.
//
// On an unreplicated file stream a batch costs milliseconds where a publish
// costs a tenth of one.
func PublishBatch(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (Ack, error) {
	if len(msgs) == 0 || len(msgs) > MaxBatch {
		return Ack{}, fmt.Errorf("%w: a batch of %d messages, allowed are 1 to %d", ErrProtocol, len(msgs), MaxBatch)
	}
	id := nuid.Next()
	for i, m := range msgs {
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
		if i < len(msgs)-1 {
			if err := nc.PublishMsg(m); err != nil {
				return Ack{}, err
			}
		}
	}
	last := msgs[len(msgs)-1]
	last.Header["Nats-Batch-Commit"] = []string{"1"}
	resp, err := nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return Ack{}, err
	}
	return ack(resp.Data)
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
