package wire

import (
	"errors"
	"fmt"
)

// Error codes of the JetStream API that Rossby tells apart.
const (
	// CodeWrongLastSequence is a failed expectation; the text names the actual
	// last sequence.
	CodeWrongLastSequence = 10071
	// CodeWrongLastSequenceInFlight is a failed expectation that lost against a
	// write still in flight (replicated streams), so no sequence is named. It
	// proves nothing: that write may yet fail.
	CodeWrongLastSequenceInFlight = 10164
	// CodeStreamNotFound is an API request for a stream that does not exist.
	CodeStreamNotFound = 10059
	// CodeNoMessageFound is a leader read that found nothing.
	CodeNoMessageFound = 10037
	// CodeNotEnabled says that JetStream is off for the account.
	CodeNotEnabled = 10039
	// CodeUnavailable says that no leader is there to answer just now.
	CodeUnavailable = 10008
	// CodeBatchIncomplete is an atomic batch that lost a message or its leader;
	// nothing of it was stored.
	CodeBatchIncomplete = 10176
	// CodeBatchTooMany is an atomic batch beyond the server's bound of open
	// batches; nothing of it was stored.
	CodeBatchTooMany = 10210
)

var (
	// ErrNotFound is returned by reads that found no message. On a replicated
	// stream it proves nothing unless the leader said so.
	ErrNotFound = errors.New("no message found")
	// ErrTooMany is returned by [MultiLast] when more than 1024 subjects match.
	ErrTooMany = errors.New("more than 1024 subjects match")
	// ErrNotSent is returned for a batch whose last message was never sent: nothing
	// of it will be stored.
	ErrNotSent = errors.New("the batch was not sent")
	// ErrNoLeader is returned for a stream that has no leader: any replica tells of it
	// then, one that has nothing yet too.
	ErrNoLeader = errors.New("the stream has no leader")
	// ErrProtocol is returned when an answer is not what the server documents.
	ErrProtocol = errors.New("unexpected answer from the server")
)

// APIError is an error answer of the JetStream API.
type APIError struct {
	// Code is the HTTP-like status, Number the JetStream error code.
	Code   int `json:"code"`
	Number int `json:"err_code"`
	// Description is the server's text.
	Description string `json:"description"`
}

// Error names the text and both codes.
func (e *APIError) Error() string {
	return fmt.Sprintf("nats: %s (code %d, error %d)", e.Description, e.Code, e.Number)
}

// Number returns the JetStream error code in err, or 0.
func Number(err error) int {
	if e, ok := errors.AsType[*APIError](err); ok {
		return e.Number
	}
	return 0
}

// IsWrongLastSequence tells whether err is a failed expectation, of either kind.
func IsWrongLastSequence(err error) bool {
	n := Number(err)
	return n == CodeWrongLastSequence || n == CodeWrongLastSequenceInFlight
}
