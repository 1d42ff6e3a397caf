package jetstream_test

import (
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

// txSuite are the promises of AppendAll.
func txSuite() suite {
	return suite{
		"TxStored":              testTxStored,
		"TxOfOne":               testTxOfOne,
		"TxConflict":            testTxConflict,
		"TxExpectations":        testTxExpectations,
		"TxRefusedInput":        testTxRefusedInput,
		"TxTooLarge":            testTxTooLarge,
		"TxLimitOfTheStream":    testTxLimitOfTheStream,
		"TxOfManyMessages":      testTxOfManyMessages,
		"TxManyAtOnce":          testTxManyAtOnce,
		"TxAgainstEachOther":    testTxAgainstEachOther,
		"TxLostAcknowledgement": testTxLostAcknowledgement,
		"TxLostRequest":         testTxLostRequest,
		"TxOvertakenWhileOpen":  testTxOvertakenWhileOpen,
		"TxUnknown":             testTxUnknown,
		"TxAway":                testTxAway,
		"TxWentBack":            testTxWentBack,
	}
}

// scan reads every commit of the store, the toolkit's too.
func scan(t *testing.T, s *jetstream.Store) []*jetstream.Commit {
	t.Helper()
	var commits []*jetstream.Commit
	natstest.Eventually(t, "a scan", func() (err error) {
		commits, err = scanOnce(t, s)
		return err
	})
	return commits
}

func scanOnce(t *testing.T, s *jetstream.Store) ([]*jetstream.Commit, error) {
	t.Helper()
	var commits []*jetstream.Commit
	for m, err := range s.Messages(t.Context(), "", "", jetstream.Range{}) {
		if err != nil {
			return nil, err
		}
		c, err := jetstream.Decode(&m)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

// checkTransactions finds every transaction of the store whole, its commits side
// by side, and returns how many there are.
func checkTransactions(t *testing.T, s *jetstream.Store) int {
	t.Helper()
	n := 0
	commits := scan(t, s)
	for i := 0; i < len(commits); i++ {
		tx := commits[i].Tx
		if tx == nil {
			continue
		}
		n++
		for k := range tx.Count {
			if i+k >= len(commits) {
				t.Fatalf("transaction %s ends after %d of %d commits", tx.ID, k, tx.Count)
			}
			c := commits[i+k]
			if c.Tx == nil || c.Tx.ID != tx.ID || c.Tx.Index != k+1 || c.Sequence != commits[i].Sequence+uint64(k) ||
				c.LastSequence() != commits[i].Sequence+uint64(tx.Count-1) {
				t.Fatalf("commit %d of transaction %s at %d: %+v", k+1, tx.ID, c.Sequence, c.Tx)
			}
		}
		i += tx.Count - 1
	}
	return n
}

func testTxStored(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	a1 := appendN(t, s, "a1", 2)[1]
	withState := write("a1", "debit", a1)
	withState.State = &jetstream.State{Fingerprint: "f", Data: []byte("s")}
	heads, err := s.AppendAll(t.Context(), withState, write("a2", "credit", jetstream.Head{}), write("a3", "fee", jetstream.Head{}))
	if err != nil || len(heads) != 3 || heads[0].Version != 3 || heads[1].Version != 1 ||
		heads[1].Sequence != heads[0].Sequence+1 || heads[2].Sequence != heads[1].Sequence+1 {
		t.Fatalf("%+v, %v", heads, err)
	}
	for i, id := range []string{"a1", "a2", "a3"} {
		last, err := s.Last(t.Context(), "account", id, jetstream.Leader)
		if err != nil || last.Head != heads[i] || last.Tx == nil || last.Tx.Index != i+1 || last.Tx.Count != 3 {
			t.Errorf("%s: %+v, %v", id, last, err)
		}
		if i == 0 && (last.State == nil || last.Decisions[0].CommandID != "debit") {
			t.Errorf("%+v", last)
		}
	}
	// Each goes on by itself, or with the others.
	if heads[0], err = s.Append(t.Context(), write("a1", "", heads[0])); err != nil {
		t.Error(err)
	}
	if _, err = s.AppendAll(t.Context(), write("a2", "", heads[1]), write("a1", "", heads[0])); err != nil {
		t.Error(err)
	}
	if n := checkTransactions(t, s); n != 2 {
		t.Errorf("%d transactions", n)
	}
	if commits, err := history(t.Context(), s, "a1", jetstream.Range{}); err != nil || len(commits) != 5 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

func testTxOfOne(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	heads, err := s.AppendAll(t.Context(), write("a1", "", jetstream.Head{}))
	if commits := waitFor(t, s, 1); err != nil || commits[0].Head != heads[0] || commits[0].Tx != nil {
		t.Errorf("%+v, %v: %+v", heads, err, commits[0])
	}
}

func testTxConflict(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	heads := appendN(t, s, "a2", 3)
	for i, writes := range [][]jetstream.Write{
		{write("a1", "", jetstream.Head{}), write("a2", "", heads[0])},
		{write("a2", "", heads[1]), write("a1", "", jetstream.Head{})},
		{write("a1", "", jetstream.Head{}), write("a2", "", jetstream.Head{}), write("a3", "", jetstream.Head{})},
	} {
		_, err := s.AppendAll(t.Context(), writes...)
		var conflict *jetstream.ConflictError
		if !errors.As(err, &conflict) || conflict.ID != "a2" || conflict.Actual <= conflict.Expected || conflict.Actual > heads[2].Sequence {
			t.Errorf("%d: %+v, %v", i, conflict, err)
		}
	}
	waitFor(t, s, 0)
	if commits := scan(t, s); len(commits) != 3 {
		t.Errorf("%d commits are stored", len(commits))
	}
}

func testTxExpectations(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	appendN(t, s, "a1", 2)
	heads, err := s.AppendAll(t.Context(),
		expecting("a1", jetstream.AtVersion(2)), expecting("a2", jetstream.NoStream()), expecting("a3", jetstream.Any()))
	if err != nil || heads[0].Version != 3 || heads[1].Version != 1 || heads[2].Version != 1 {
		t.Fatalf("%+v, %v", heads, err)
	}
	_, err = s.AppendAll(t.Context(), expecting("a1", jetstream.Any()), expecting("a2", jetstream.NoStream()))
	if conflict := (*jetstream.ConflictError)(nil); !errors.As(err, &conflict) || conflict.ID != "a2" || conflict.Version != 1 {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 3)
}

func testTxRefusedInput(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	many := make([]jetstream.Write, jetstream.MaxTransaction+1)
	for i := range many {
		many[i] = write(fmt.Sprint("a", i), "", jetstream.Head{})
	}
	heavy := make([]jetstream.Write, 20)
	for i := range heavy {
		heavy[i] = write(fmt.Sprint("a", i), "", jetstream.Head{})
		heavy[i].Decisions[0].Events[0].Data = make([]byte, 900<<10)
	}
	for name, c := range map[string]struct {
		writes []jetstream.Write
		field  string
	}{
		"none":      {nil, "transaction"},
		"too many":  {many, "transaction"},
		"too heavy": {heavy, "transaction"},
		"twice":     {[]jetstream.Write{write("a1", "", jetstream.Head{}), write("a1", "", jetstream.Head{})}, "aggregate id"},
		"no decision": {
			[]jetstream.Write{write("a1", "", jetstream.Head{}), {Type: "account", ID: "a2"}}, "decisions",
		},
		"bad id": {[]jetstream.Write{write("a1", "", jetstream.Head{}), write("a 2", "", jetstream.Head{})}, "aggregate id"},
	} {
		_, err := s.AppendAll(t.Context(), c.writes...)
		if bad := (*jetstream.InvalidError)(nil); !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}
	if n := len(scan(t, s)); n != 0 {
		t.Errorf("%d commits are stored", n)
	}
}

func testTxTooLarge(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	large := write("a2", "", jetstream.Head{})
	large.Decisions[0].Events[0].Data = make([]byte, s.Conn().MaxPayload())
	_, err := s.AppendAll(t.Context(), write("a1", "", jetstream.Head{}), large)
	if refused := (*jetstream.RefusedError)(nil); !errors.As(err, &refused) || refused.ID != "a2" || !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)
	// A state is given up, the events are not.
	w := write("a2", "", jetstream.Head{})
	w.State = &jetstream.State{Fingerprint: "f", Data: make([]byte, s.Conn().MaxPayload())}
	if _, err := s.AppendAll(t.Context(), write("a1", "", jetstream.Head{}), w); err != nil {
		t.Error(err)
	}
	last, err := s.Last(t.Context(), "account", "a2", jetstream.Leader)
	if err != nil || last.State != nil || last.Events() != 1 || w.State == nil {
		t.Errorf("%+v, %v", last, err)
	}
}

// testTxLimitOfTheStream: the server says that the batch is incomplete, and only
// when asked about each message that one is too large.
func testTxLimitOfTheStream(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	limit(t, s, 2000)
	large := write("a1", "", jetstream.Head{})
	large.Decisions[0].Events[0].Data = make([]byte, 3000)
	for _, writes := range [][]jetstream.Write{{large, write("a2", "", jetstream.Head{})}, {write("a2", "", jetstream.Head{}), large}} {
		err := told(t, func(ctx context.Context) error { return second(s.AppendAll(ctx, writes...)) })
		if !is[*jetstream.RefusedError](err) || !strings.Contains(err.Error(), "10054") {
			t.Errorf("%T %v", err, err)
		}
	}
	w := write("a1", "", jetstream.Head{})
	w.State = &jetstream.State{Fingerprint: "f", Data: make([]byte, 3000)}
	err := told(t, func(ctx context.Context) error { return second(s.AppendAll(ctx, w, write("a2", "", jetstream.Head{}))) })
	if err != nil {
		t.Error(err)
	}
	waitFor(t, s, 1)
}

func testTxOfManyMessages(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	writes := make([]jetstream.Write, jetstream.MaxTransaction)
	for i := range writes {
		writes[i] = write(fmt.Sprint("a", i), "", jetstream.Head{})
		writes[i].Decisions[0].Events[0].Data = make([]byte, 15<<10) // near the limit of bytes, together
	}
	heads, err := s.AppendAll(t.Context(), writes...)
	if err != nil || len(heads) != len(writes) || heads[len(heads)-1].Sequence-heads[0].Sequence != jetstream.MaxTransaction-1 {
		t.Fatalf("%d heads, %v", len(heads), err)
	}
	// The same again conflicts, and says so.
	if _, err := s.AppendAll(t.Context(), writes...); !is[*jetstream.ConflictError](err) {
		t.Errorf("%T %v", err, err)
	}
	if n := checkTransactions(t, s); n != 1 {
		t.Errorf("%d transactions", n)
	}
}

// testTxManyAtOnce: more at once than a server takes; none fails.
func testTxManyAtOnce(t *testing.T, e env) {
	t.Helper()
	const writers = 150 // a server takes 50
	name := e.store(t, e.connect(t)).Name()
	nc := e.connect(t)
	var wg sync.WaitGroup
	for i := range writers {
		s := open(t, nc, jetstream.Config{Name: name}) // as so many programs
		wg.Go(func() {
			_, err := s.AppendAll(t.Context(),
				write(fmt.Sprint("a", i), "", jetstream.Head{}), write(fmt.Sprint("b", i), "", jetstream.Head{}))
			if err != nil {
				t.Error(i, err)
			}
		})
	}
	wg.Wait()
	if n := checkTransactions(t, open(t, nc, jetstream.Config{Name: name})); n != writers {
		t.Errorf("%d transactions", n)
	}
}

// testTxAgainstEachOther moves units between aggregates: none is lost or made, and
// a loser is told of the aggregate that another came to first.
func testTxAgainstEachOther(t *testing.T, e env) {
	t.Helper()
	const writers, each = 6, 8
	s := e.store(t, e.connect(t))
	ids := []string{"a1", "a2", "a3"}
	var wg sync.WaitGroup
	for w := range writers {
		mine := open(t, e.connect(t), jetstream.Config{Name: s.Name()})
		wg.Go(func() {
			for i := range each {
				from, to := ids[(w+i)%3], ids[(w+i+1)%3]
				for {
					writes := make([]jetstream.Write, 0, 2)
					for _, id := range []string{from, to} {
						last, err := mine.Last(t.Context(), "account", id, jetstream.Leader)
						if err != nil && !errors.Is(err, jetstream.ErrNotFound) {
							t.Error(err)
							return
						}
						var head jetstream.Head
						if last != nil {
							head = last.Head
						}
						writes = append(writes, write(id, fmt.Sprint(w, "-", i), head))
					}
					_, err := mine.AppendAll(t.Context(), writes...)
					if err == nil {
						break
					}
					var conflict *jetstream.ConflictError
					if !errors.As(err, &conflict) || conflict.ID != from && conflict.ID != to || conflict.Actual <= conflict.Expected {
						t.Errorf("%T %v", err, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if n := checkTransactions(t, s); n != writers*each {
		t.Errorf("%d transactions", n)
	}
	total := 0
	for _, id := range ids {
		commits, err := history(t.Context(), s, id, jetstream.Range{})
		if err != nil {
			t.Error(err)
		}
		total += len(commits)
	}
	if total != 2*writers*each {
		t.Errorf("%d commits", total)
	}
}

// startedAll appends a transaction of a1 and b1 in the background.
func startedAll(ctx context.Context, s *jetstream.Store, a1, b1 jetstream.Head) <-chan func() ([]jetstream.Head, error) {
	done := make(chan func() ([]jetstream.Head, error), 1)
	go func() {
		h, err := s.AppendAll(ctx, write("a1", "tx", a1), write("b1", "tx", b1))
		done <- func() ([]jetstream.Head, error) { return h, err }
	}()
	return done
}

func testTxLostAcknowledgement(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	heads := make([]jetstream.Head, 2)
	for round := range 3 {
		p.loseReplies.Store(true)
		done := startedAll(t.Context(), through, heads[0], heads[1])
		waitFor(t, s, round+1)
		p.heal()
		next, err := (<-done)()
		if err != nil {
			t.Fatal(err)
		}
		if commits := waitFor(t, s, round+1); commits[round].Head != next[0] {
			t.Errorf("stored %+v, acknowledged %+v", commits[round].Head, next)
		}
		heads = next
	}
	if n := checkTransactions(t, s); n != 3 {
		t.Errorf("%d transactions", n)
	}
}

func testTxLostRequest(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	p.loseRequests.Store(true)
	done := startedAll(t.Context(), through, jetstream.Head{}, jetstream.Head{})
	p.awaitLoss(t)
	p.heal()
	if _, err := (<-done)(); err != nil {
		t.Error(err)
	}
	if n := checkTransactions(t, s); n != 1 || len(scan(t, s)) != 2 {
		t.Errorf("%d transactions", n)
	}
}

func testTxOvertakenWhileOpen(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	p.loseRequests.Store(true)
	done := startedAll(t.Context(), through, jetstream.Head{}, jetstream.Head{})
	p.awaitLoss(t)
	first, err := s.Append(t.Context(), write("b1", "first", jetstream.Head{}))
	if err != nil {
		t.Fatal(err)
	}
	p.heal()
	_, err = (<-done)()
	if conflict := (*jetstream.ConflictError)(nil); !errors.As(err, &conflict) || conflict.ID != "b1" || conflict.Actual != first.Sequence {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)
}

// testTxUnknown: a transaction that gave up is settled, or abandoned, whole.
func testTxUnknown(t *testing.T, e env) {
	t.Helper()
	for _, stored := range []bool{true, false} {
		for _, abandon := range []bool{true, false} {
			s := e.store(t, e.connect(t))
			p, through := e.proxied(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			p.loseReplies.Store(stored)
			p.loseRequests.Store(!stored)
			done := startedAll(ctx, through, jetstream.Head{}, jetstream.Head{})
			if stored {
				waitFor(t, s, 1)
			} else {
				p.awaitLoss(t)
			}
			cancel()
			_, err := (<-done)()
			var u *jetstream.UnknownError
			if !errors.As(err, &u) || u.ID != "a1" {
				t.Fatalf("%T %v", err, err)
			}
			p.heal()
			decide := through.Settle
			if abandon {
				decide = s.Abandon
			}
			heads, err := decide(t.Context(), u)
			commits := scan(t, s)
			switch {
			case !stored && abandon:
				if !is[*jetstream.ConflictError](err) || len(commits) != 1 || commits[0].Events() != 0 || commits[0].Tx != nil {
					t.Errorf("%T %v, %d commits", err, err, len(commits))
				}
			case err != nil || len(heads) != 2 || len(commits) != 2 || commits[0].Head != heads[0] || commits[1].Head != heads[1]:
				t.Errorf("%+v, %v, %d commits", heads, err, len(commits))
			}
			checkTransactions(t, s)
		}
	}
}

func testTxAway(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	p.down.Store(true)
	p.cut()
	natstest.Eventually(t, "the client", func() error {
		if !through.Conn().IsReconnecting() {
			return errors.New("has not noticed")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := startedAll(ctx, through, jetstream.Head{}, jetstream.Head{})
	cancel()
	if _, err := (<-done)(); !errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, jetstream.ErrUnknownOutcome) {
		t.Errorf("%T %v", err, err)
	}
	p.heal()
	if _, err := through.Append(t.Context(), write("a2", "back", jetstream.Head{})); err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, 0)
}

func testTxWentBack(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	head := appendN(t, s, "a1", 2)[1]
	ahead := jetstream.Head{Sequence: head.Sequence + 100, CommitID: jetstream.NewID(), Ordinal: 3, Version: 3}
	err := told(t, func(ctx context.Context) error {
		return second(s.AppendAll(ctx, write("b1", "", jetstream.Head{}), write("a1", "", ahead)))
	})
	if !errors.Is(err, jetstream.ErrStoreWentBack) || !strings.Contains(err.Error(), "a1") {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 2)
}
