package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// expectSuite are the promises of Write.Expect.
func expectSuite() suite {
	return suite{
		"Expectations":                 testExpectations,
		"ExpectationsOfEmptyCommits":   testExpectationsOfEmptyCommits,
		"ExpectationsAgainstEachOther": testExpectationsAgainstEachOther,
		"PositionsOfOthers":            testPositionsOfOthers,
	}
}

// expecting is a commit of one event that expects something.
func expecting(id string, e jetstream.Expectation) jetstream.Write {
	w := write(id, "", jetstream.Head{})
	w.Expect = e
	return w
}

func testExpectations(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	heads := appendN(t, s, "there", 3)
	last := s.Position(heads[2].Sequence)
	for _, c := range []struct {
		name   string
		expect jetstream.Expectation
		// there and missing tell whether the commit is stored after three others,
		// and as the first.
		there, missing bool
		says           string
	}{
		{"any", jetstream.Any(), true, true, "anything"},
		{"exists", jetstream.Exists(), true, false, "some events"},
		{"no stream", jetstream.NoStream(), false, true, "no events"},
		{"version 0", jetstream.AtVersion(0), false, true, "no events"},
		{"version 3", jetstream.AtVersion(3), true, false, "version 3"},
		{"version 2", jetstream.AtVersion(2), false, false, "version 2"},
		{"version 4", jetstream.AtVersion(4), false, false, "version 4"},
		{"position", jetstream.AtPosition(last), true, false, last.String()},
		{"position before", jetstream.AtPosition(s.Position(heads[1].Sequence)), false, false, "position"},
		{"position zero", jetstream.AtPosition(jetstream.Position{}), false, true, "position"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, there := range []bool{true, false} {
				// Each case has its own aggregates: those that are there have the
				// same three commits, so "there" must not grow.
				id, want := "missing-"+strings.ReplaceAll(c.name, " ", "-"), c.missing
				if there {
					id, want = "there", c.there
				}
				store := s
				if there && want {
					continue // below, in turn
				}
				head, err := store.Append(t.Context(), expecting(id, c.expect))
				checkExpectation(t, c.says, want, head, err)
				if !there && want && (head.Version != 1 || head.Ordinal != 1) {
					t.Errorf("%+v", head)
				}
			}
		})
	}
	// Now those that are stored, one after the other.
	version := uint64(3)
	for _, next := range []func() jetstream.Expectation{
		func() jetstream.Expectation { return jetstream.AtPosition(s.Position(heads[2].Sequence)) },
		func() jetstream.Expectation { return jetstream.AtVersion(version) },
		jetstream.Exists, jetstream.Any,
	} {
		head, err := s.Append(t.Context(), expecting("there", next()))
		if version++; err != nil || head.Version != version || head.Ordinal != version {
			t.Errorf("%v: %+v, %v", next(), head, err)
		}
		heads[2] = head
	}
	commits, err := history(t.Context(), s, "there", jetstream.Range{})
	if err != nil || len(commits) != 7 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

func checkExpectation(t *testing.T, says string, want bool, head jetstream.Head, err error) {
	t.Helper()
	if want {
		if err != nil || head.Sequence == 0 {
			t.Errorf("%+v, %v", head, err)
		}
		return
	}
	var conflict *jetstream.ConflictError
	if !errors.As(err, &conflict) || conflict.Expect == (jetstream.Expectation{}) || !strings.Contains(err.Error(), says) ||
		(conflict.Version == 0) != (conflict.Actual == 0) {
		t.Errorf("%+v, %v", conflict, err)
	}
}

// testExpectationsOfEmptyCommits: decisions without events make no stream exist.
func testExpectationsOfEmptyCommits(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	empty := jetstream.Write{Type: "account", ID: "a1", Decisions: []jetstream.Decision{command("c")}}
	if _, err := s.Append(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), expecting("a1", jetstream.Exists())); !is[*jetstream.ConflictError](err) {
		t.Errorf("exists: %v", err)
	}
	if _, err := s.Append(t.Context(), expecting("a1", jetstream.AtPosition(jetstream.Position{}))); !is[*jetstream.ConflictError](err) {
		t.Errorf("no commits: %v", err)
	}
	head, err := s.Append(t.Context(), expecting("a1", jetstream.NoStream()))
	if err != nil || head.Version != 1 || head.Ordinal != 2 {
		t.Errorf("%+v, %v", head, err)
	}
	waitFor(t, s, 2)
}

// testExpectationsAgainstEachOther: 16 writers that know nothing lose nothing,
// and of 16 that make the same aggregate one does.
func testExpectationsAgainstEachOther(t *testing.T, e env) {
	t.Helper()
	const writers, each = 16, 5
	s := e.store(t, e.connect(t))
	var wg sync.WaitGroup
	made := make(chan jetstream.Head, writers)
	for range writers {
		wg.Go(func() {
			head, err := s.Append(t.Context(), expecting("made", jetstream.NoStream()))
			switch {
			case err == nil:
				made <- head
			case !is[*jetstream.ConflictError](err):
				t.Error(err)
			}
			for range each {
				if _, err := s.Append(t.Context(), expecting("a1", jetstream.Any())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Errorf("%d writers made the aggregate", len(made))
	}
	commits, err := history(t.Context(), s, "a1", jetstream.Range{}) // checks the chain
	if err != nil || len(commits) != writers*each {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

func testPositionsOfOthers(t *testing.T, e env) {
	t.Helper()
	s, other := e.store(t, e.connect(t)), e.store(t, e.connect(t))
	appendN(t, s, "a1", 1)
	later := appendN(t, s, "a2", 1)[0]
	// The position of another aggregate's commit.
	_, err := s.Append(t.Context(), expecting("a1", jetstream.AtPosition(s.Position(later.Sequence))))
	if conflict := (*jetstream.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Expected != later.Sequence || conflict.Actual >= later.Sequence {
		t.Errorf("%T %v", err, err)
	}
	if _, err := s.Append(t.Context(), expecting("a1", jetstream.AtPosition(other.Position(2)))); !is[*jetstream.ForeignPositionError](err) {
		t.Errorf("%T %v", err, err)
	}
	// One that the store never had, or lost.
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	_, err = s.Append(ctx, expecting("a1", jetstream.AtPosition(s.Position(later.Sequence+100))))
	if !errors.Is(err, jetstream.ErrStoreWentBack) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 1)
}

// TestContradictingExpectations: what is expected is said once.
func TestContradictingExpectations(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	head := jetstream.Head{Sequence: 2, CommitID: "c", Ordinal: 1, Version: 1}
	for i, edit := range []func(*jetstream.Write){
		func(w *jetstream.Write) { w.After, w.Expect = head, jetstream.Any() },
		func(w *jetstream.Write) { w.State, w.Expect = &jetstream.State{Fingerprint: "f"}, jetstream.Any() },
		func(w *jetstream.Write) { w.State, w.Expect = &jetstream.State{Fingerprint: "f"}, jetstream.Exists() },
	} {
		w := write("a1", "", jetstream.Head{})
		edit(&w)
		_, err := s.Append(t.Context(), w)
		if bad := (*jetstream.InvalidError)(nil); !errors.As(err, &bad) || bad.Field != "expectation" {
			t.Errorf("%d: %T %v", i, err, err)
		}
	}
	if got := fmt.Sprint(jetstream.Expectation{}); got == "" {
		t.Error("the zero expectation says nothing")
	}
}
