package aggregatetest

import (
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Patience bounds [Eventually] and [Await]. It is for tests that would hang, not
// for tests that are slow.
const Patience = 30 * time.Second

// tick is how often they look.
const tick = 10 * time.Millisecond

// Eventually polls until the condition holds. It fails the test with what the
// condition last said when it never does.
func Eventually(t testing.TB, what string, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, Patience, err)
		case <-t.Context().Done():
			t.Fatalf("%s: the test ended: %v", what, err)
		case <-again.C:
		}
	}
}

// Await waits until a store on a server holds an event of the type that matches,
// from its first commit on, and returns it: the tracker of tests with more than
// one process. A nil match takes the first.
func Await[E any](
	t testing.TB, store *jetstream.Store, schema *jetstream.Schema, match func(event E, m jetstream.Meta) bool,
) (E, jetstream.Meta) {
	t.Helper()
	decoder, err := jetstream.NewDecoder(jetstream.StopOnUnknown, schema)
	if err != nil {
		t.Fatal(err)
	}
	var (
		event E
		meta  jetstream.Meta
		after uint64
	)
	look := func() (bool, error) {
		for c, err := range store.Scan(t.Context(), schema.Type(), jetstream.Range{After: after}) {
			if err != nil {
				return false, err
			}
			after = c.Sequence
			events, err := decoder.Events(store, c)
			if err != nil {
				return false, err
			}
			for _, r := range events {
				e, ok := r.Event.(E)
				if ok && (match == nil || match(e, r.Meta)) {
					event, meta = e, r.Meta
					return true, nil
				}
			}
		}
		return false, nil
	}
	deadline := time.Now().Add(Patience)
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		found, err := look()
		if err != nil {
			t.Fatalf("await a %T of %q: %v", event, schema.Type(), err)
		}
		if found {
			return event, meta
		}
		if time.Now().After(deadline) {
			t.Fatalf("await a %T of %q: none came within %v; the last commit looked at is at %d",
				event, schema.Type(), Patience, after)
		}
		select {
		case <-again.C:
		case <-t.Context().Done():
			t.Fatalf("await a %T of %q: the test ended", event, schema.Type())
		}
	}
}
