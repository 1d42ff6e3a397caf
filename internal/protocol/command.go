// Package protocol names what goes over the wire between Rossby's modules: the
// subjects of commands and queries, their headers, the kinds of errors. docs/wire.md
// describes it for clients in other languages.
package protocol

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Headers of a command's request.
const (
	HeaderCommandID     = "Rossby-Command-Id"
	HeaderExpectVersion = "Rossby-Expect-Version"
	HeaderDeadline      = "Rossby-Timeout"
	HeaderTrigger       = "Rossby-Trigger"
	// HeaderRecordRejections wants the outcome recorded even when nothing happened.
	HeaderRecordRejections = "Rossby-Record-Rejections"
	HeaderCorrelation      = "Rossby-Correlation"
	HeaderCausation        = "Rossby-Causation"
	HeaderMetaPrefix       = "Rossby-Meta-"
	HeaderTraceParent      = "traceparent"
	HeaderContentType      = "Content-Type"
)

// HeaderAfter is the header of a query that names the position its answer must
// have reached.
const HeaderAfter = "Rossby-After"

// Kind is what sort of failure an error reply stands for.
type Kind string

// The kinds, each with the code that stands in the micro error header.
const (
	KindInvalid     Kind = "invalid"
	KindNotFound    Kind = "not-found"
	KindExists      Kind = "exists"
	KindConflict    Kind = "conflict"
	KindRejected    Kind = "rejected"
	KindBusy        Kind = "busy"
	KindInternal    Kind = "internal"
	KindUnavailable Kind = "unavailable"
	KindUnknown     Kind = "unknown"
	KindStale       Kind = "stale"
)

// Code is the kind's HTTP-like number.
func (k Kind) Code() string {
	switch k {
	case KindInvalid:
		return "400"
	case KindNotFound:
		return "404"
	case KindExists, KindConflict:
		return "409"
	case KindRejected:
		return "422"
	case KindBusy:
		return "429"
	case KindUnavailable:
		return "503"
	case KindUnknown, KindStale:
		return "504"
	case KindInternal:
	}
	return "500"
}

// ErrorBody is the body of an error reply, JSON always.
type ErrorBody struct {
	Kind   Kind   `json:"kind"`
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Field and Value say what is invalid.
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"`
	// Expected and Actual are versions, of a conflict.
	Expected uint64 `json:"expected,omitempty"`
	Actual   uint64 `json:"actual,omitempty"`
	// RetryAfter is how long to wait before asking again, a duration such as 50ms.
	RetryAfter string `json:"retryAfter,omitempty"`
}

// CommandSubject is where a command for one aggregate goes; id "*" is where the
// service listens.
func CommandSubject(store, aggregateType, command, id string) string {
	return store + ".command." + aggregateType + "." + command + "." + id
}

// Trigger is the value of [HeaderTrigger].
type Trigger struct {
	Subscriber, EventID, Step, Position string
	Time                                time.Time
}

// String writes a trigger as a header.
func (t Trigger) String() string {
	position := t.Position
	if position == "" {
		position = "-"
	}
	return fmt.Sprintf("%s %s %s %s %d", t.Subscriber, t.EventID, t.Step, position, t.Time.UnixMicro())
}

// ParseTrigger reads a header.
func ParseTrigger(text string) (Trigger, error) {
	parts := strings.Split(text, " ")
	if len(parts) != 5 || parts[0] == "" || parts[1] == "" || parts[2] == "" || parts[3] == "" {
		return Trigger{}, fmt.Errorf("header %s %q is not \"<subscriber> <event id> <step> <position> <time>\"",
			HeaderTrigger, text)
	}
	micros, err := strconv.ParseInt(parts[4], 10, 64)
	if err != nil {
		return Trigger{}, fmt.Errorf("header %s %q: time: %w", HeaderTrigger, text, err)
	}
	t := Trigger{Subscriber: parts[0], EventID: parts[1], Step: parts[2], Time: time.UnixMicro(micros).UTC()}
	if parts[3] != "-" {
		t.Position = parts[3]
	}
	return t, nil
}

// Deadline writes the time left to the context as [HeaderDeadline], "" for no
// limit: a duration such as 2500ms, because the clocks of two machines differ.
func Deadline(ctx context.Context) string {
	at, ok := ctx.Deadline()
	if !ok {
		return ""
	}
	return strconv.FormatInt(max(time.Until(at).Milliseconds(), 1), 10) + "ms"
}

// Timeout reads [HeaderDeadline], with a maximum that holds without it, too.
func Timeout(header string, most time.Duration) (time.Duration, error) {
	if header == "" {
		return most, nil
	}
	left, err := time.ParseDuration(header)
	if err != nil || left <= 0 {
		return 0, errors.New("is not a duration such as 2500ms")
	}
	return min(most, left), nil
}
