package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// deniedStore is a store on a server that lets "reader" publish no events, and
// "blind" read none.
func deniedStore(t *testing.T) (*jetstream.Store, string) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		AuthTimeout: natstest.Patience.Seconds(),
		Users: []*server.User{
			{Username: "writer", Password: "writer"},
			{Username: "blind", Password: "blind", Permissions: &server.Permissions{Publish: &server.SubjectPermission{
				Deny: []string{"$JS.API.DIRECT.GET.>", "$JS.API.STREAM.MSG.GET.>"},
			}}},
			{Username: "reader", Password: "reader", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"$JS.API.>"}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("not ready")
	}
	nc := natstest.Conn(t, srv.ClientURL(), nats.UserInfo("writer", "writer"))
	return open(t, nc, jetstream.Config{Name: natstest.Name(t)}), srv.ClientURL()
}

func newStore(t testing.TB) *jetstream.Store {
	t.Helper()
	return open(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{Name: natstest.Name(t)})
}

func TestHistoryRanges(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	// Another aggregate's commits lie between, so sequences have gaps.
	heads := make([]jetstream.Head, 0, 11)
	var head, other jetstream.Head
	for range 11 {
		var err error
		if head, err = s.Append(t.Context(), write("a1", "", head)); err != nil {
			t.Fatal(err)
		}
		if other, err = s.Append(t.Context(), write("b", "", other)); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
	}
	at := func(i int) uint64 { return heads[i].Sequence }
	for name, c := range map[string]struct {
		r        jetstream.Range
		from, to int
		err      error
	}{
		"all":                            {jetstream.Range{}, 0, 11, nil},
		"all, said":                      {jetstream.Range{To: at(10)}, 0, 11, nil},
		"after":                          {jetstream.Range{After: at(3)}, 4, 11, nil},
		"after, between":                 {jetstream.Range{After: at(3) + 1}, 4, 11, nil},
		"to":                             {jetstream.Range{To: at(4)}, 0, 5, nil},
		"to the first":                   {jetstream.Range{To: at(0)}, 0, 1, nil},
		"both":                           {jetstream.Range{After: at(2), To: at(8)}, 3, 9, nil},
		"nothing":                        {jetstream.Range{After: at(8), To: at(8)}, 0, 0, nil},
		"after the last":                 {jetstream.Range{After: at(10)}, 0, 0, nil},
		"to another's":                   {jetstream.Range{To: at(4) + 1}, 0, 5, jetstream.ErrIncomplete},
		"to what is not there yet":       {jetstream.Range{To: at(10) + 100}, 0, 11, jetstream.ErrIncomplete},
		"after and to what is not there": {jetstream.Range{After: at(9), To: at(10) + 1}, 10, 11, jetstream.ErrIncomplete},
	} {
		commits, err := history(t.Context(), s, "a1", c.r)
		if !errors.Is(err, c.err) || len(commits) != c.to-c.from {
			t.Errorf("%s: %d commits, %v", name, len(commits), err)
			continue
		}
		for i, got := range commits {
			if got.Head != heads[c.from+i] {
				t.Errorf("%s: %+v at %d", name, got.Head, i)
			}
		}
	}
	if commits, err := history(t.Context(), s, "nobody", jetstream.Range{}); len(commits) != 0 || err != nil {
		t.Errorf("nobody: %d commits, %v", len(commits), err)
	}
	if _, err := history(t.Context(), s, "a.b", jetstream.Range{}); !is[*jetstream.InvalidError](err) {
		t.Error(err)
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const n = 600 // More than two pages.
	want := make([]uint64, 0, n)
	var heads [3]jetstream.Head
	for i := range n {
		w := write(fmt.Sprint("a", i%3), "", heads[i%3])
		if i%3 == 2 {
			w.Type = "other"
		}
		head, err := s.Append(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		heads[i%3] = head
		want = append(want, head.Sequence)
	}
	scan := func(typ string, r jetstream.Range) (got []uint64, err error) {
		for c, err := range s.Scan(t.Context(), typ, r) {
			if err != nil {
				return got, err
			}
			if typ != "" && c.Type != typ {
				t.Errorf("type %q", c.Type)
			}
			got = append(got, c.Sequence)
		}
		return got, nil
	}
	if got, err := scan("", jetstream.Range{}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d commits, %v", len(got), err)
	}
	if got, err := scan("other", jetstream.Range{}); err != nil || len(got) != n/3 {
		t.Errorf("%d commits, %v", len(got), err)
	}
	if got, err := scan("", jetstream.Range{After: want[9], To: want[299]}); err != nil || len(got) != 290 || got[0] != want[10] {
		t.Errorf("%d commits, %v", len(got), err)
	}
	if got, err := scan("", jetstream.Range{To: want[n-1] + 1}); !errors.Is(err, jetstream.ErrIncomplete) || len(got) != n {
		t.Errorf("%d commits, %v", len(got), err)
	}
	if got, err := scan("none", jetstream.Range{}); err != nil || len(got) != 0 {
		t.Errorf("%d commits, %v", len(got), err)
	}
	if _, err := scan("No", jetstream.Range{}); !is[*jetstream.InvalidError](err) {
		t.Error(err)
	}
	seq, err := s.LastSequence(t.Context())
	if err != nil || seq != want[n-1] {
		t.Errorf("last sequence %d, %v", seq, err)
	}
	if p, err := s.LastPosition(t.Context()); err != nil || p != s.Position(seq) {
		t.Errorf("last position %v, %v", p, err)
	}
	fresh := open(t, s.Conn(), jetstream.Config{Name: natstest.Name(t)})
	for c, err := range fresh.Scan(t.Context(), "", jetstream.Range{}) {
		t.Errorf("a fresh store has %+v, %v", c, err)
	}
}

func TestLast(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	heads := appendN(t, s, "a1", 3)
	for _, from := range []jetstream.Source{jetstream.Leader, jetstream.Replica} {
		if c, err := s.Last(t.Context(), "account", "a1", from); err != nil || c.Head != heads[2] || c.PreviousSequence != heads[1].Sequence {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := s.Last(t.Context(), "account", "nobody", from); !errors.Is(err, jetstream.ErrNotFound) {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := s.Last(t.Context(), "account", "a.b", from); !is[*jetstream.InvalidError](err) {
			t.Errorf("%+v, %v", c, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := s.Last(ended, "account", "a1", jetstream.Leader); !errors.Is(err, jetstream.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := history(ended, s, "a1", jetstream.Range{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// forge sends a commit past the store, as a faulty writer might.
func forge(t *testing.T, s *jetstream.Store, id string, c jetstream.Commit) {
	t.Helper()
	subject, err := s.Subject("account", id)
	if err != nil {
		t.Fatal(err)
	}
	c.EventNames = []string{"credited"}
	c.Decisions = []jetstream.Decision{command("forged", event("credited", "\xc0"))}
	m, err := jetstream.EncodeCommit(subject, &c, jetstream.Msgpack)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := s.Conn().RequestMsg(m, natstest.Patience)
	if err != nil || strings.Contains(string(reply.Data), "error") {
		t.Fatalf("%v %s", err, reply.Data)
	}
}

func TestBrokenChainsAreFound(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for name, break1 := range map[string]func(*jetstream.Commit){
		"previous": func(c *jetstream.Commit) { c.Previous = "01jn8x9c0000000000000000zz" },
		"ordinal":  func(c *jetstream.Commit) { c.Ordinal++ },
		"version":  func(c *jetstream.Commit) { c.Version++ },
	} {
		heads := appendN(t, s, name, 5)
		c := jetstream.Commit{
			Head:     jetstream.Head{CommitID: jetstream.NewID(), Ordinal: 6, Version: 6},
			Previous: heads[4].CommitID, PreviousSequence: heads[4].Sequence,
		}
		break1(&c)
		forge(t, s, name, c)
		commits, err := history(t.Context(), s, name, jetstream.Range{})
		subject, _ := s.Subject("account", name)
		damaged := func(err error) bool {
			var damage *jetstream.DamageError
			return errors.As(err, &damage) && errors.Is(err, jetstream.ErrDamaged) && damage.Kind == jetstream.DamageChain &&
				damage.Subject == subject && damage.Sequence == heads[4].Sequence+1
		}
		if !damaged(err) || len(commits) != 5 {
			t.Errorf("%s: %d commits, %v", name, len(commits), err)
		}
		if _, err := history(t.Context(), s, name, jetstream.Range{After: heads[3].Sequence}); !damaged(err) {
			t.Errorf("%s, a part: %v", name, err)
		}
		if commits, err := history(t.Context(), s, name, jetstream.Range{Backwards: true}); !damaged(err) || len(commits) != 1 {
			t.Errorf("%s, backwards: %d commits, %v", name, len(commits), err)
		}
		// A whole store is read aggregate by aggregate elsewhere: a scan checks none.
		if c, err := s.Last(t.Context(), "account", name, jetstream.Leader); err != nil || c.Decisions[0].CommandID != "forged" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	forge(t, s, "headless", jetstream.Commit{Head: jetstream.Head{CommitID: jetstream.NewID(), Ordinal: 4, Version: 4}, Previous: "01jn8x9c0000000000000000zz"})
	if commits, err := history(t.Context(), s, "headless", jetstream.Range{}); !errors.Is(err, jetstream.ErrDamaged) || len(commits) != 0 {
		t.Errorf("headless: %d commits, %v", len(commits), err)
	}
	if _, err := s.Conn().Request(s.Name()+".event.account.1.garbage", []byte("x"), natstest.Patience); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range s.Scan(t.Context(), "", jetstream.Range{}) {
		if err != nil {
			if !errors.Is(err, jetstream.ErrFormat) {
				t.Error(err)
			}
			break
		}
		n++
	}
	if n != 3*6+1 {
		t.Errorf("%d commits before the garbage", n)
	}
}

// TestEarlyBreakLeavesNothing runs alone: it counts what runs.
//
//nolint:paralleltest // counts the goroutines of the process
func TestEarlyBreakLeavesNothing(t *testing.T) {
	s := newStore(t)
	appendN(t, s, "a1", 20)
	read := func() {
		for _, err := range s.History(t.Context(), "account", "a1", jetstream.Range{}) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		for _, err := range s.Scan(t.Context(), "", jetstream.Range{}) {
			if err != nil {
				t.Error(err)
			}
			break
		}
	}
	read()
	goroutines, subs := runtime.NumGoroutine(), s.Conn().NumSubscriptions()
	for range 50 {
		read()
	}
	natstest.Eventually(t, "goroutines and subscriptions", func() error {
		if g, n := runtime.NumGoroutine(), s.Conn().NumSubscriptions(); g > goroutines || n > subs {
			return fmt.Errorf("%d goroutines, %d subscriptions; before %d, %d", g, n, goroutines, subs)
		}
		return nil
	})
}

// TestPagesFromTheServerHaveNoGaps: were the headers that tell of gaps spelt
// differently, every page would be cut, and reads would be slow but right.
func TestPagesFromTheServerHaveNoGaps(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	appendN(t, s, "a1", 40)
	// Who waits long asks again: of several scans, one waits for nobody.
	natstest.Eventually(t, "a scan without repetitions", func() error {
		before := s.Conn().Stats().OutMsgs
		commits, err := collect(s.Scan(t.Context(), "", jetstream.Range{}))
		if err != nil || len(commits) != 40 {
			t.Fatalf("%d commits, %v", len(commits), err)
		}
		if sent := s.Conn().Stats().OutMsgs - before; sent > 2 {
			return fmt.Errorf("%d requests for a page", sent)
		}
		return nil
	})
}

// TestReadsWaitForTheServer: reads are repeated until their context ends.
func TestReadsWaitForTheServer(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	direct := open(t, natstest.Conn(t, srv.URL()), jetstream.Config{Name: natstest.Name(t)})
	head := appendN(t, direct, "a1", 1)[0]
	p, s := env{backend: srv.URL()}.proxied(t, direct)
	p.down.Store(true)
	p.cut()
	type result struct {
		c   *jetstream.Commit
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := s.Last(t.Context(), "account", "a1", jetstream.Leader)
		done <- result{c, err}
	}()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.LastSequence(short); !errors.Is(err, jetstream.ErrUnavailable) {
		t.Error(err)
	}
	p.heal()
	if r := <-done; r.err != nil || r.c.Head != head {
		t.Errorf("%+v, %v", r.c, r.err)
	}
}
