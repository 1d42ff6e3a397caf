package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// env is where the suite of appends runs.
type env struct {
	replicas int
	// connect gives a connection to any server, backend is the address of one.
	connect func(t testing.TB) *nats.Conn
	backend string
	// at gives a connection to the i-th server counted from the stream's leader.
	// Each server answers direct gets itself, and the others lag.
	at func(t testing.TB, stream string, i int) *nats.Conn
	// stepDown makes a stream's leader resign; nil where there is nobody else.
	stepDown func(t testing.TB, stream string)
	cluster  *natstest.Cluster // nil on one server
}

// store opens a new store with short attempts.
func (e env) store(t testing.TB, nc *nats.Conn) *jetstream.Store {
	t.Helper()
	return open(t, nc, jetstream.Config{Name: natstest.Name(t), Replicas: e.replicas, AttemptTimeout: 500 * time.Millisecond})
}

// patient opens a new store whose attempts do not run out on a busy machine.
func (e env) patient(t testing.TB) *jetstream.Store {
	t.Helper()
	return open(t, e.connect(t), jetstream.Config{Name: natstest.Name(t), Replicas: e.replicas, AttemptTimeout: longAttempt})
}

// proxied opens the store again through a proxy.
func (e env) proxied(t *testing.T, s *jetstream.Store) (*proxy, *jetstream.Store) {
	t.Helper()
	p := newProxy(t, e.backend)
	nc := natstest.Conn(t, p.url(), nats.IgnoreDiscoveredServers())
	return p, open(t, nc, jetstream.Config{Name: s.Name(), AttemptTimeout: 500 * time.Millisecond})
}

// r1 is one server, r3 are three.
func r1(t *testing.T) env {
	t.Helper()
	srv := natstest.Run(t)
	return env{
		replicas: 1, backend: srv.URL(),
		connect: func(t testing.TB) *nats.Conn { t.Helper(); return natstest.Conn(t, srv.URL()) },
		at:      func(t testing.TB, _ string, _ int) *nats.Conn { t.Helper(); return natstest.Conn(t, srv.URL()) },
	}
}

func r3(t *testing.T) env {
	t.Helper()
	c := natstest.RunCluster(t)
	return env{
		replicas: 3, backend: c.URLs()[0], cluster: c,
		connect:  func(t testing.TB) *nats.Conn { t.Helper(); return c.Conn(t) },
		stepDown: c.StepDown,
		at: func(t testing.TB, stream string, i int) *nats.Conn {
			t.Helper()
			return natstest.Conn(t, c.URLs()[(c.Leader(t, stream)+i)%len(c.URLs())], nats.IgnoreDiscoveredServers())
		},
	}
}

func TestAppendR1(t *testing.T) {
	t.Parallel()
	runSuite(t, r1(t), appendSuite(), expectSuite(), settleSuite(), txSuite(), keySuite(), acceptSuite())
}

func TestAppendR3(t *testing.T) {
	t.Parallel()
	runSuite(t, r3(t), appendSuite(), expectSuite(), settleSuite(), txSuite(), keySuite(), acceptSuite())
}

// suite are tests by name, run on one server and on three alike.
type suite map[string]func(*testing.T, env)

func runSuite(t *testing.T, e env, suites ...suite) {
	t.Helper()
	for _, s := range suites {
		for name, test := range s {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, e)
			})
		}
	}
}

// appendSuite are the promises of Append.
func appendSuite() suite {
	return suite{
		"Conflict":                 testConflict,
		"OneOfManyCreates":         testOneOfManyCreates,
		"WritersLoseNothing":       testWritersLoseNothing,
		"ManyWritersOneAggregate":  testManyWritersOneAggregate,
		"ManyWritersAThousand":     testManyWritersAThousand,
		"StepDowns":                testStepDowns,
		"LostAcknowledgement":      testLostAcknowledgement,
		"LostRequest":              testLostRequest,
		"OvertakenWhileOpen":       testOvertakenWhileOpen,
		"ContextEndsUndecided":     testContextEndsUndecided,
		"Away":                     testAway,
		"NeverSent":                testNeverSent,
		"TooLarge":                 testTooLarge,
		"StateIsGivenUp":           testStateIsGivenUp,
		"WentBack":                 testWentBack,
		"StoredAsWritten":          testStoredAsWritten,
		"ReadsReachWhatWasWritten": testReadsReachWhatWasWritten,
	}
}

func testConflict(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	heads := appendN(t, s, "a1", 3)
	for i, after := range []jetstream.Head{{}, heads[0], heads[1]} {
		_, err := s.Append(t.Context(), write("a1", "late", after))
		var conflict *jetstream.ConflictError
		if !errors.As(err, &conflict) || conflict.Expected != after.Sequence || conflict.Actual <= after.Sequence ||
			conflict.Actual > heads[2].Sequence || conflict.Type != "account" || conflict.ID != "a1" {
			t.Errorf("%d: %+v, %v", i, conflict, err)
		}
	}
	commits, err := history(t.Context(), s, "a1", jetstream.Range{})
	if err != nil || len(commits) != 3 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

func testOneOfManyCreates(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	for round := range 5 {
		id := fmt.Sprint("a", round)
		errs := make(chan error, 8)
		for range cap(errs) {
			go func() {
				_, err := s.Append(t.Context(), write(id, "", jetstream.Head{}))
				errs <- err
			}()
		}
		stored := 0
		for range cap(errs) {
			switch err := <-errs; {
			case err == nil:
				stored++
			case !is[*jetstream.ConflictError](err):
				t.Error(err)
			}
		}
		commits, err := history(t.Context(), s, id, jetstream.Range{})
		if stored != 1 || err != nil || len(commits) != 1 {
			t.Errorf("%d stored, %d there, %v", stored, len(commits), err)
		}
	}
}

// appendLoop appends n commits however often another comes first, and returns
// their ids by sequence.
func appendLoop(ctx context.Context, s *jetstream.Store, id string, n int, done func()) (map[uint64]string, error) {
	acked := make(map[uint64]string, n)
	var head jetstream.Head
	for len(acked) < n {
		next, err := s.Append(ctx, write(id, jetstream.NewCommandID(), head))
		switch {
		case err == nil:
			head = next
			acked[head.Sequence] = head.CommitID
			if done != nil {
				done()
			}
			continue
		case !is[*jetstream.ConflictError](err):
			return acked, err
		}
		last, err := s.Last(ctx, "account", id, jetstream.Leader)
		if err != nil {
			return acked, err
		}
		head = last.Head
	}
	return acked, nil
}

// checkAcked compares the acknowledged commits with what is stored: exactly they,
// each once, in one chain.
func checkAcked(t *testing.T, s *jetstream.Store, id string, acked map[uint64]string) {
	t.Helper()
	commits, err := history(t.Context(), s, id, jetstream.Range{})
	if err != nil {
		t.Errorf("%s: %v", id, err)
	}
	if len(commits) != len(acked) {
		t.Errorf("%s: %d commits are stored, %d were acknowledged", id, len(commits), len(acked))
	}
	for i, c := range commits {
		if acked[c.Sequence] != c.CommitID {
			t.Errorf("%s: at %d stands %s, %q was acknowledged", id, c.Sequence, c.CommitID, acked[c.Sequence])
		}
		if c.Ordinal != uint64(i+1) || c.Version != uint64(i+1) {
			t.Errorf("%s: ordinal %d, version %d of commit %d", id, c.Ordinal, c.Version, i+1)
		}
	}
}

func testWritersLoseNothing(t *testing.T, e env) {
	t.Helper()
	const writers, each = 4, 25
	name := e.store(t, e.connect(t)).Name()
	all := map[uint64]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range writers {
		nc := e.connect(t)
		s := open(t, nc, jetstream.Config{Name: name})
		wg.Go(func() {
			acked, err := appendLoop(t.Context(), s, "hot", each, nil)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for seq, id := range acked {
				if other, twice := all[seq]; twice {
					t.Errorf("%d was acknowledged for %s and for %s", seq, other, id)
				}
				all[seq] = id
			}
		})
	}
	wg.Wait()
	if len(all) != writers*each {
		t.Errorf("%d acknowledged", len(all))
	}
	checkAcked(t, open(t, e.connect(t), jetstream.Config{Name: name}), "hot", all)
}

// counting appends, n times, a commit whose correlation is one more than the
// version it was decided on; what it is told when it loses is checked.
func counting(t *testing.T, s *jetstream.Store, n int, next func() string) {
	t.Helper()
	for range n {
		id := next()
		for {
			var head jetstream.Head
			last, err := s.Last(t.Context(), "account", id, jetstream.Leader)
			if err == nil {
				head = last.Head
			} else if !errors.Is(err, jetstream.ErrNotFound) {
				t.Error(err)
				return
			}
			w := write(id, "", head)
			w.Decisions[0].Correlation = strconv.FormatUint(head.Version+1, 10)
			if _, err = s.Append(t.Context(), w); err == nil {
				break
			}
			var conflict *jetstream.ConflictError
			if !errors.As(err, &conflict) || conflict.Expected != head.Sequence || conflict.Actual <= head.Sequence || conflict.ID != id {
				t.Errorf("after %d: %T %v", head.Sequence, err, err)
				return
			}
		}
	}
}

// checkCounted finds every commit decided on the version before it, and counts.
func checkCounted(t *testing.T, s *jetstream.Store, ids map[string]bool) int {
	t.Helper()
	n := 0
	for id := range ids {
		commits, err := history(t.Context(), s, id, jetstream.Range{})
		if err != nil {
			t.Error(err)
		}
		for i, c := range commits {
			if c.Version != uint64(i+1) || c.Decisions[0].Correlation != strconv.Itoa(i+1) {
				t.Errorf("%s: version %d is the %d. and was decided on that before %s", id, c.Version, i+1, c.Decisions[0].Correlation)
			}
		}
		n += len(commits)
	}
	return n
}

const manyWriters = 64

func testManyWritersOneAggregate(t *testing.T, e env) {
	t.Helper()
	each := unlessShort(6, 2)
	name := e.store(t, e.connect(t)).Name()
	var wg sync.WaitGroup
	for range manyWriters {
		s := open(t, e.connect(t), jetstream.Config{Name: name})
		wg.Go(func() { counting(t, s, each, func() string { return "hot" }) })
	}
	wg.Wait()
	s := open(t, e.connect(t), jetstream.Config{Name: name})
	if n := checkCounted(t, s, map[string]bool{"hot": true}); n != manyWriters*each {
		t.Errorf("%d commits", n)
	}
}

func testManyWritersAThousand(t *testing.T, e env) {
	t.Helper()
	const aggregates = 1000
	each := size(40)
	name := e.store(t, e.connect(t)).Name()
	ids := map[string]bool{}
	for i := range aggregates {
		ids[fmt.Sprint("a", i)] = true
	}
	var wg sync.WaitGroup
	for range manyWriters {
		s := open(t, e.connect(t), jetstream.Config{Name: name})
		wg.Go(func() { counting(t, s, each, func() string { return fmt.Sprint("a", rand.N(aggregates)) }) })
	}
	wg.Wait()
	s := open(t, e.connect(t), jetstream.Config{Name: name})
	if n := checkCounted(t, s, ids); n != manyWriters*each {
		t.Errorf("%d commits", n)
	}
}

func testStepDowns(t *testing.T, e env) {
	t.Helper()
	const each, every = 80, 60
	s := e.store(t, e.connect(t))
	// Two writers share an aggregate, two have their own.
	ids := []string{"shared", "shared", "own1", "own2"}
	acked := map[string]map[uint64]string{"shared": {}, "own1": {}, "own2": {}}
	progress := make(chan struct{}, len(ids)*each)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range ids {
		mine := open(t, e.connect(t), jetstream.Config{Name: s.Name(), AttemptTimeout: time.Second})
		wg.Go(func() {
			got, err := appendLoop(t.Context(), mine, id, each, func() { progress <- struct{}{} })
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(acked[id], got)
		})
	}
	go func() {
		wg.Wait()
		close(progress)
	}()
	n := 0
	for range progress {
		if n++; n%every == 0 && e.stepDown != nil {
			e.stepDown(t, s.Name())
		}
	}
	if n != len(ids)*each {
		t.Errorf("%d appends", n)
	}
	for id, want := range acked {
		checkAcked(t, s, id, want)
	}
}

// started appends in the background.
func started(ctx context.Context, s *jetstream.Store, w jetstream.Write) <-chan func() (jetstream.Head, error) {
	done := make(chan func() (jetstream.Head, error), 1)
	go func() {
		h, err := s.Append(ctx, w)
		done <- func() (jetstream.Head, error) { return h, err }
	}()
	return done
}

// waitFor waits until the aggregate a1 has n commits, read past the proxy.
func waitFor(t *testing.T, s *jetstream.Store, n int) []*jetstream.Commit {
	t.Helper()
	var commits []*jetstream.Commit
	natstest.Eventually(t, "commits", func() error {
		var err error
		commits, err = history(t.Context(), s, "a1", jetstream.Range{})
		if err == nil && len(commits) != n {
			err = fmt.Errorf("%d of %d commits", len(commits), n)
		}
		return err
	})
	return commits
}

func testLostAcknowledgement(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	var head jetstream.Head
	for round := range 3 {
		p.loseReplies.Store(true)
		done := started(t.Context(), through, write("a1", "lost", head))
		waitFor(t, s, round+1)
		p.heal()
		next, err := (<-done)()
		if err != nil {
			t.Fatal(err)
		}
		commits := waitFor(t, s, round+1)
		if last := commits[round]; last.Head != next {
			t.Errorf("stored %+v, acknowledged %+v", last.Head, next)
		}
		head = next
	}
	if _, err := through.Append(t.Context(), write("a1", "after", head)); err != nil {
		t.Error(err)
	}
	waitFor(t, s, 4)
}

func testLostRequest(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	p.loseRequests.Store(true)
	done := started(t.Context(), through, write("a1", "lost", jetstream.Head{}))
	p.awaitLoss(t)
	p.heal()
	if _, err := (<-done)(); err != nil {
		t.Error(err)
	}
	waitFor(t, s, 1)
}

func testOvertakenWhileOpen(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	head := appendN(t, s, "a1", 1)[0]
	p.loseRequests.Store(true)
	done := started(t.Context(), through, write("a1", "lost", head))
	p.awaitLoss(t)
	next, err := s.Append(t.Context(), write("a1", "first", head))
	if err != nil {
		t.Fatal(err)
	}
	p.heal()
	_, err = (<-done)()
	var conflict *jetstream.ConflictError
	if !errors.As(err, &conflict) || conflict.Actual != next.Sequence || conflict.Expected != head.Sequence {
		t.Errorf("%+v, %v", conflict, err)
	}
	if commits := waitFor(t, s, 2); commits[1].Decisions[0].CommandID != "first" {
		t.Errorf("%+v", commits[1])
	}
}

func testContextEndsUndecided(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	p, through := e.proxied(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.loseReplies.Store(true)
	done := started(ctx, through, write("a1", "lost", jetstream.Head{}))
	commits := waitFor(t, s, 1)
	cancel()
	_, err := (<-done)()
	var unknown *jetstream.UnknownError
	if !errors.As(err, &unknown) || !errors.Is(err, jetstream.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) ||
		errors.Is(err, jetstream.ErrUnavailable) {
		t.Fatalf("%T %v", err, err)
	}
	if unknown.CommitID != commits[0].CommitID || unknown.Type != "account" || unknown.ID != "a1" {
		t.Errorf("%+v, stored is %+v", unknown, commits[0].Head)
	}
}

func testAway(t *testing.T, e env) {
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
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := through.Append(ctx, write("a1", "away", jetstream.Head{}))
	if !errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, jetstream.ErrUnknownOutcome) {
		t.Errorf("%T %v", err, err)
	}
	p.heal()
	// Whatever the client had kept would be sent before this commit.
	if _, err := through.Append(t.Context(), write("a2", "back", jetstream.Head{})); err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, 0)
}

func testNeverSent(t *testing.T, e env) {
	t.Helper()
	s := e.store(t, e.connect(t))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ended, write("a1", "", jetstream.Head{})); !errors.Is(err, jetstream.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %T %v", err, err)
	}
	nc := e.connect(t)
	closed := open(t, nc, jetstream.Config{Name: s.Name()})
	nc.Close()
	if _, err := closed.Append(t.Context(), write("a1", "", jetstream.Head{})); !errors.Is(err, jetstream.ErrUnavailable) ||
		!errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("closed connection: %T %v", err, err)
	}
	if _, err := s.Append(t.Context(), jetstream.Write{Type: "account", ID: "a1"}); !is[*jetstream.InvalidError](err) {
		t.Errorf("no decisions: %T %v", err, err)
	}
	waitFor(t, s, 0)
}

func testTooLarge(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	w := write("a1", "large", jetstream.Head{})
	w.Decisions[0].Events[0].Data = make([]byte, s.Conn().MaxPayload())
	if _, err := s.Append(t.Context(), w); !is[*jetstream.RefusedError](err) || !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("%T %v", err, err)
	}
	limit(t, s, 2000)
	w.Decisions[0].Events[0].Data = make([]byte, 3000)
	err := told(t, func(ctx context.Context) error { return second(s.Append(ctx, w)) })
	if !is[*jetstream.RefusedError](err) || !strings.Contains(err.Error(), "10054") {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)
}

// limit sets the stream's own bound of messages.
func limit(t *testing.T, s *jetstream.Store, bytes int32) {
	t.Helper()
	edit(t, s.Conn(), s.Name(), func(c *natsjs.StreamConfig) { c.MaxMsgSize = bytes })
}

func testStateIsGivenUp(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	w := write("a1", "", jetstream.Head{})
	state := func(n int) *jetstream.State {
		return &jetstream.State{Fingerprint: "f", Data: make([]byte, n)}
	}
	for i, c := range []struct {
		limit int32
		state int
		kept  bool
	}{
		{-1, 1000, true},
		{-1, int(s.Conn().MaxPayload()), false},
		{2000, 3000, false},
		{2000, 1000, true},
	} {
		limit(t, s, c.limit)
		w.State = state(c.state)
		var head jetstream.Head
		err := told(t, func(ctx context.Context) (err error) {
			head, err = s.Append(ctx, w)
			return err
		})
		if err != nil {
			t.Fatal(i, err)
		}
		last, err := s.Last(t.Context(), "account", "a1", jetstream.Leader)
		if err != nil || last.Head != head || (last.State != nil) != c.kept || last.Events() != 1 {
			t.Errorf("%d: %+v, %v", i, last, err)
		}
		if w.State == nil {
			t.Errorf("%d: the caller's write was changed", i)
		}
		w.After = head
	}
}

// testWentBack: history cannot be taken back here, so the writer knows a commit
// that the store never had.
func testWentBack(t *testing.T, e env) {
	t.Helper()
	s := e.patient(t)
	head := appendN(t, s, "a1", 2)[1]
	ahead := jetstream.Head{Sequence: head.Sequence + 100, CommitID: jetstream.NewID(), Ordinal: 3, Version: 3}
	for _, id := range []string{"a1", "never"} {
		err := told(t, func(ctx context.Context) error { return second(s.Append(ctx, write(id, "", ahead))) })
		if !errors.Is(err, jetstream.ErrStoreWentBack) {
			t.Errorf("%s: %T %v", id, err, err)
		}
	}
	waitFor(t, s, 2)
}

func testStoredAsWritten(t *testing.T, e env) {
	t.Helper()
	nc := e.connect(t)
	for _, cdc := range []jetstream.Codec{jetstream.Msgpack, jetstream.JSON} {
		s := open(t, nc, jetstream.Config{Name: natstest.Name(t), Replicas: e.replicas, Codec: cdc})
		schema := jetstream.NewSchema("account", jetstream.Event[fee]("charged"))
		ev, err := schema.Encode(fee{7}, s.Codec())
		if err != nil {
			t.Fatal(err)
		}
		w := jetstream.Write{
			Type: "account", ID: "a1", TraceParent: trace,
			Origin:    &jetstream.Origin{Store: "k3q5x7wzabcde", Sequence: 9, Time: decidedAt},
			State:     &jetstream.State{Fingerprint: "f", Codec: cdc, Data: ev.Data},
			Decisions: []jetstream.Decision{command("c", ev, ev), goldens()["trigger-rejected"].commit.Decisions[0]},
		}
		head, err := s.Append(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []jetstream.Source{jetstream.Leader, jetstream.Replica} {
			var c *jetstream.Commit
			natstest.Eventually(t, "the commit", func() (err error) {
				c, err = s.Last(t.Context(), "account", "a1", from)
				return err
			})
			if c.Head != head || c.Ordinal != 1 || c.Version != 2 || c.TraceParent != trace || *c.Origin != *w.Origin || c.Time.IsZero() ||
				c.State == nil || string(c.State.Data) != string(ev.Data) || len(c.Decisions) != 2 || c.Decisions[1].Code != "insufficient-funds" {
				t.Errorf("%v: %+v", cdc, c)
			}
			dec, err := jetstream.NewDecoder(jetstream.StopOnUnknown, schema)
			if err != nil {
				t.Fatal(err)
			}
			events, err := dec.Events(s, c)
			if err != nil || len(events) != 2 || events[1].Event != (fee{7}) || events[1].Version != 2 {
				t.Errorf("%v: %+v, %v", cdc, events, err)
			}
		}
	}
}

// testReadsReachWhatWasWritten reads from the servers that may not have it yet.
// How old their answers are is up to them: TestReadsOfLaggingReplicas decides it.
func testReadsReachWhatWasWritten(t *testing.T, e env) {
	t.Helper()
	rounds := size(500)
	s := e.store(t, e.connect(t))
	s = open(t, e.at(t, s.Name(), 0), jetstream.Config{Name: s.Name()})
	var readers [2]*jetstream.Store
	for i := range readers {
		readers[i] = open(t, e.at(t, s.Name(), i+1), jetstream.Config{Name: s.Name()})
	}
	heads := make([]jetstream.Head, 0, rounds)
	var head jetstream.Head
	for i := range rounds {
		var err error
		if head, err = s.Append(t.Context(), write("a1", "", head)); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
		first := max(0, i-4)
		r := jetstream.Range{To: head.Sequence}
		if first > 0 {
			r.After = heads[first-1].Sequence
		}
		lagging := readers[i%2]
		commits, err := history(t.Context(), lagging, "a1", r)
		if err != nil || len(commits) != i-first+1 || commits[len(commits)-1].Head != head {
			t.Fatalf("round %d: %d commits, %v", i, len(commits), err)
		}
	}
	commits, err := history(t.Context(), readers[0], "a1", jetstream.Range{})
	if err != nil || len(commits) != rounds {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	for number, want := range map[int]bool{10008: true, 10009: true, 10023: true, 10167: true, 10054: false, 10060: false, 10071: false, 10109: false, 0: false} {
		if jetstream.Transient(number) != want {
			t.Errorf("%d: %v", number, !want)
		}
	}
}

// TestDeniedAppendTellsOfThePermission: a client hears of it beside its requests,
// so the outcome counts as unknown; the error says why.
func TestDeniedAppendTellsOfThePermission(t *testing.T) {
	t.Parallel()
	s, url := deniedStore(t)
	// The append ends when the client has heard of it.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	nc := natstest.Conn(t, url, nats.UserInfo("reader", "reader"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { cancel() }))
	attached, err := jetstream.Attach(t.Context(), nc, s.Name())
	if err != nil {
		t.Fatal(err)
	}
	_, err = attached.Append(ctx, write("a1", "", jetstream.Head{}))
	if !errors.Is(err, jetstream.ErrUnknownOutcome) || !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 0)
}

// TestOpenAttemptIsNoConflict: the second attempt fails because the first one is
// stored. Whoever cannot look cannot tell, and must not call it a conflict.
func TestOpenAttemptIsNoConflict(t *testing.T) {
	t.Parallel()
	s, url := deniedStore(t)
	p := newProxy(t, url)
	blind := s.WithConn(natstest.Conn(t, p.url(), nats.UserInfo("blind", "blind")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.loseReplies.Store(true)
	done := started(ctx, blind, write("a1", "", jetstream.Head{}))
	waitFor(t, s, 1)
	answers := blind.Conn().Stats().InMsgs
	p.heal()
	natstest.Eventually(t, "answers to later attempts", func() error {
		if n := blind.Conn().Stats().InMsgs; n < answers+2 {
			return fmt.Errorf("%d", n-answers)
		}
		return nil
	})
	cancel()
	if _, err := (<-done)(); !errors.Is(err, jetstream.ErrUnknownOutcome) {
		t.Errorf("%T %v", err, err)
	}
	waitFor(t, s, 1)
}
