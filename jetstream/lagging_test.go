package jetstream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// lagging answers reads as a stream with replicas does. What each replica has
// is up to the test, which no cluster's is.
type lagging struct {
	t    *testing.T
	nc   *nats.Conn
	msgs []*nats.Msg
	// replica is how many of the messages the replica has that answers the n-th
	// direct get, from 1; leader is how many the leader has.
	replica func(n int) int
	leader  func() int
	// lose is the index of a message of each answer that gets lost, or -1.
	lose int
	// direct and asked count the requests.
	direct, asked atomic.Int64
}

type getRequest struct {
	Seq   int    `json:"seq"`
	Last  string `json:"last_by_subj"`
	Next  string `json:"next_by_subj"`
	Batch int    `json:"batch"`
}

// newLagging is a store "bank" of n commits of one aggregate at the sequences 10,
// 20, …, behind a server without JetStream.
func newLagging(t *testing.T, n int) (*lagging, *jetstream.Store) {
	t.Helper()
	return newLaggingOn(t, n, &server.Options{})
}

func newLaggingOn(t *testing.T, n int, o *server.Options) (*lagging, *jetstream.Store) {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("not ready")
	}
	l := &lagging{t: t, nc: natstest.Conn(t, srv.ClientURL()), leader: func() int { return n }, lose: -1, replica: func(int) int { return n }}
	previous := ""
	for i := range n {
		c := jetstream.Commit{
			Head:       jetstream.Head{CommitID: fmt.Sprint("c", i+1), Ordinal: uint64(i + 1), Version: uint64(i + 1)},
			Previous:   previous,
			EventNames: []string{"credited"}, Decisions: []jetstream.Decision{command("", event("credited", "\xc0"))},
			PreviousSequence: uint64(i) * 10,
		}
		m, err := jetstream.EncodeCommit(goldenSubject, &c, jetstream.Msgpack)
		if err != nil {
			t.Fatal(err)
		}
		previous = c.CommitID
		l.msgs = append(l.msgs, m)
	}
	for subject, handle := range map[string]func(*nats.Msg, getRequest){
		"$JS.API.DIRECT.GET.bank": l.get, "$JS.API.STREAM.MSG.GET.bank": l.ask,
	} {
		_, err := l.nc.Subscribe(subject, func(m *nats.Msg) {
			var req getRequest
			if err := json.Unmarshal(m.Data, &req); err != nil {
				t.Error(err)
			}
			handle(m, req)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	return l, s.WithConn(natstest.Conn(t, srv.ClientURL())).Attempts(longAttempt)
}

func (l *lagging) send(m *nats.Msg, reply nats.Header, data []byte) {
	if err := l.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: reply, Data: data}); err != nil {
		l.t.Error(err)
	}
}

// get answers a direct get of one message, or of several.
func (l *lagging) get(m *nats.Msg, req getRequest) {
	has := l.replica(int(l.direct.Add(1)))
	if req.Batch == 0 {
		if i, ok := req.find(has); ok {
			l.send(m, l.header(i), l.msgs[i].Data)
			return
		}
		l.send(m, nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}, nil)
		return
	}
	before, sent := 0, 0
	for i := range has {
		if (i+1)*10 < req.Seq || sent == req.Batch {
			continue
		}
		h := l.header(i)
		h["Nats-Last-Sequence"] = []string{strconv.Itoa(before)}
		if sent != l.lose {
			l.send(m, h, l.msgs[i].Data)
		}
		before, sent = (i+1)*10, sent+1
	}
	if sent == 0 {
		l.send(m, nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}, nil)
		return
	}
	l.send(m, nats.Header{"Status": {"204"}, "Description": {"EOB"}}, nil)
}

// find is the message that is asked for, among the first ones.
func (r getRequest) find(has int) (int, bool) {
	switch {
	case r.Last != "":
		return has - 1, has > 0
	case r.Next == "":
		return r.Seq/10 - 1, r.Seq%10 == 0 && r.Seq/10 <= has
	}
	i := (r.Seq+9)/10 - 1
	return i, i < has
}

func (l *lagging) header(i int) nats.Header {
	h := nats.Header{
		"Nats-Stream": {"bank"}, "Nats-Subject": {goldenSubject}, "Nats-Sequence": {strconv.Itoa((i + 1) * 10)},
		"Nats-Time-Stamp": {storedAt.Format(time.RFC3339Nano)},
	}
	maps.Copy(h, l.msgs[i].Header)
	return h
}

// ask answers a request to the leader.
func (l *lagging) ask(m *nats.Msg, req getRequest) {
	l.asked.Add(1)
	i, ok := req.find(l.leader())
	if !ok {
		l.send(m, nil, []byte(`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`))
		return
	}
	var hdrs bytes.Buffer
	hdrs.WriteString("NATS/1.0\r\n")
	for k, v := range l.msgs[i].Header {
		fmt.Fprintf(&hdrs, "%s: %s\r\n", k, v[0])
	}
	hdrs.WriteString("\r\n")
	body, err := json.Marshal(map[string]any{"message": map[string]any{
		"subject": goldenSubject, "seq": (i + 1) * 10, "hdrs": hdrs.Bytes(), "data": l.msgs[i].Data, "time": storedAt,
	}})
	if err != nil {
		l.t.Error(err)
	}
	l.send(m, nil, body)
}

// TestReadsOfLaggingReplicas: a read reaches the commit that it has to, whatever
// the replicas have that happen to answer it.
func TestReadsOfLaggingReplicas(t *testing.T) {
	t.Parallel()
	const n = 10
	for name, c := range map[string]struct {
		setup func(*lagging)
		r     jetstream.Range
		want  int
		err   error
	}{
		"all are up to date": {setup: func(*lagging) {}, want: n},
		"every second one has nothing": {setup: func(l *lagging) {
			l.replica = func(i int) int { return n * (i % 2) }
		}, want: n},
		"every second one goes back": {setup: func(l *lagging) {
			l.replica = func(i int) int { return n - 5*(i%2) }
		}, want: n},
		"all lag for ever":   {setup: func(l *lagging) { l.replica = func(int) int { return 3 } }, want: n},
		"all have nothing":   {setup: func(l *lagging) { l.replica = func(int) int { return 0 } }, want: n},
		"one more each time": {setup: func(l *lagging) { l.replica = func(i int) int { return min(i/2, n) } }, want: n},
		"a message of each answer gets lost": {setup: func(l *lagging) {
			l.lose = 1
		}, want: n},
		"the first of each answer gets lost": {setup: func(l *lagging) {
			l.lose = 0
		}, want: n},
		"said, all lag": {
			setup: func(l *lagging) { l.replica = func(int) int { return 3 } },
			r:     jetstream.Range{After: 20, To: 80}, want: 6,
		},
		"said, beyond the leader's": {setup: func(*lagging) {}, r: jetstream.Range{To: 110}, want: n, err: jetstream.ErrIncomplete},
		"said, lost by all": {
			setup: func(l *lagging) { l.leader, l.replica = func() int { return 7 }, func(int) int { return 7 } },
			r:     jetstream.Range{To: 100}, want: 7, err: jetstream.ErrIncomplete,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, read := range map[string]func(*jetstream.Store) iter.Seq2[*jetstream.Commit, error]{
				"history": func(s *jetstream.Store) iter.Seq2[*jetstream.Commit, error] {
					return s.History(t.Context(), "account", "a1", c.r)
				},
				"scan": func(s *jetstream.Store) iter.Seq2[*jetstream.Commit, error] {
					return s.Scan(t.Context(), "account", c.r)
				},
			} {
				l, s := newLagging(t, n)
				c.setup(l)
				commits, err := collect(read(s))
				if !errors.Is(err, c.err) || len(commits) != c.want {
					t.Fatalf("%s: %d commits, %v", kind, len(commits), err)
				}
				for i, got := range commits {
					if want := uint64(i+1)*10 + c.r.After; got.Sequence != want {
						t.Errorf("%s: %d at %d", kind, got.Sequence, i)
					}
				}
				if name != "all are up to date" {
					continue
				}
				// Who waits long is asked again: of several reads, one waits for nobody.
				natstest.Eventually(t, kind+" without repetitions", func() error {
					l.direct.Store(0)
					l.asked.Store(0)
					if _, err := collect(read(s)); err != nil {
						return err
					}
					if l.direct.Load() > n || l.asked.Load() != 1 {
						return fmt.Errorf("%d direct gets, the leader was asked %d times", l.direct.Load(), l.asked.Load())
					}
					return nil
				})
			}
		})
	}
}

// TestAnswersToAppends: what each answer proves, and what it does not.
func TestAnswersToAppends(t *testing.T) {
	t.Parallel()
	const ack = `{"stream":"bank","seq":50}`
	fault := func(number int, text string) string {
		return fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":%q}}`, number, text)
	}
	below := fault(10071, "wrong last sequence: 5")
	several := func(n int, text, last string) []string {
		return append(slices.Repeat([]string{text}, n), last)
	}
	// The aggregate has two commits, at 10 and at 20; the writer knows both.
	after := jetstream.Head{Sequence: 20, CommitID: "c2", Ordinal: 2, Version: 2}
	for name, c := range map[string]struct {
		answers    []string
		replicated bool
		// clustered is a stream that had one replica when it was opened, in a cluster,
		// where it may have more now.
		clustered bool
		want      func(error) bool
		sent      int
	}{
		"stored":                 {answers: []string{ack}, sent: 1},
		"no leader":              {answers: several(3, fault(10008, "JetStream system temporarily unavailable"), ack), sent: 4},
		"too many requests":      {answers: several(2, fault(10167, "too many requests"), ack), sent: 3},
		"another one in flight":  {answers: several(2, fault(10164, "wrong last sequence"), ack), sent: 3},
		"below, then there":      {answers: several(5, below, ack), sent: 6},
		"below for ever":         {answers: several(50, below, ack), want: matches(jetstream.ErrStoreWentBack), sent: 12},
		"above":                  {answers: []string{fault(10071, "wrong last sequence: 30")}, want: is[*jetstream.ConflictError], sent: 1},
		"sealed":                 {answers: []string{fault(10109, "stream is sealed")}, want: is[*jetstream.RefusedError], sent: 1},
		"store failed":           {answers: []string{fault(10077, "no space left")}, want: is[*jetstream.RefusedError], sent: 1},
		"store failed, replicas": {answers: []string{fault(10077, "no space left"), ack}, replicated: true, sent: 2},
		"store failed, cluster":  {answers: []string{fault(10077, "no space left"), ack}, clustered: true, sent: 2},
		"store failed, replicas, then refused": {
			answers:    several(2, fault(10077, "no space left"), fault(10109, "stream is sealed")),
			replicated: true, want: matches(jetstream.ErrUnknownOutcome),
		},
		"garbage, then above": {
			// The first answer may have been lost on a commit that is stored at 30.
			answers: []string{"?", fault(10071, "wrong last sequence: 30")}, want: matches(jetstream.ErrUnknownOutcome),
		},
		"garbage, then too large": {
			answers: []string{"?", fault(10054, "message size exceeds maximum allowed")}, want: matches(jetstream.ErrUnknownOutcome),
		},
		"another stream": {answers: []string{`{"stream":"other","seq":9}`, ack}, sent: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o server.Options
			if c.clustered {
				o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT}
			}
			l, s := newLaggingOn(t, 2, &o)
			if c.replicated {
				s = s.Replicated()
			}
			var sent atomic.Int64
			ids := make(chan string, 100)
			ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
			defer cancel()
			_, err := l.nc.Subscribe(goldenSubject, func(m *nats.Msg) {
				n := int(sent.Add(1))
				if c.sent == 0 && n > len(c.answers) {
					cancel() // It has been told everything, and goes on.
				}
				i := min(n, len(c.answers)) - 1
				select {
				case ids <- m.Header["Rossby-Commit"][0] + " " + m.Header["Nats-Expected-Last-Subject-Sequence"][0]:
				default:
				}
				l.send(m, nil, []byte(c.answers[i]))
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			head, err := s.Append(ctx, write("a1", "", after))
			if c.want == nil && (err != nil || head.Sequence != 50 || head.Ordinal != 3) || c.want != nil && !c.want(err) {
				t.Errorf("%+v, %T %v", head, err, err)
			}
			if got := int(sent.Load()); c.sent != 0 && got != c.sent || got < 2 && c.sent == 0 {
				t.Errorf("sent %d times", got)
			}
			first := <-ids
			for range len(ids) {
				if next := <-ids; next != first || !strings.HasSuffix(first, " 20") {
					t.Errorf("sent %q, then %q", first, next)
				}
			}
		})
	}
}

// TestConflictAfterUnavailable is AC-A14's retry after a 503: a conflict after the
// server was away for a moment is a conflict, once somebody's commit is seen there.
func TestConflictAfterUnavailable(t *testing.T) {
	t.Parallel()
	l, s := newLagging(t, 3)
	var sent atomic.Int64
	_, err := l.nc.Subscribe(goldenSubject, func(m *nats.Msg) {
		answer := `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
		if sent.Add(1) > 1 {
			answer = `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 30"}}`
		}
		l.send(m, nil, []byte(answer))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Append(t.Context(), write("a1", "", jetstream.Head{Sequence: 20, CommitID: "c2", Ordinal: 2, Version: 2}))
	if c := (*jetstream.ConflictError)(nil); !errors.As(err, &c) || c.Expected != 20 || c.Actual != 30 {
		t.Errorf("%T %v", err, err)
	}
}

// matches is errors.Is as a question of its own.
func matches(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}
