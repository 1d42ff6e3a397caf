package aggregate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

var (
	// ErrNotFound is returned for a command on an aggregate without events, and
	// for loading one.
	ErrNotFound = jetstream.ErrNotFound
	// ErrExists is returned for a [Create] command on an aggregate with events.
	ErrExists = errors.New("exists already")
	// ErrBusy is matched by every [*BusyError].
	ErrBusy = errors.New("busy")
	// ErrOtherPayload is returned for a command id that was used before for
	// another command.
	ErrOtherPayload = errors.New("the command id was used before for another command")
	// ErrContended is returned when other writers came first at every attempt.
	// Nothing was done.
	ErrContended = errors.New("other writers came first at every attempt")
	// ErrStepTwice is returned when one handler has two effects of the same name
	// on one aggregate: name them with [Step].
	ErrStepTwice = errors.New("two effects of one step")
	// ErrInternal is returned by a remote command that failed for a reason that is
	// no business of its caller.
	ErrInternal = errors.New("internal error")
	// ErrRejected is matched by every [*RejectedError].
	ErrRejected = errors.New("rejected")
)

// BusyError is a command service whose queues are full. Nothing was done.
type BusyError struct {
	// RetryAfter is when there may be room: about as long as commands take now.
	RetryAfter time.Duration
	// Reason says which queue is full.
	Reason string
}

// Error gives the reason and the time.
func (e *BusyError) Error() string {
	text := "busy"
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (try again in %v)", e.RetryAfter)
	}
	return text
}

// Is matches [ErrBusy].
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// RejectedError is a decision against a command.
type RejectedError struct {
	// Code is for programs, Reason for people.
	Code, Reason string
}

// Error gives the code and the reason.
func (e *RejectedError) Error() string {
	if e.Reason == "" {
		return "rejected: " + e.Code
	}
	return "rejected: " + e.Code + ": " + e.Reason
}

// Is matches [ErrRejected].
func (e *RejectedError) Is(target error) bool { return target == ErrRejected }

// Reject is what a handler returns to refuse a command. Codes are part of the
// API: short and stable, not empty. Those that begin with '_' are the toolkit's.
func Reject(code, format string, args ...any) error {
	return &RejectedError{Code: code, Reason: strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")}
}

// VersionError is an aggregate whose version is not the one that the caller
// expected with [ExpectVersion]. Nothing was done.
type VersionError struct {
	Type, ID         string
	Expected, Actual uint64
}

// Error names the aggregate and both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%s %q: expected version %d, it is %d", e.Type, e.ID, e.Expected, e.Actual)
}

// The codes under which a trigger's outcome is recorded when there was nothing
// to decide.
const (
	codeNotFound = "_not-found"
	codeExists   = "_exists"
	codeVersion  = "_version"
)

// versionReason is how a recorded [*VersionError] is written.
const versionReason = "expected version %d, it was %d"
