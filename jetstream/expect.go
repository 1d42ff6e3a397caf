package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Expectation is what a [Write] expects of an aggregate that its writer has not
// loaded. The store reads the aggregate's head from the leader, compares, appends
// after that head, and does so again when another writer comes between. The zero
// Expectation is the write's After.
type Expectation struct {
	kind     expectKind
	version  uint64
	position Position
}

type expectKind uint8

const (
	expectAfter expectKind = iota
	expectAny
	expectExists
	expectVersion
	expectPosition
)

// Any expects nothing: the commit follows whatever is there.
func Any() Expectation { return Expectation{kind: expectAny} }

// Exists expects an aggregate with events.
func Exists() Expectation { return Expectation{kind: expectExists} }

// NoStream expects an aggregate without events. It may have commits: those hold
// decisions, such as a trigger that was recorded, but no events.
func NoStream() Expectation { return Expectation{kind: expectVersion} }

// AtVersion expects the number of the aggregate's events.
func AtVersion(version uint64) Expectation {
	return Expectation{kind: expectVersion, version: version}
}

// AtPosition expects the aggregate's last commit to stand at a position, as an
// append or a load returned it. The zero Position is an aggregate without commits.
func AtPosition(p Position) Expectation { return Expectation{kind: expectPosition, position: p} }

// String says what is expected.
func (e Expectation) String() string {
	switch e.kind {
	case expectAny:
		return "anything"
	case expectExists:
		return "some events"
	case expectVersion:
		if e.version == 0 {
			return "no events"
		}
		return "version " + strconv.FormatUint(e.version, 10)
	case expectPosition:
		return "its last commit at position " + strconv.Quote(e.position.String())
	default:
		return "the head it was given"
	}
}

// validate refuses what contradicts the rest of the write.
func (e Expectation) validate(w *Write) error {
	switch {
	case e.kind == expectAfter:
	case w.After != Head{}:
		return &InvalidError{
			Field: "expectation", Value: e.String(), Reason: "stands beside After: give one of them",
		}
	case w.State != nil && (e.kind == expectAny || e.kind == expectExists):
		return &InvalidError{
			Field: "expectation", Value: e.String(), Reason: "stands beside State, but does not say which events that follows",
		}
	}
	return nil
}

// resolve is the head that the write has to follow. A [*ConflictError] when the
// aggregate is not as expected.
func (s *Store) resolve(ctx context.Context, w *Write) (Head, error) {
	e := w.Expect
	if e.kind == expectAfter {
		return w.After, nil
	}
	var want uint64
	if e.kind == expectPosition {
		var err error
		if want, err = s.Sequence(e.position); err != nil {
			return Head{}, err
		}
	}
	for reached := false; ; reached = true {
		var head Head
		last, err := s.Last(ctx, w.Type, w.ID, Leader)
		if err == nil {
			head = last.Head
		} else if !errors.Is(err, ErrNotFound) {
			return Head{}, err
		}
		met := false
		switch e.kind {
		case expectAny:
			met = true
		case expectExists:
			met = head.Version > 0
		case expectVersion:
			met = head.Version == e.version
		case expectPosition:
			met = head.Sequence == want
		case expectAfter:
		}
		if met {
			return head, nil
		}
		conflict := &ConflictError{
			Type: w.Type, ID: w.ID, Expected: want, Actual: head.Sequence, Expect: e, Version: head.Version,
		}
		if head.Sequence >= want || reached {
			return Head{}, conflict
		}
		// Either the position is not that of a commit of this aggregate, or the
		// store has lost it, or the leader was none.
		if err := s.checkReached(ctx, want); err != nil {
			return Head{}, fmt.Errorf("%s %q: %w", w.Type, w.ID, err)
		}
	}
}
