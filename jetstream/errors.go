package jetstream

import (
	"errors"
	"fmt"

	"github.com/rossby-go/rossby/internal/wire"
)

var (
	// ErrNotFound is returned for an aggregate without events. Where the leader
	// was asked it is proved, but for an ex-leader that is cut off from its peers
	// and may answer for about ten seconds.
	ErrNotFound = errors.New("not found")
	// ErrStoreNotFound is returned by [Attach] for a store that nobody created.
	ErrStoreNotFound = errors.New("store not found")
	// ErrNoJetStream is returned when the server or account has no JetStream.
	ErrNoJetStream = errors.New("JetStream is not available")
	// ErrMigrationOutdated is returned by [Migration.Apply] when somebody changed the
	// stream after the migration was planned: plan again.
	ErrMigrationOutdated = errors.New("the stream was changed after the migration was planned: plan it again")
	// ErrNotACopy is matched by a [*CopyError] whose store holds what the source of
	// the copy does not.
	ErrNotACopy = errors.New("the store is not a copy of the source")
	// ErrServerTooOld is returned for servers before [OldestServer].
	ErrServerTooOld = errors.New("nats-server is too old")
	// ErrStoreWentBack is returned when a store's last sequence on a subject stays
	// below one that was acknowledged: the store lost commits or was restored.
	ErrStoreWentBack = errors.New("the store has lost commits it had acknowledged")
	// ErrDamaged is matched by every [*DamageError].
	ErrDamaged = errors.New("the store was changed behind Rossby's back")
	// ErrUnavailable is returned when NATS could not be reached and the write was
	// surely not stored.
	ErrUnavailable = errors.New("NATS is not available")
	// ErrUnknownOutcome is matched by every [*UnknownError].
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrFormat is matched by every [*FormatError].
	ErrFormat = errors.New("not a readable commit")
	// ErrUnknownEvent is matched by every [*UnknownEventError].
	ErrUnknownEvent = errors.New("event unknown to the schema")
	// ErrErased is returned for data whose encryption key is unknown or destroyed.
	ErrErased = errors.New("the data is encrypted under a key that is not available")
	// ErrIncomplete is returned when a read could not be brought up to the commit
	// that it had to reach before its context ended.
	ErrIncomplete = errors.New("the read did not reach the commit it had to")
)

// KeyTakenError is a unique key that another aggregate has: nothing was stored.
type KeyTakenError struct {
	// Type and ID are the writer's aggregate.
	Type, ID string
	// Key is the key's name. Its value may be personal and is not repeated.
	Key string
	// Owner is who has the key.
	Owner Owner
}

// Error names the key and both aggregates.
func (e *KeyTakenError) Error() string {
	return fmt.Sprintf("%s %q: key %q: its value is taken by %s %q", e.Type, e.ID, e.Key, e.Owner.Type, e.Owner.ID)
}

// InvalidError is a value that Rossby refuses.
type InvalidError struct {
	Field, Value, Reason string
}

// Error names the field, the value and the reason.
func (e *InvalidError) Error() string {
	v := e.Value
	if len(v) > 200 {
		v = v[:200] + "…"
	}
	return fmt.Sprintf("%s %q %s", e.Field, v, e.Reason)
}

// ConflictError is a commit that another writer came before. It is final: the
// commit is not stored and never will be.
type ConflictError struct {
	Type, ID string
	// Expected is the sequence of the commit that the writer had seen last, Actual
	// that of a commit found instead. 0 is none.
	Expected, Actual uint64
	// Expect is the write's, when that was what was not met; then Version is the
	// aggregate's version at Actual. Nobody has to have written meanwhile.
	Expect  Expectation
	Version uint64
}

// Error names the aggregate, what was expected and what was found.
func (e *ConflictError) Error() string {
	if e.Expect != (Expectation{}) {
		return fmt.Sprintf("%s %q: conflict: expected %v, found version %d with the last commit at sequence %d",
			e.Type, e.ID, e.Expect, e.Version, e.Actual)
	}
	return fmt.Sprintf("%s %q: conflict: expected its last commit at sequence %d, found one at %d",
		e.Type, e.ID, e.Expected, e.Actual)
}

// UnknownError is an append whose context ended undecided. It may be stored
// already or later, until somebody else writes to the aggregate. Sending the
// command again with the same command id is safe; [Store.Settle] goes on until it
// is decided, [Store.Abandon] decides it against being stored.
type UnknownError struct {
	// Type, ID and CommitID are those of the write's commit; of a transaction, of
	// its first write's.
	Type, ID, CommitID string
	Cause              error

	pending *pending // what was sent; nil for one that came over the wire
}

// Error names the aggregate and why nothing more is known.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s %q: commit %s may or may not be stored: %v", e.Type, e.ID, e.CommitID, e.Cause)
}

// Unwrap gives the cause.
func (e *UnknownError) Unwrap() error { return e.Cause }

// Is matches [ErrUnknownOutcome].
func (e *UnknownError) Is(target error) bool { return target == ErrUnknownOutcome }

// PermissionError is what the server does not let this client do: Op, "publish" or
// "subscribe", and Subject say what. It wraps nats.ErrPermissionViolation. On a
// connection from [Connect] it comes at once; on any other when the time is up, and
// only if nothing else went wrong meanwhile. docs/security.md has the permissions
// of each kind of module.
type PermissionError = wire.PermissionError

// RefusedError is a commit that the server will not store: too large, no space, a
// [*PermissionError]. Nothing of it is stored. A NATS server says which subject it
// denies and not which message, so a permission that is missing while several
// commits of one aggregate are on their way is an [*UnknownError].
type RefusedError struct {
	Type, ID string
	Cause    error
}

// Error names the aggregate and the server's reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s %q: the server refused the commit: %v", e.Type, e.ID, e.Cause)
}

// Unwrap gives the server's reason.
func (e *RefusedError) Unwrap() error { return e.Cause }

// CopyError is a commit that cannot be appended as a copy. Everything before it in
// the source is in the store, nothing after it.
type CopyError struct {
	// Store is the name of the store that was copied into.
	Store string
	// Sequence is the commit's in the source, 0 when the source lacks it.
	Sequence           uint64
	Type, ID, CommitID string
	Reason             string
	Cause              error
}

// Error names the commit and the reason.
func (e *CopyError) Error() string {
	text := fmt.Sprintf("copy into store %q: ", e.Store)
	if e.CommitID != "" {
		text += fmt.Sprintf("commit %s of %s %q ", e.CommitID, e.Type, e.ID)
	}
	if e.Sequence > 0 {
		text += fmt.Sprintf("at %d of the source ", e.Sequence)
	}
	text += e.Reason
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *CopyError) Unwrap() error { return e.Cause }

// SettingsError is a store that differs from what was asked for, or from what
// keeps commits safe.
type SettingsError struct {
	Store, Field, Want, Got, Advice string
}

// Error names the field, both values and what to do.
func (e *SettingsError) Error() string {
	return fmt.Sprintf("store %q: %s is %s, not %s: %s", e.Store, e.Field, e.Got, e.Want, e.Advice)
}

// ForeignPositionError is a position of another store.
type ForeignPositionError struct {
	Position Position
	Store    string
}

// Error names the position and the store.
func (e *ForeignPositionError) Error() string {
	return fmt.Sprintf("position %q does not belong to store %q "+
		"(was the store made anew? If it is a copy, Store.CopyOf tells the position there)", e.Position, e.Store)
}

// FormatError is a message that is not a commit this version can read.
type FormatError struct {
	Subject  string
	Sequence uint64
	Reason   string
	Cause    error
}

// Error names the message and the reason.
func (e *FormatError) Error() string {
	text := fmt.Sprintf("message %d on %q: %s", e.Sequence, e.Subject, e.Reason)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Cause }

// Is matches [ErrFormat].
func (e *FormatError) Is(target error) bool { return target == ErrFormat }

// DamageKind is what is wrong with a store.
type DamageKind string

// The kinds of damage.
const (
	// DamageMissing is a hole: messages that the stream has lost or somebody deleted.
	DamageMissing DamageKind = "missing"
	// DamageChain is a commit that does not follow the one before it on its subject:
	// commits between them are gone, or were written over, or stand in another order,
	// or it was never written by Rossby.
	DamageChain DamageKind = "chain"
	// DamageUnreadable is a message that is no commit of a known format.
	DamageUnreadable DamageKind = "unreadable"
	// DamagePartition is a commit on a subject with another partition than its
	// aggregate's, where no load looks for it.
	DamagePartition DamageKind = "partition"
	// DamageCopy is a first commit that stands in the store twice.
	DamageCopy DamageKind = "copy"
	// DamageTransaction is a transaction without one of its commits.
	DamageTransaction DamageKind = "transaction"
	// DamageEvent is an event that the schemas cannot decode.
	DamageEvent DamageKind = "event"
	// DamageGenesis is a first message that is not this store's.
	DamageGenesis DamageKind = "genesis"
	// DamageSettings is a stream whose settings may lose commits.
	DamageSettings DamageKind = "settings"
)

// DamageError is one fault of a store, found by a read or by [Store.Verify].
type DamageError struct {
	Kind DamageKind
	// Subject is that of the message with the fault, "" where none is left.
	Subject string
	// Sequence is that of the message, or the first of those that are missing.
	// Through is the last one concerned: a read goes on after it.
	Sequence, Through uint64
	// Detail says what was found and what was due.
	Detail string
}

// Error names the kind, the message and what is wrong.
func (e *DamageError) Error() string {
	where := fmt.Sprintf("message %d", e.Sequence)
	if e.Through > e.Sequence {
		where = fmt.Sprintf("messages %d to %d", e.Sequence, e.Through)
	}
	if e.Subject != "" {
		where += fmt.Sprintf(" on %q", e.Subject)
	}
	return fmt.Sprintf("damaged store (%s): %s: %s", e.Kind, where, e.Detail)
}

// Is matches [ErrDamaged].
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// UnknownEventError is an event whose name or version the schema does not know.
type UnknownEventError struct {
	// Type is the aggregate type, Name the stored event's name or, for an event
	// that was to be written, its Go type.
	Type, Name string
	// Version is the stored event's, 0 for one that was to be written.
	Version int
}

// Error names the event.
func (e *UnknownEventError) Error() string {
	if e.Version == 0 {
		return fmt.Sprintf("event %s is not declared in the schema of %q", e.Name, e.Type)
	}
	return fmt.Sprintf("event %q version %d of %q is unknown to this program's schema (is it older than the writer?)",
		e.Name, e.Version, e.Type)
}

// Is matches [ErrUnknownEvent].
func (e *UnknownEventError) Is(target error) bool { return target == ErrUnknownEvent }
