package jetstream

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is a place in one store's order of commits. Every append returns one,
// every wait takes one. Its text is opaque: pass it on, compare it for equality,
// do not take it apart. The zero Position is before everything, in any store.
type Position struct {
	store    string
	sequence uint64
}

// ParsePosition reads what [Position.String] wrote; the empty text is the zero
// Position. Returns an [*InvalidError].
func ParsePosition(text string) (Position, error) {
	if text == "" {
		return Position{}, nil
	}
	store, number, found := strings.Cut(text, "-")
	seq, err := strconv.ParseUint(number, 36, 64)
	if !found || store == "" || len(store) > 32 || err != nil || strings.ContainsAny(store, " .*>") {
		return Position{}, &InvalidError{Field: "position", Value: text, Reason: "is not a position that Rossby gave out"}
	}
	p := Position{store: store, sequence: seq}
	if p.String() != text {
		return Position{}, &InvalidError{Field: "position", Value: text, Reason: "is not a position that Rossby gave out"}
	}
	return p, nil
}

// IsZero tells whether p is before everything.
func (p Position) IsZero() bool { return p == Position{} }

// String is the position as text, "" for the zero Position.
func (p Position) String() string {
	if p.IsZero() {
		return ""
	}
	return p.store + "-" + strconv.FormatUint(p.sequence, 36)
}

// MarshalText writes the position as [Position.String] does.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the position as [ParsePosition] does.
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}

// Positions gives the positions of a store's sequences: a [*Store].
type Positions interface {
	Position(sequence uint64) Position
}

// Position is the place of a sequence of the store's stream; that of 0 is the zero
// Position.
func (s *Store) Position(sequence uint64) Position {
	if sequence == 0 {
		return Position{}
	}
	return Position{store: s.id, sequence: sequence}
}

// Sequence is the stream sequence that p stands for. A position of another store
// is a [*ForeignPositionError].
func (s *Store) Sequence(p Position) (uint64, error) {
	if p.IsZero() {
		return 0, nil
	}
	if p.store != s.id {
		return 0, &ForeignPositionError{Position: p, Store: s.name}
	}
	return p.sequence, nil
}

// GoString shows the position in test failures.
func (p Position) GoString() string { return fmt.Sprintf("jetstream.Position(%q)", p.String()) }
