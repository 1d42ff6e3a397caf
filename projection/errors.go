package projection

import (
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

var (
	// ErrNotFound is returned for a key that the view does not hold.
	ErrNotFound = errors.New("not found in the view")
	// ErrStale is matched by every [*StaleError].
	ErrStale = errors.New("the view is behind the position asked for")
	// ErrViewNotFound is returned when a view has no bucket yet: its updater never
	// ran.
	ErrViewNotFound = errors.New("view not found")
	// ErrBucket is returned when a view's bucket exists with settings that would
	// lose data or cannot be written in batches.
	ErrBucket = errors.New("the view's bucket is not as it must be")
	// ErrDefinition is matched by every [*DefinitionError].
	ErrDefinition = errors.New("the view's definition differs")
	// ErrStoreRestored is returned when the store is not the one that the view was
	// made from, or has gone back. The view must be rebuilt.
	ErrStoreRestored = errors.New("store was restored, rebuild the view")
	// ErrSuperseded is returned by an updater whose generation was replaced by that
	// of a higher definition version.
	ErrSuperseded = errors.New("the view was replaced by a newer definition version")
	// ErrFold is matched by every [*FoldError].
	ErrFold = errors.New("an event cannot be folded")
	// ErrFoldTimeout is the cause of a fold that took longer than
	// [UpdaterConfig.FoldTimeout].
	ErrFoldTimeout = errors.New("the fold takes too long")
	// ErrNotTaken is in an updater's status while the bucket takes nothing: it is
	// full, its servers are, or it has no leader; or while a database takes long.
	ErrNotTaken = errors.New("the bucket or database does not take the view's values")
	// ErrBuilding is returned by [Admin.Rebuild] while a generation is being built.
	ErrBuilding = errors.New("a generation of the view is being built already")
	// ErrGeneration is returned for a generation that does not exist, or is not in a
	// state that allows what was asked for.
	ErrGeneration = errors.New("the view's generation does not allow it")
	// ErrPartial is matched by every [*PartialError].
	ErrPartial = errors.New("an aggregate's keys cannot be rebuilt")
	// ErrTooManyKeys is matched by every [*TooManyKeysError].
	ErrTooManyKeys = errors.New("a commit changes more keys than one batch can hold")
	// ErrIndex is returned by [Reader.Find] for an index that the view does not have.
	ErrIndex = errors.New("the view has no such index")
	// ErrTooManyMatches is returned by [Reader.Find] for a search that finds more than
	// can be sorted.
	ErrTooManyMatches = errors.New("the search of the index finds too much")
	// ErrTokenExpired is returned by a list that goes on from a token of another
	// generation: start it again.
	ErrTokenExpired = errors.New("the view was rebuilt since the token was given out")
	// ErrUnavailable is returned when NATS, or a query service, could not be
	// reached.
	ErrUnavailable = errors.New("not available")
	// ErrSink is returned when a view's database does not do what the view needs,
	// and that will not pass by itself.
	ErrSink = errors.New("the view's database cannot be used")
	// ErrSinkConflict is returned by [Sink.Transact] when the record's revision is
	// not the expected one.
	ErrSinkConflict = errors.New("the view's record was written by another")
	// ErrRunning is returned by [Updater.Run] when it runs already.
	ErrRunning = errors.New("the updater runs already")
)

// KeyError is a key that a view cannot hold.
type KeyError struct {
	Key, Reason string
}

// Error names the key and the reason.
func (e *KeyError) Error() string { return fmt.Sprintf("view key %q %s", shorten(e.Key), e.Reason) }

// StaleError is a read that asked for a position which the view did not reach in
// time. A reader of a view does not know how far the store is: a position that the
// store has yet to reach is not told from one that the view has yet to reach. See
// jetstream.Store.CheckPosition.
type StaleError struct {
	View string
	// Wanted is the position asked for, Position how far the view is; zero when it
	// could not be read.
	Wanted, Position jetstream.Position
	// Behind is how many of the store's commits lie between both, of all aggregate
	// types.
	Behind uint64
	// Lag is how long ago the last commit was stored that the view holds: in time, it
	// is behind by that at most. 0 when it holds none.
	Lag time.Duration
	// State is what the view's updater was doing, Cause why it has stopped.
	State State
	Cause string
}

// Error names the view, both positions and how far they lie apart.
func (e *StaleError) Error() string {
	text := fmt.Sprintf("view %q is at position %q, asked for was %q", e.View, e.Position, e.Wanted)
	if e.Behind > 0 {
		text += fmt.Sprintf(": %d commits behind", e.Behind)
		if e.Lag > 0 {
			text += fmt.Sprintf(", the last one it holds is of %v ago", e.Lag.Round(time.Millisecond))
		}
	}
	if e.State == StateStopped || e.State == StatePaused {
		text += fmt.Sprintf("; it is %s", e.State)
	}
	if e.Cause != "" {
		text += ": " + e.Cause
	}
	return text
}

// Is matches [ErrStale].
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// DefinitionError is a program whose definition of a view is not the one that
// the view was built with.
type DefinitionError struct {
	View string
	// Version is the program's definition version, Live that of the view.
	Version, Live int
	// Reason says what differs and Advice what to do.
	Reason, Advice string
}

// Error names the view, both versions and what to do.
func (e *DefinitionError) Error() string {
	return fmt.Sprintf("view %q: definition version %d, live is version %d: %s; %s",
		e.View, e.Version, e.Live, e.Reason, e.Advice)
}

// Is matches [ErrDefinition].
func (e *DefinitionError) Is(target error) bool { return target == ErrDefinition }

// FoldError is an event that the view's definition could not fold. It is never
// left out silently: see [UpdaterConfig.OnError].
type FoldError struct {
	View string
	// Event is the event's name, ID that of its aggregate, EventID its own.
	Event, Type, ID, EventID string
	// Sequence is the stream sequence of the event's commit, Key the view's key
	// when one was folded.
	Sequence uint64
	Key      string
	Cause    error

	final bool
}

// Error names the event and the cause.
func (e *FoldError) Error() string {
	text := fmt.Sprintf("view %q: event %q of %s %q at sequence %d", e.View, e.Event, e.Type, e.ID, e.Sequence)
	if e.Key != "" {
		text += fmt.Sprintf(", key %q", shorten(e.Key))
	}
	return text + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *FoldError) Unwrap() error { return e.Cause }

// Is matches [ErrFold].
func (e *FoldError) Is(target error) bool { return target == ErrFold }

func (e *FoldError) event() *FailedEvent {
	return &FailedEvent{
		Sequence: e.Sequence, EventID: e.EventID, Event: e.Event, Type: e.Type, ID: e.ID, Key: shorten(e.Key),
	}
}

// PartialError is an aggregate whose keys [Admin.RebuildAggregate] did not rebuild.
type PartialError struct {
	View, Type, ID string
	Reason         string
}

// Error names the aggregate and the reason.
func (e *PartialError) Error() string {
	return fmt.Sprintf("view %q: the keys of %s %q are not rebuilt: %s", e.View, e.Type, e.ID, e.Reason)
}

// Is matches [ErrPartial].
func (e *PartialError) Is(target error) bool { return target == ErrPartial }

// PanicError is a panic of user code.
type PanicError struct {
	Value any
	Stack string
}

// Error shows the value that was panicked with.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// StoppedError is returned by [Updater.Run] when the view cannot go on. The
// checkpoint says so, too; running it again tries again.
type StoppedError struct {
	View  string
	Cause error
}

// Error names the view and the cause.
func (e *StoppedError) Error() string { return fmt.Sprintf("view %q stopped: %v", e.View, e.Cause) }

// Unwrap gives the cause.
func (e *StoppedError) Unwrap() error { return e.Cause }

// TooManyKeysError is a commit or transaction that changes more keys of a lookup
// view than fit into one atomic batch.
type TooManyKeysError struct {
	Keys, Limit int
}

// Error names both numbers.
func (e *TooManyKeysError) Error() string {
	return fmt.Sprintf("one commit or transaction changes %d keys, a batch holds %d: use a keyed view or other keys",
		e.Keys, e.Limit)
}

// Is matches [ErrTooManyKeys].
func (e *TooManyKeysError) Is(target error) bool { return target == ErrTooManyKeys }

// ValueError is a value that cannot be stored.
type ValueError struct {
	Key   string
	Cause error
}

// Error names the key and the cause.
func (e *ValueError) Error() string {
	return fmt.Sprintf("value of key %q: %v", shorten(e.Key), e.Cause)
}

// Unwrap gives the cause.
func (e *ValueError) Unwrap() error { return e.Cause }

func shorten(text string) string {
	if len(text) > 100 {
		return text[:100] + "…"
	}
	return text
}
