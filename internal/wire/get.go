package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Message is a stored message as the server returns it.
type Message struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// DirectLast returns the last message on a literal subject from any replica, in
// one request. On a replicated stream the answer may be old: see [LeaderLast].
// Returns [ErrNotFound], or nats.ErrNoResponders when the stream does not exist.
func DirectLast(ctx context.Context, nc *nats.Conn, stream, subject string) (Message, error) {
	msg, err := Ask(ctx, nc, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return Message{}, err
	}
	return direct(msg)
}

// DirectNext returns the first message with a sequence of at least from whose
// subject matches, from any replica. Errors are those of [DirectLast].
func DirectNext(ctx context.Context, nc *nats.Conn, stream, subject string, from uint64) (Message, error) {
	return directGet(ctx, nc, stream, getRequest{Seq: from, NextBySubj: subject})
}

// DirectAt returns the message with a sequence, from any replica: the cheapest
// get there is, as nothing is searched. Errors are those of [DirectLast].
func DirectAt(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) (Message, error) {
	return directGet(ctx, nc, stream, getRequest{Seq: sequence})
}

// DirectSince returns the first message that was stored at a time or later, from
// any replica. Errors are those of [DirectLast].
func DirectSince(ctx context.Context, nc *nats.Conn, stream string, at time.Time) (Message, error) {
	return directGet(ctx, nc, stream, getRequest{StartTime: &at, NextBySubj: Everything})
}

// Everything matches every subject. Servers answer it faster than a filter that
// happens to match all of a stream.
const Everything = ">"

func directGet(ctx context.Context, nc *nats.Conn, stream string, req getRequest) (Message, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return Message{}, err
	}
	msg, err := Ask(ctx, nc, "$JS.API.DIRECT.GET."+stream, body)
	if err != nil {
		return Message{}, err
	}
	return direct(msg)
}

// LeaderLast returns the last message whose subject matches, as the stream's
// leader has it. It costs about what [DirectLast] does, but all such reads go to
// one server. Returns [ErrNotFound] or an [*APIError].
func LeaderLast(ctx context.Context, nc *nats.Conn, stream, subject string) (Message, error) {
	return leader(ctx, nc, stream, getRequest{LastBySubj: subject})
}

// LeaderNext is [DirectNext] answered by the stream's leader.
func LeaderNext(ctx context.Context, nc *nats.Conn, stream, subject string, from uint64) (Message, error) {
	return leader(ctx, nc, stream, getRequest{Seq: from, NextBySubj: subject})
}

// LeaderAt is [DirectAt] answered by the stream's leader.
func LeaderAt(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) (Message, error) {
	return leader(ctx, nc, stream, getRequest{Seq: sequence})
}

// LeaderSince is [DirectSince] answered by the stream's leader.
func LeaderSince(ctx context.Context, nc *nats.Conn, stream string, at time.Time) (Message, error) {
	return leader(ctx, nc, stream, getRequest{StartTime: &at, NextBySubj: Everything})
}

// getRequest is the body of MSG.GET and DIRECT.GET requests.
type getRequest struct {
	Seq        uint64     `json:"seq,omitempty"`
	LastBySubj string     `json:"last_by_subj,omitempty"`
	NextBySubj string     `json:"next_by_subj,omitempty"`
	StartTime  *time.Time `json:"start_time,omitempty"`
	Batch      int        `json:"batch,omitempty"`
	MaxBytes   int        `json:"max_bytes,omitempty"`
	MultiLast  []string   `json:"multi_last,omitempty"`
}

// leader sends a raw request because nats.go turns such reads into direct ones
// whenever the stream allows them.
func leader(ctx context.Context, nc *nats.Conn, stream string, req getRequest) (Message, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return Message{}, err
	}
	msg, err := askAgain(ctx, nc, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return Message{}, err
	}
	var resp struct {
		Error   *APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Hdrs    []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if resp.Error != nil {
		if resp.Error.Number == CodeNoMessageFound {
			return Message{}, ErrNotFound
		}
		return Message{}, resp.Error
	}
	if resp.Message == nil {
		return Message{}, fmt.Errorf("%w: neither message nor error", ErrProtocol)
	}
	out := Message{
		Subject: resp.Message.Subject, Sequence: resp.Message.Seq,
		Data: resp.Message.Data, Time: resp.Message.Time,
	}
	if len(resp.Message.Hdrs) > 0 {
		if out.Header, err = nats.DecodeHeadersMsg(resp.Message.Hdrs); err != nil {
			return Message{}, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	return out, nil
}

// Leaders that are there answer at once; while there is none, nobody does. A server
// that is slow gets patientAfter every third time.
const (
	againAfter   = time.Second
	patientAfter = 3 * time.Second
)

// askAgain asks what changes nothing, again and again until ctx ends: what was asked
// while a stream had no leader is never answered.
func askAgain(ctx context.Context, nc *nats.Conn, subject string, body []byte) (*nats.Msg, error) {
	for n := 1; ; n++ {
		wait := againAfter
		if n%3 == 0 {
			wait = patientAfter
		}
		once, cancel := context.WithTimeout(ctx, wait)
		msg, err := Ask(once, nc, subject, body)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return msg, err
		}
	}
}

// direct turns the answer to a direct get into a message.
func direct(msg *nats.Msg) (Message, error) {
	if status := one(msg.Header, "Status"); status != "" {
		return Message{}, statusError(status, one(msg.Header, "Description"))
	}
	seq, err := strconv.ParseUint(added(msg.Header, nats.JSSequence), 10, 64)
	if err != nil {
		return Message{}, fmt.Errorf("%w: sequence %q", ErrProtocol, added(msg.Header, nats.JSSequence))
	}
	stamp, err := time.Parse(time.RFC3339Nano, added(msg.Header, nats.JSTimeStamp))
	if err != nil {
		return Message{}, fmt.Errorf("%w: time %q", ErrProtocol, added(msg.Header, nats.JSTimeStamp))
	}
	return Message{
		Subject: added(msg.Header, nats.JSSubject), Sequence: seq, Time: stamp,
		Header: msg.Header, Data: msg.Data,
	}, nil
}

func statusError(status, description string) error {
	switch status {
	case "404":
		return ErrNotFound
	case "413":
		return ErrTooMany
	case "503":
		return nats.ErrNoResponders
	}
	code, err := strconv.Atoi(status)
	if err != nil {
		return fmt.Errorf("%w: status %q", ErrProtocol, status)
	}
	return &APIError{Code: code, Description: description}
}

// one reads a header as the server spells it; Header.Get would canonicalise the
// name first, on every message.
func one(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// added reads a header that the server adds to what is stored: one of its name that
// was stored stands before it.
func added(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// Page is one answer to a [Batch] or [MultiLast] request.
type Page struct {
	Messages []Message
	// Pending counts the matching messages after the last one returned.
	Pending uint64
	// UpTo is the sequence at which a [MultiLast] was taken.
	UpTo uint64
}

// Batch returns up to limit messages, and about maxBytes, with a sequence of at
// least from whose subjects match, from one replica. An empty page is no error. Of
// an answer that lost a message on its way it returns what came before that one, with
// the rest pending, or [ErrGap].
//
// The server holds a lock that stops the stream's writers while it gathers a
// page: ask for few messages unless they lie side by side.
func Batch(ctx context.Context, nc *nats.Conn, stream, subject string, from uint64, limit, maxBytes int) (Page, error) {
	page, whole, err := pages(ctx, nc, stream, limit, getRequest{
		Seq: max(from, 1), NextBySubj: subject, Batch: limit, MaxBytes: maxBytes,
	})
	n := len(page.Messages)
	switch {
	case err != nil || whole:
		return page, err
	case n == 0:
		return Page{}, ErrGap
	}
	// What the server says of the last message that is there.
	page.Pending, _ = strconv.ParseUint(added(page.Messages[n-1].Header, headerPending), 10, 64)
	page.Pending = max(page.Pending, 1)
	return page, nil
}

// MultiLast returns the last message of each matching subject as they stood
// together at one moment on one replica. Subjects may hold wildcards. An empty
// page is no error; more than 1024 matches are [ErrTooMany], an answer that lost a
// message on its way is [ErrGap].
func MultiLast(ctx context.Context, nc *nats.Conn, stream string, subjects ...string) (Page, error) {
	most := len(subjects)
	if slices.ContainsFunc(subjects, func(s string) bool { return strings.ContainsAny(s, "*>") }) {
		most = maxLast
	}
	page, whole, err := pages(ctx, nc, stream, most, getRequest{MultiLast: subjects})
	if err == nil && !whole {
		return Page{}, ErrGap
	}
	return page, err
}

// maxLast is how many messages the server returns for a [MultiLast] at most.
const maxLast = 1024

// pages reads an answer of at most so many messages, and tells whether it is whole.
func pages(ctx context.Context, nc *nats.Conn, stream string, most int, req getRequest) (Page, bool, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return Page{}, false, err
	}
	subject := "$JS.API.DIRECT.GET." + stream
	a := &asked{subject: subject}
	page, whole, err := gather(a.watch(ctx, nc), nc, subject, body, most)
	return page, whole, a.told(err)
}

// What the server says beside a message of several: how many matching ones come after
// it, and the sequence of the one before it in the answer, 0 for none. At the end it
// says the last one's.
const (
	headerPending = "Nats-Num-Pending"
	headerBefore  = "Nats-Last-Sequence"
)

// gather listens with a channel that can hold all messages and the end. That of a
// synchronous subscription takes half a megabyte, which costs more than the read.
//
// An answer of several messages may lose some on its way, where a connection breaks,
// this one or one between servers, and is made again while the server is still
// gathering: then only what came before them is returned.
func gather(
	ctx context.Context, nc *nats.Conn, subject string, body []byte, most int,
) (page Page, whole bool, err error) {
	inbox := nc.NewInbox()
	answers := make(chan *nats.Msg, most+1)
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return Page{}, false, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, body); err != nil {
		return Page{}, false, err
	}
	for before := "0"; ; {
		var msg *nats.Msg
		select {
		case msg = <-answers:
		case <-ctx.Done():
			return Page{}, false, ctx.Err()
		}
		if one(msg.Header, "Status") == "204" {
			page.Pending, _ = strconv.ParseUint(one(msg.Header, headerPending), 10, 64)
			page.UpTo, _ = strconv.ParseUint(one(msg.Header, "Nats-UpTo-Sequence"), 10, 64)
			last := one(msg.Header, headerBefore)
			return page, last == "" || last == before, nil
		}
		m, err := direct(msg)
		if errors.Is(err, ErrNotFound) && len(page.Messages) == 0 {
			return page, true, nil
		}
		if err != nil {
			return Page{}, false, err
		}
		if added(m.Header, headerBefore) != before {
			return page, false, nil
		}
		before = added(m.Header, nats.JSSequence)
		page.Messages = append(page.Messages, m)
	}
}
