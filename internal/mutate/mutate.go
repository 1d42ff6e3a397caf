// Package mutate holds deliberate defects of the toolkit, for finding out whether
// the torture rig notices them. They exist in builds with the tag rossby_mutate
// only, where the environment names one; in every other build [On] is the constant
// false, and the compiler leaves out what stands behind it.
package mutate

// Defect is a mistake that somebody could make.
type Defect string

// The defects of the store.
const (
	// Unguarded appends without an expectation.
	Unguarded Defect = "unguarded"
	// BlindRetry answers a conflict by sending the commit again behind the other one.
	BlindRetry Defect = "blind-retry"
	// AckBeforeCommit takes an attempt without an answer for a success.
	AckBeforeCommit Defect = "ack-before-commit"
	// TimeoutIsFailure takes an attempt without an answer for a failure.
	TimeoutIsFailure Defect = "timeout-is-failure"
	// NoResolver takes a conflict after an open attempt for another writer's.
	NoResolver Defect = "no-resolver"
	// SplitTransaction sends the commits of a transaction one by one.
	SplitTransaction Defect = "split-transaction"
	// NoKeys leaves the unique keys out of the transaction that takes them.
	NoKeys Defect = "no-keys"
)

// The defects of the command side.
const (
	// NoCommandDedupe does not look for a command that was handled before.
	NoCommandDedupe Defect = "no-command-dedupe"
	// NoTriggerDedupe does not look for an effect that was made before.
	NoTriggerDedupe Defect = "no-trigger-dedupe"
	// NoReceipt does not search for ids without a time.
	NoReceipt Defect = "no-receipt"
	// Unconfirmed refuses upon a state that nobody has confirmed.
	Unconfirmed Defect = "unconfirmed"
	// StaleLoad lets any replica answer loads.
	StaleLoad Defect = "stale-load"
)

// The defects of the followers.
const (
	// NakInsteadOfHold lets an aggregate's later events pass one that failed.
	NakInsteadOfHold Defect = "nak-instead-of-hold"
	// NoLanes handles the events of one aggregate at once.
	NoLanes Defect = "no-lanes"
	// AckBeforeEffect counts an event as done when its handler begins.
	AckBeforeEffect Defect = "ack-before-effect"
	// ForgetLanes records the position without what is unfinished before it.
	ForgetLanes Defect = "forget-lanes"
	// IgnoreGaps takes whatever comes next from the cursor.
	IgnoreGaps Defect = "ignore-gaps"
)

// The defects of gateways and views.
const (
	// KeyPerAttempt gives each attempt a key of its own.
	KeyPerAttempt Defect = "key-per-attempt"
	// NoLedger does not look for deliveries that were made before.
	NoLedger Defect = "no-ledger"
	// ViewIgnoresGaps takes whatever comes next from the view's cursor.
	ViewIgnoresGaps Defect = "view-ignores-gaps"
	// CheckpointFirst writes a view's checkpoint, and then its values.
	CheckpointFirst Defect = "checkpoint-first"
	// NoPositionWait answers from a view that has not reached the position asked for.
	NoPositionWait Defect = "no-position-wait"
)

// Variable is the environment's that names the defect.
const Variable = "ROSSBY_MUTATE"
