package jetstream

import "context"

// Start says where a reactor or gateway begins when it runs for the first time
// ever. There is no default: beginning too late loses effects without a word,
// beginning too early repeats old ones.
type Start struct {
	kind     startKind
	position Position
}

type startKind uint8

const (
	startUnset startKind = iota
	startBeginning
	startNow
	startAfter
)

// FromBeginning starts with the store's first event.
func FromBeginning() Start { return Start{kind: startBeginning} }

// FromNow starts with the first event stored after the first run begins.
func FromNow() Start { return Start{kind: startNow} }

// From starts with the first event after the position.
func From(p Position) Start { return Start{kind: startAfter, position: p} }

// IsSet tells whether a start was stated.
func (s Start) IsSet() bool { return s.kind != startUnset }

// Resolve returns the stream sequence after which to start. Returns an
// [*InvalidError] when none was stated, a [*ForeignPositionError] for a position
// of another store.
func (s Start) Resolve(ctx context.Context, store *Store) (after uint64, err error) {
	switch s.kind {
	case startBeginning:
		return 0, nil
	case startNow:
		return store.LastSequence(ctx)
	case startAfter:
		return store.Sequence(s.position)
	default:
		return 0, &InvalidError{
			Field: "Start", Value: "",
			Reason: "is not stated: say jetstream.FromBeginning(), FromNow() or From(position)",
		}
	}
}
