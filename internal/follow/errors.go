package follow

import (
	"errors"
	"fmt"
)

// Errors that end [Follower.Run]: waiting does not mend them.
var (
	// ErrOtherDefinition: the record was made by the same version of the
	// follower with other content. Raise the version, or deploy the content that
	// the version had.
	ErrOtherDefinition = errors.New("same version with another definition")
	// ErrNewerVersion: a higher version of the follower holds the record. This
	// instance is outdated: stop it.
	ErrNewerVersion = errors.New("a higher version holds the record")
	// ErrOtherStore: the record belongs to a store with another identity, such
	// as one that was deleted and made again under the same name.
	ErrOtherStore = errors.New("the record belongs to another store")
	// ErrRecordVanished: the consumer exists and the record does not. Starting
	// afresh would repeat everything: restore the record, or delete the consumer
	// too if that is what you want.
	ErrRecordVanished = errors.New("the record vanished")
	// ErrRecordFormat: the record cannot be read by this version of Rossby.
	ErrRecordFormat = errors.New("unknown record format")
	// ErrBeyondHead: the position is beyond the stream's last message; the
	// stream was restored from an older copy, or made again.
	ErrBeyondHead = errors.New("position beyond the stream's head")
	// ErrNoStream: the event stream does not exist.
	ErrNoStream = errors.New("the stream does not exist")
	// ErrStopped wraps the handler's error after a [Stop] verdict.
	ErrStopped = errors.New("stopped by verdict")
	// ErrConnectionClosed: the connection was closed for good.
	ErrConnectionClosed = errors.New("connection closed")
	// ErrPanic: one of the configured functions panicked.
	ErrPanic = errors.New("panic")
)

var (
	// ErrRunning is returned by [Follower.Run] when it runs already.
	ErrRunning = errors.New("already running")
	// ErrNotOwner is returned by [Follower.Resume] on an instance that does not
	// own the record.
	ErrNotOwner = errors.New("not the owner")
	// ErrNoLane is returned by [Follower.Resume] when the lane is not blocked.
	ErrNoLane = errors.New("no such blocked lane")
	// ErrNoRecord is returned by [ReadStatus] when the follower never ran.
	ErrNoRecord = errors.New("no record")
	// ErrEventMissing is the failure of a lane whose events are not in the
	// stream any more, even at the leader.
	ErrEventMissing = errors.New("event not found in the stream")
)

// PanicError is the failure of a handler that panicked.
type PanicError struct {
	// Value is what was passed to panic, Stack the goroutine's stack.
	Value any
	Stack []byte
}

// Error names the value; the stack is for logs.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Is makes every PanicError match [ErrPanic].
func (e *PanicError) Is(target error) bool { return target == ErrPanic }

// errGoexit is the failure of a handler that ended its goroutine.
var errGoexit = errors.New("the handler ended its goroutine")

// errLost ends a tenure quietly: another instance owns the record, or the lease
// could not be renewed.
var errLost = errors.New("lease lost")
