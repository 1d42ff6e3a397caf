package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// settleSuite are the promises of Settle and Abandon.
func settleSuite() suite {
	return suite{
		"SettleStored":       testSettleStored,
		"SettleLost":         testSettleLost,
		"SettleOvertaken":    testSettleOvertaken,
		"SettleStillUnknown": testSettleStillUnknown,
		"AbandonStored":      testAbandonStored,
		"AbandonLost":        testAbandonLost,
		"AbandonOvertaken":   testAbandonOvertaken,
		"AbandonMeetsItself": testAbandonMeetsItself,
	}
}

// unknown is an append that gave up undecided: its request was lost, or, when
// stored, the answer. The store it gives stands behind the proxy, which is healed.
func unknown(t *testing.T, e env, s *jetstream.Store, w jetstream.Write, stored bool) (*jetstream.Store, *jetstream.UnknownError) {
	t.Helper()
	p, through := e.proxied(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.loseReplies.Store(stored)
	p.loseRequests.Store(!stored)
	done := started(ctx, through, w)
	if stored {
		waitFor(t, s, int(w.After.Ordinal)+1)
	} else {
		p.awaitLoss(t)
	}
	cancel()
	_, err := (<-done)()
	var u *jetstream.UnknownError
	if !errors.As(err, &u) {
		t.Fatalf("%T %v", err, err)
	}
	p.heal()
	return through, u
}

// withState is a commit after a1's first, which has a state.
func withState(t *testing.T, s *jetstream.Store) jetstream.Write {
	t.Helper()
	first := write("a1", "", jetstream.Head{})
	first.State = &jetstream.State{Fingerprint: "f", Data: []byte("one")}
	head, err := s.Append(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	return write("a1", "second", head)
}

func testSettleStored(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	through, u := unknown(t, e, s, withState(t, s), true)
	for range 2 { // The second time changes nothing.
		heads, err := through.Settle(t.Context(), u)
		commits := waitFor(t, s, 2)
		if err != nil || len(heads) != 1 || heads[0] != commits[1].Head || heads[0].CommitID != u.CommitID {
			t.Errorf("%+v, %v, stored is %+v", heads, err, commits[1].Head)
		}
	}
}

func testSettleLost(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	_, u := unknown(t, e, s, withState(t, s), false)
	// On another connection of the same process.
	heads, err := s.Settle(t.Context(), u)
	commits := waitFor(t, s, 2)
	if err != nil || heads[0] != commits[1].Head || commits[1].Decisions[0].CommandID != "second" {
		t.Errorf("%+v, %v", heads, err)
	}
}

func testSettleOvertaken(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	w := withState(t, s)
	through, u := unknown(t, e, s, w, false)
	first, err := s.Append(t.Context(), write("a1", "first", w.After))
	if err != nil {
		t.Fatal(err)
	}
	for _, decide := range []func(context.Context, *jetstream.UnknownError) ([]jetstream.Head, error){through.Settle, through.Abandon} {
		heads, err := decide(t.Context(), u)
		var conflict *jetstream.ConflictError
		if !errors.As(err, &conflict) || conflict.Expected != w.After.Sequence || conflict.Actual != first.Sequence || heads != nil {
			t.Errorf("%+v, %T %v", heads, err, err)
		}
	}
	waitFor(t, s, 2)
}

func testSettleStillUnknown(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	p.loseRequests.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := started(ctx, through, write("a1", "", jetstream.Head{}))
	p.awaitLoss(t)
	cancel()
	_, err := (<-done)()
	var u *jetstream.UnknownError
	if !errors.As(err, &u) {
		t.Fatalf("%T %v", err, err)
	}
	for _, decide := range []func(context.Context, *jetstream.UnknownError) ([]jetstream.Head, error){through.Settle, through.Abandon} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := decide(ctx, u)
		cancel()
		var still *jetstream.UnknownError
		if !errors.As(err, &still) || still.CommitID != u.CommitID || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%T %v", err, err)
		}
		u = still
	}
	p.heal()
	if _, err := through.Settle(t.Context(), u); err != nil {
		t.Error(err)
	}
	waitFor(t, s, 1)
}

func testAbandonStored(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	through, u := unknown(t, e, s, withState(t, s), true)
	heads, err := through.Abandon(t.Context(), u)
	commits := waitFor(t, s, 2)
	if err != nil || heads[0] != commits[1].Head {
		t.Errorf("%+v, %v", heads, err)
	}
}

// testAbandonLost: the commit can never be stored, and nothing else changes.
func testAbandonLost(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	w := withState(t, s)
	through, u := unknown(t, e, s, w, false)
	_, err := through.Abandon(t.Context(), u)
	commits := waitFor(t, s, 2)
	empty := commits[1]
	var conflict *jetstream.ConflictError
	if !errors.As(err, &conflict) || conflict.Actual != empty.Sequence || conflict.Expected != w.After.Sequence {
		t.Errorf("%T %v", err, err)
	}
	if empty.Events() != 0 || empty.Version != 1 || empty.Ordinal != 2 || empty.State == nil || string(empty.State.Data) != "one" ||
		empty.Decisions[0].Causation != u.CommitID || empty.Decisions[0].Outcome != jetstream.OutcomeNone {
		t.Errorf("%+v", empty)
	}
	// Whoever goes on with the first one learns the same.
	if _, err := s.Settle(t.Context(), u); !is[*jetstream.ConflictError](err) {
		t.Errorf("%T %v", err, err)
	}
	if _, err := s.Append(t.Context(), write("a1", "next", empty.Head)); err != nil {
		t.Error(err)
	}
	waitFor(t, s, 3)
}

func testAbandonOvertaken(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	_, u := unknown(t, e, s, write("a1", "", jetstream.Head{}), false)
	appendN(t, s, "a1", 2)
	if _, err := s.Abandon(t.Context(), u); !is[*jetstream.ConflictError](err) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 2)
}

// testAbandonMeetsItself: one goes on with the append while others abandon it, and
// all learn the same.
func testAbandonMeetsItself(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	for round := range 5 {
		w := write("a1", "", jetstream.Head{})
		if round > 0 {
			last, err := s.Last(t.Context(), "account", "a1", jetstream.Leader)
			if err != nil {
				t.Fatal(err)
			}
			w.After = last.Head
		}
		through, u := unknown(t, e, s, w, round%2 == 0)
		errs := make(chan error, 4)
		for i := range cap(errs) {
			go func() {
				decide := through.Settle
				if i%2 == 0 {
					decide = s.Abandon
				}
				_, err := decide(t.Context(), u)
				errs <- err
			}()
		}
		stored, not := 0, 0
		for range cap(errs) {
			switch err := <-errs; {
			case err == nil:
				stored++
			case is[*jetstream.ConflictError](err):
				not++
			default:
				t.Errorf("%T %v", err, err)
			}
		}
		commits := waitFor(t, s, round+1)
		if there := commits[round].CommitID == u.CommitID; there != (stored == 4) || there == (not == 4) {
			t.Errorf("%d say that it is stored, %d that it is not, stored is %v", stored, not, there)
		}
	}
}

// TestUnknownOutcomesOfOthers: only what this process sent can be sent again.
func TestUnknownOutcomesOfOthers(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	remote := &jetstream.UnknownError{Type: "account", ID: "a1", CommitID: "c", Cause: errors.New("over the wire")}
	if _, err := s.Settle(t.Context(), nil); !is[*jetstream.InvalidError](err) {
		t.Errorf("%T %v", err, err)
	}
	if _, err := s.Settle(t.Context(), remote); !is[*jetstream.InvalidError](err) {
		t.Errorf("%T %v", err, err)
	}
	if _, err := s.Abandon(t.Context(), remote); !is[*jetstream.InvalidError](err) {
		t.Errorf("%T %v", err, err)
	}
}
