package aggregate

import (
	"errors"
	"fmt"
	"slices"

	"github.com/rossby-go/rossby/jetstream"
)

// KeyChange is what a handler returns among its events to take or give up a unique
// key of the store: see [Reserve] and [Release]. It is not an event: nothing
// applies it, and no follower sees it.
type KeyChange struct {
	key     jetstream.Key
	release bool
}

// Reserve makes the aggregate the owner of a value that only one aggregate of the
// store may have at a time, such as a user name or an e-mail address. A handler
// returns it beside the events that go with it: all of them happen, or nothing.
//
//	return []any{Registered{Email: c.Email}, aggregate.Reserve("email", c.Email)}, nil
//
// When another aggregate has the value, the command is refused: a
// [*RejectedError] with the code "<name>-taken", and in the process itself a
// [*jetstream.KeyTakenError] that names the owner. The same aggregate may reserve
// what it has. Name is [a-z0-9-]+; the value is compared byte for byte, so bring it
// into one form first, and is not stored: its keyed hash is. [jetstream.Store.Owner]
// looks an owner up.
//
// Such a command is a transaction of its own, not grouped with others, and costs a
// read of each key and an atomic batch: on one server about as much as ten commits.
func Reserve(name, value string) KeyChange {
	return KeyChange{key: jetstream.Key{Name: name, Value: value}}
}

// Release gives a value up that the aggregate had reserved, so that others can
// have it; one that the same command reserves is kept. A value of another aggregate
// is refused like a reservation of it.
func Release(name, value string) KeyChange {
	return KeyChange{key: jetstream.Key{Name: name, Value: value}, release: true}
}

// keyChanges takes the key changes out of what a handler returned.
func keyChanges(all []any) (events []any, reserve, release []jetstream.Key, err error) {
	for i, e := range all {
		k, ok := e.(KeyChange)
		switch {
		case !ok:
			if len(reserve)+len(release) > 0 {
				events = append(events, e)
			}
			continue
		case len(reserve)+len(release) == 0:
			events = append(make([]any, 0, len(all)), all[:i]...)
		}
		if k.release {
			release = append(release, k.key)
		} else {
			reserve = append(reserve, k.key)
		}
	}
	switch {
	case len(reserve)+len(release) == 0:
		return all, nil, nil, nil
	case len(events) == 0:
		return nil, nil, nil, errors.New("keys are reserved and released beside an event, not alone")
	}
	// What is given up and taken again is kept.
	release = slices.DeleteFunc(release, func(k jetstream.Key) bool { return slices.Contains(reserve, k) })
	return events, reserve, release, nil
}

// keyTakenSuffix follows the key's name in the code of a refusal.
const keyTakenSuffix = "-taken"

// refuseKey makes a refusal of a key that another aggregate has.
func refuseKey(taken *jetstream.KeyTakenError) error {
	refusal := Reject(taken.Key+keyTakenSuffix, "another %s has this %s", taken.Owner.Type, taken.Key)
	return fmt.Errorf("%w: %w", refusal, taken)
}
