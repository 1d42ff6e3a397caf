package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// acceptSuite are Eventuate's cases, as far as they are about the store, and what
// writers may get wrong.
func acceptSuite() suite {
	return suite{
		"CreateWithID":      testCreateWithID,
		"FindNothing":       testFindNothing,
		"FindTrigger":       testFindTrigger,
		"UpdateAtVersion0":  testUpdateAtVersion0,
		"ErrorTaxonomy":     testErrorTaxonomy,
		"SixteenWriters":    testSixteenWriters,
		"SequencesGrow":     testSequencesGrow,
		"IDsOfEveryByte":    testIDsOfEveryByte,
		"EmptyAndOddEvents": testEmptyAndOddEvents,
		"LargeHeaders":      testLargeHeaders,
	}
}

// testCreateWithID is AC-A6: the caller's id is honoured, and what is found has
// the version that the append returned.
func testCreateWithID(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	id := jetstream.NewID()
	w := write(id, "", jetstream.Head{})
	w.Expect = jetstream.NoStream()
	head, err := s.Append(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.Last(t.Context(), "account", id, jetstream.Leader)
	if err != nil || last.Head != head || last.ID != id || head.Version != 1 {
		t.Errorf("%+v, %v; appended %+v", last, err, head)
	}
}

// testFindNothing is AC-A7.
func testFindNothing(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	if _, err := s.Last(t.Context(), "account", "nobody", jetstream.Leader); !errors.Is(err, jetstream.ErrNotFound) {
		t.Error(err)
	}
	if commits, err := history(t.Context(), s, "nobody", jetstream.Range{}); err != nil || len(commits) != 0 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

// testFindTrigger is AC-A8: what was saved with a trigger is found with it, and
// the same trigger handled a second time from the same head conflicts.
func testFindTrigger(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	key := jetstream.Trigger{Subscriber: "transfers", EventID: "e1.0", Step: "debit"}
	w := write("a1", "", jetstream.Head{})
	w.Decisions[0].Kind, w.Decisions[0].Trigger = jetstream.KindTrigger, key
	head, err := s.Append(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), w); !is[*jetstream.ConflictError](err) {
		t.Errorf("handled again: %v", err)
	}
	commits, err := history(t.Context(), s, "a1", jetstream.Range{To: head.Sequence})
	if err != nil || len(commits) != 1 || commits[0].Decisions[0].Trigger != key {
		t.Errorf("%+v, %v", commits, err)
	}
}

// testUpdateAtVersion0 is AC-A9.
func testUpdateAtVersion0(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	last := appendN(t, s, "a1", 1)[0]
	_, err := s.Append(t.Context(), write("a1", "", jetstream.Head{}))
	if c := (*jetstream.ConflictError)(nil); !errors.As(err, &c) || c.Expected != 0 || c.Actual != last.Sequence {
		t.Errorf("%T %v", err, err)
	}
	_, err = s.Append(t.Context(), expecting("a1", jetstream.AtVersion(0)))
	if c := (*jetstream.ConflictError)(nil); !errors.As(err, &c) || c.Version != 1 || c.Actual != last.Sequence {
		t.Errorf("%T %v", err, err)
	}
}

// testErrorTaxonomy is AC-A14: each thing that goes wrong is an error of its own,
// and no two of them match. What is away for a moment is waited for: see
// TestAnswersToAppends and TestConflictAfterUnavailable.
func testErrorTaxonomy(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	appendN(t, s, "a1", 1)
	duplicate := expecting("a1", jetstream.NoStream())
	large := write("a2", "", jetstream.Head{})
	large.Decisions[0].Events[0].Data = make([]byte, s.Conn().MaxPayload())
	if _, err := s.Append(t.Context(), reserving("a3", jetstream.Head{}, email("x"))); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(error) bool{
		"conflict": is[*jetstream.ConflictError], "taken": is[*jetstream.KeyTakenError], "refused": is[*jetstream.RefusedError],
		"invalid": is[*jetstream.InvalidError], "unknown": matches(jetstream.ErrUnknownOutcome),
		"unavailable": matches(jetstream.ErrUnavailable), "went back": matches(jetstream.ErrStoreWentBack),
		"not found": matches(jetstream.ErrNotFound),
	}
	for _, c := range []struct {
		want string
		w    jetstream.Write
	}{
		{"conflict", duplicate},
		{"conflict", write("a1", "", jetstream.Head{})},
		{"refused", large},
		{"invalid", write("a 1", "", jetstream.Head{})},
		{"taken", reserving("a4", jetstream.Head{}, email("x"))},
	} {
		_, err := s.Append(t.Context(), c.w)
		for kind, match := range kinds {
			if match(err) != (kind == c.want) {
				t.Errorf("%s: %T %v matches %q: %v", c.want, err, err, kind, match(err))
			}
		}
	}
}

// testSixteenWriters is AC-A15: 16 threads, each with 10 saves, no errors.
func testSixteenWriters(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for k := range 10 {
				if _, err := s.Append(t.Context(), write(fmt.Sprint("a", i, "-", k), "", jetstream.Head{})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(scan(t, s)); n != 160 {
		t.Errorf("%d commits", n)
	}
}

// testSequencesGrow is AC-A17, with TestIDs and TestPositions: what orders events
// here are the sequences that the server gives, not ids that clients make; they
// grow, and as positions make their round trip.
func testSequencesGrow(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	var before uint64
	for i := range 50 {
		head, err := s.Append(t.Context(), expecting(fmt.Sprint("a", i%3), jetstream.Any()))
		if err != nil || head.Sequence <= before {
			t.Fatalf("%d after %d, %v", head.Sequence, before, err)
		}
		before = head.Sequence
		p, err := jetstream.ParsePosition(s.Position(head.Sequence).String())
		if got, err2 := s.Sequence(p); err != nil || err2 != nil || got != head.Sequence {
			t.Errorf("%v: %d, %v, %v", p, got, err, err2)
		}
	}
}

// testIDsOfEveryByte: each id is refused by name, or what is stored under it is
// found under it and under no other.
func testIDsOfEveryByte(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	stored := 0
	ids := make([]string, 0, 300)
	ids = append(ids, "", ".", "*", ">", "a.b", strings.Repeat("x", 128), strings.Repeat("x", 129), "ü", "\u00a0", "a\u2028b", "\xf0\x28")
	for b := range 256 {
		ids = append(ids, string([]byte{'a', byte(b), 'z'}))
	}
	for _, id := range ids {
		head, err := s.Append(t.Context(), write(id, "", jetstream.Head{}))
		if err != nil {
			if bad := (*jetstream.InvalidError)(nil); !errors.As(err, &bad) || bad.Field != "aggregate id" || bad.Value != id {
				t.Errorf("%q: %T %v", id, err, err)
			}
			continue
		}
		stored++
		last, err := s.Last(t.Context(), "account", id, jetstream.Leader)
		if err != nil || last.Head != head || last.ID != id {
			t.Errorf("%q: %+v, %v", id, last, err)
		}
	}
	if n := len(scan(t, s)); n != stored || stored < 90 {
		t.Errorf("%d stored, %d there", stored, n)
	}
}

func testEmptyAndOddEvents(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	schema := jetstream.NewSchema("account", jetstream.Event[fee]("charged"))
	for _, odd := range []any{nil, (*fee)(nil), 5, "text", struct{}{}, []fee{{1}}, struct{ Cents int }{1}} {
		if _, err := schema.Encode(odd, s.Codec()); !errors.Is(err, jetstream.ErrUnknownEvent) {
			t.Errorf("%#v: %T %v", odd, err, err)
		}
	}
	for i, c := range []struct {
		decision jetstream.Decision
		ok       bool
	}{
		{jetstream.Decision{}, false}, // no events, and does not say so
		{jetstream.Decision{Events: []jetstream.EventData{}}, false},
		{jetstream.Decision{Outcome: jetstream.OutcomeNone}, true},
		{jetstream.Decision{Events: []jetstream.EventData{{}}}, false},
		{jetstream.Decision{Events: []jetstream.EventData{{Name: "credited"}}}, true}, // without data
		{jetstream.Decision{Events: []jetstream.EventData{{Name: "credited", Data: []byte{}}}}, true},
		{jetstream.Decision{Events: []jetstream.EventData{{Name: "credited", Data: bytes.Repeat([]byte{0xff}, 300)}}}, true},
	} {
		w := jetstream.Write{Type: "account", ID: fmt.Sprint("a", i), Decisions: []jetstream.Decision{c.decision}}
		head, err := s.Append(t.Context(), w)
		if !c.ok {
			if !is[*jetstream.InvalidError](err) {
				t.Errorf("%d: %T %v", i, err, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		last, err := s.Last(t.Context(), "account", w.ID, jetstream.Leader)
		if err != nil || last.Head != head || last.Events() != len(c.decision.Events) {
			t.Errorf("%d: %+v, %v", i, last, err)
			continue
		}
		for k, ev := range last.Decisions[0].Events {
			if !bytes.Equal(ev.Data, c.decision.Events[k].Data) {
				t.Errorf("%d: %q", i, ev.Data)
			}
		}
	}
}

// testLargeHeaders: what would make the headers larger than a server takes is
// refused by name; the largest that is allowed is stored.
func testLargeHeaders(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	w := write("a1", "", jetstream.Head{})
	for n, want := range map[int]bool{260: true, 280: false, 1000: false} { // names of 120 bytes, 32 KiB together
		w.ID = fmt.Sprint("a", n)
		w.Decisions[0].Events = manyEvents(n)
		w.TraceParent = strings.Repeat("t", 256)
		w.Origin = &jetstream.Origin{Store: strings.Repeat("s", 256), Sequence: 1 << 62, Time: decidedAt}
		head, err := s.Append(t.Context(), w)
		if !want {
			if bad := (*jetstream.InvalidError)(nil); !errors.As(err, &bad) || bad.Field != "events" {
				t.Errorf("%d: %T %v", n, err, err)
			}
			continue
		}
		last, err2 := s.Last(t.Context(), "account", w.ID, jetstream.Leader)
		if err != nil || err2 != nil || last.Head != head || last.Events() != n {
			t.Errorf("%d: %v, %v", n, err, err2)
		}
	}
	// What the server itself says of headers is an error, too.
	m := nats.NewMsg(s.Name() + ".event.account.1.x")
	m.Header["X"] = []string{strings.Repeat("x", 65<<10)}
	natstest.Retry(t, "the server's refusal", func(ctx context.Context) error {
		reply, err := s.Conn().RequestMsgWithContext(ctx, m)
		if err == nil && !strings.Contains(string(reply.Data), "10097") {
			err = fmt.Errorf("it says %q", reply.Data)
		}
		return err
	})
}
