package aggregate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	booked struct{ Cents int64 }
	ledger struct {
		Count, Sum int64
		// Pad makes the state as large as the first booking says.
		Pad string
	}
	// book makes as many events, of 1 cent.
	book struct{ Times int }
	// startLedger makes a ledger whose state is large.
	startLedger struct{ Pad int }
	begunLedger struct{ Pad int }
)

var ledgerEvents = jetstream.NewSchema("ledger", jetstream.Event[begunLedger]("started"), jetstream.Event[booked]("booked"))

// newLedgers is a type whose second version of meaning counts double.
func newLedgers(version int, more ...aggregate.Option) *aggregate.Type[ledger] {
	return aggregate.New[ledger](ledgerEvents, append([]aggregate.Option{
		aggregate.StateVersion(version),
		aggregate.Apply(func(l *ledger, e begunLedger, _ jetstream.Meta) { l.Pad = strings.Repeat("x", e.Pad) }),
		aggregate.Apply(func(l *ledger, e booked, _ jetstream.Meta) {
			l.Count++
			l.Sum += e.Cents * int64(version)
		}),
		aggregate.Create("start", func(c startLedger, _ aggregate.Decision) ([]any, error) { return []any{begunLedger(c)}, nil }),
		aggregate.Handle("book", func(_ ledger, c book, _ aggregate.Decision) ([]any, error) {
			out := make([]any, c.Times)
			for i := range out {
				out[i] = booked{1}
			}
			return out, nil
		}),
	}, more...)...)
}

// fill makes a ledger of so many commits after the first.
func fill(t testing.TB, repo *aggregate.Repository[ledger], id string, pad, commits, each int) {
	t.Helper()
	must(t, repo, id, startLedger{pad})
	for range commits {
		must(t, repo, id, book{each})
	}
}

// sums wants a ledger to be what its events make of it.
func sums(t testing.TB, repo *aggregate.Repository[ledger], id string, count, sum int64) {
	t.Helper()
	snap, err := repo.Load(t.Context(), id)
	if err != nil || snap.State.Count != count || snap.State.Sum != sum || snap.Version != uint64(count)+1 {
		t.Errorf("%s: %d bookings, %d cents, version %d (%v); want %d bookings, %d cents",
			id, snap.State.Count, snap.State.Sum, snap.Version, err, count, sum)
	}
}

// requests counts what a connection sends meanwhile.
func requests(nc *nats.Conn, f func()) int {
	before := nc.Stats().OutMsgs
	f()
	return int(nc.Stats().OutMsgs - before)
}

// costs wants f to take at most so many requests. What is not answered for a while is
// asked again, or given up and replaced by more, and a replica may be behind: then f
// takes more, and is measured again.
func costs(t testing.TB, what string, nc *nats.Conn, most int, f func()) {
	t.Helper()
	natstest.Eventually(t, what, func() error {
		if n := requests(nc, f); n > most {
			return fmt.Errorf("it took %d requests, allowed are %d", n, most)
		}
		return nil
	})
}

// outages knows the buckets that a writer gave up.
var outages = &outageLog{of: map[string]bool{}}

type outageLog struct {
	mu sync.Mutex
	of map[string]bool
}

// logger is for repositories: what they do not write in its time, they leave out, and
// say so.
func (o *outageLog) logger() *slog.Logger { return slog.New(o) }

func (*outageLog) Enabled(context.Context, slog.Level) bool { return true }

func (o *outageLog) WithAttrs([]slog.Attr) slog.Handler { return o }

func (o *outageLog) WithGroup(string) slog.Handler { return o }

func (o *outageLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "bucket" {
			o.add(a.Value.String())
		}
		return true
	})
	return nil
}

func (o *outageLog) add(bucket string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of[bucket] = true
}

func (o *outageLog) has(bucket string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.of[bucket]
}

// stateBucket is the bucket of states as an administrator sees it.
type stateBucket struct {
	js    natsjs.JetStream
	store *jetstream.Store
	name  string
}

func bucketOf(t testing.TB, store *jetstream.Store) *stateBucket {
	t.Helper()
	js, err := natsjs.New(store.Conn(), natsjs.WithDefaultTimeout(natstest.Patience))
	if err != nil {
		t.Fatal(err)
	}
	return &stateBucket{js, store, store.Name() + "__state"}
}

func (b *stateBucket) subject(typ *aggregate.Type[ledger], id string) string {
	return "$KV." + b.name + "." + typ.Name() + "." + typ.Fingerprint() + "." + id
}

// get returns what the bucket holds, nil for nothing.
func (b *stateBucket) get(ctx context.Context, subject string) (*natsjs.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // it may have no leader yet
	defer cancel()
	stream, err := b.js.Stream(ctx, "KV_"+b.name)
	if err != nil {
		return nil, err
	}
	return stream.GetLastMsgForSubject(ctx, subject)
}

// follows waits for a state that follows a commit with at least that ordinal. What a
// writer has left out, the next one writes who loads the aggregate.
func (b *stateBucket) follows(t testing.TB, typ *aggregate.Type[ledger], id string, ordinal int) *natsjs.RawStreamMsg {
	t.Helper()
	var m *natsjs.RawStreamMsg
	ok := natstest.Eventually(t, "a state in the bucket", func() (err error) {
		if m, err = b.get(t.Context(), b.subject(typ, id)); err == nil {
			n := 0
			if _, err = fmt.Sscanf(m.Header.Get("Rossby-Follows"), "%s %d %d", new(string), new(uint64), &n); err == nil && n >= ordinal {
				return nil
			}
		}
		if outages.has(b.name) {
			b.load(t, typ, id)
		}
		return fmt.Errorf("it follows %+v (%w)", m, err)
	})
	if !ok {
		t.FailNow()
	}
	return m
}

// load loads an aggregate as a program does that keeps every state.
func (b *stateBucket) load(t testing.TB, typ *aggregate.Type[ledger], id string) {
	t.Helper()
	repo, err := aggregate.NewRepository(b.store, typ, aggregate.RepositoryConfig{StateEvery: 1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Load(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// put writes a value; follows, unless empty, is what it says it follows, with a
// checksum that is right.
func (b *stateBucket) put(t testing.TB, subject, follows string, data []byte, change func(*nats.Msg)) {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Data = data
	if follows != "" {
		sum := crc32.Checksum(append([]byte(subject+"\n"+follows+"\n"), data...), crc32.MakeTable(crc32.Castagnoli))
		m.Header.Set("Rossby-Format", "1")
		m.Header.Set("Rossby-Follows", follows)
		m.Header.Set("Rossby-Checksum", strconv.FormatUint(uint64(sum), 16))
		m.Header.Set("Content-Type", b.store.Codec().ContentType())
	}
	if change != nil {
		change(m)
	}
	ok := natstest.Retry(t, "put a state", func(ctx context.Context) error {
		_, err := b.js.PublishMsg(ctx, m)
		return err
	})
	if !ok {
		t.FailNow()
	}
}

// A state too large for its commits is kept beside them: a load is two gets when
// it is the newest, and replays at most StateEvery commits when it is not. AC-A10,
// with the stored state beside the events.
func TestLargeStates(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		typ := newLedgers(1)
		fill(t, repoOf(t, store, typ), "l1", 16<<10, 200, 1)
		bucket := bucketOf(t, store)
		bucket.follows(t, typ, "l1", 192)
		cold := reopen(t, connect(), store)
		costs(t, "a load", cold.Conn(), 2+aggregate.StateEveryDefault+1, func() { sums(t, repoOf(t, cold, typ), "l1", 200, 200) })
		// With every state kept, nothing is replayed.
		every, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{StateEvery: 1, Logger: outages.logger()})
		if err != nil {
			t.Fatal(err)
		}
		must(t, every, "l1", book{1})
		bucket.follows(t, typ, "l1", 202)
		costs(t, "a load", cold.Conn(), 2, func() { sums(t, repoOf(t, cold, typ), "l1", 201, 201) })
		var status natsjs.KeyValueStatus
		ok := natstest.Retry(t, "look at the bucket", func(ctx context.Context) error {
			kv, err := bucket.js.KeyValue(ctx, bucket.name)
			if err == nil {
				status, err = kv.Status(ctx)
			}
			return err
		})
		if !ok || status.History() != 1 || status.TTL() != 0 || status.IsCompressed() || status.Values() != 1 {
			t.Errorf("%+v", status)
		}
	})
}

// AC-A10: after an update, a load takes the stored state and applies no event.
func TestStoredStateIsLoaded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		must(t, repo, "a1", open{100})
		must(t, repo, "a1", debit{30})
		cold := reopen(t, connect(), store)
		costs(t, "a load", cold.Conn(), 1, func() { balance(t, newRepo(t, cold), "a1", 70, 2) })
	})
}

// While programs of two fingerprints change one aggregate in turn, each finds a
// state of its own: in a commit a few steps back, or in the bucket. Only the first
// load of a new program replays the history.
func TestRollingDeploy(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		const each = 8
		commits := times(1250, 250) // 10,000 events
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		before, after := newLedgers(1), newLedgers(2)
		fill(t, repoOf(t, store, before), "l1", 0, commits, each)
		other := reopen(t, connect(), store)
		count := int64(commits * each)
		if n := requests(other.Conn(), func() { sums(t, repoOf(t, other, after), "l1", count, 2*count) }); n < commits {
			t.Errorf("the first load took %d requests: that is no replay", n)
		}
		bucket := bucketOf(t, store)
		bucket.follows(t, after, "l1", commits)
		const few = 20
		for round := range 12 {
			for version, typ := range []*aggregate.Type[ledger]{before, after} {
				// A program that starts anew each time remembers nothing.
				costs(t, fmt.Sprintf("round %d, version %d: a command", round, version+1), other.Conn(), few, func() {
					must(t, repoOf(t, other, typ), "l1", book{1})
					count++
				})
			}
			for version, typ := range []*aggregate.Type[ledger]{before, after} {
				costs(t, fmt.Sprintf("round %d, version %d: a load", round, version+1), other.Conn(), few, func() {
					sums(t, repoOf(t, other, typ), "l1", count, count*int64(version+1))
				})
			}
		}
		// The new programs alone for a while: an old one looks further back.
		for range 100 {
			must(t, repoOf(t, other, after), "l1", book{1})
			count++
		}
		costs(t, "a load of an old program", other.Conn(), 120, func() { sums(t, repoOf(t, other, before), "l1", count, count) })
	})
}

// Whatever is in the bucket, a load is right: what does not follow a commit of the
// aggregate, or is not a state, is ignored.
func TestBucketIsNeverBelieved(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := newLedgers(1, aggregate.StateLimit(0))
	repo := repoOf(t, store, typ)
	fill(t, repo, "l1", 0, 40, 1)
	fill(t, repo, "l2", 0, 20, 3)
	bucket := bucketOf(t, store)
	subject := bucket.subject(typ, "l1")
	good := bucket.follows(t, typ, "l1", 40) // the last one that is written
	foreign := bucket.follows(t, typ, "l2", 16)
	wrong, err := store.Codec().Encode(ledger{Count: 40, Sum: 4711})
	if err != nil {
		t.Fatal(err)
	}
	last, err := store.Last(t.Context(), "ledger", "l1", jetstream.Leader)
	if err != nil {
		t.Fatal(err)
	}
	text := func(h jetstream.Head) string {
		return fmt.Sprintf("%s %d %d %d", h.CommitID, h.Sequence, h.Ordinal, h.Version)
	}
	at := func(change func(*jetstream.Head)) string {
		h := last.Head
		change(&h)
		return text(h)
	}
	load := func() ledger {
		t.Helper()
		snap, err := repoOf(t, store, typ).Load(t.Context(), "l1")
		if err != nil {
			t.Error(err)
		}
		return snap.State
	}
	// First that this test can tell: a forgery without a fault is believed. A bucket that
	// does not answer for a second is not used, though.
	believed := func(follows jetstream.Head, sum int64) {
		t.Helper()
		natstest.Eventually(t, "the forgery is believed", func() error {
			bucket.put(t, subject, text(follows), wrong, nil)
			if got := load(); got.Sum != sum {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	believed(last.Head, 4711)
	before, err := store.At(t.Context(), "ledger", "l1", last.PreviousSequence)
	if err != nil {
		t.Fatal(err)
	}
	believed(before.Head, 4712)
	for what, c := range map[string]struct {
		follows string
		data    []byte
		change  func(*nats.Msg)
	}{
		"no state":           {"", []byte("hello"), nil},
		"empty":              {"", nil, nil},
		"a deletion":         {"", nil, func(m *nats.Msg) { m.Header.Set("KV-Operation", "DEL") }},
		"bytes flipped":      {text(last.Head), wrong, func(m *nats.Msg) { m.Data = append([]byte{0x7f}, m.Data[1:]...) }},
		"bytes cut":          {text(last.Head), wrong, func(m *nats.Msg) { m.Data = m.Data[:len(m.Data)-1] }},
		"place changed":      {text(before.Head), wrong, func(m *nats.Msg) { m.Header.Set("Rossby-Follows", text(last.Head)) }},
		"of another":         {foreign.Header.Get("Rossby-Follows"), foreign.Data, func(m *nats.Msg) { m.Header = foreign.Header }},
		"another's, signed":  {foreign.Header.Get("Rossby-Follows"), foreign.Data, nil},
		"another commit":     {at(func(h *jetstream.Head) { h.CommitID = "0123456789ab" }), wrong, nil},
		"another sequence":   {at(func(h *jetstream.Head) { h.Sequence-- }), wrong, nil},
		"another ordinal":    {at(func(h *jetstream.Head) { h.Ordinal-- }), wrong, nil},
		"another version":    {at(func(h *jetstream.Head) { h.Version-- }), wrong, nil},
		"beyond the end":     {at(func(h *jetstream.Head) { h.Sequence += 1000; h.Ordinal++; h.Version++ }), wrong, nil},
		"a lost commit":      {at(func(h *jetstream.Head) { h.Sequence, h.Ordinal, h.CommitID = before.Sequence, before.Ordinal, "lost" }), wrong, nil},
		"another format":     {text(last.Head), wrong, func(m *nats.Msg) { m.Header.Set("Rossby-Format", "2") }},
		"another codec":      {text(last.Head), wrong, func(m *nats.Msg) { m.Header.Set("Content-Type", "application/json") }},
		"no numbers":         {last.CommitID + " a b c", wrong, nil},
		"too few numbers":    {last.CommitID + " 1", wrong, nil},
		"numbers of nothing": {last.CommitID + " 0 0 0", wrong, nil},
	} {
		bucket.put(t, subject, c.follows, c.data, c.change)
		if got := load(); got.Sum != 40 || got.Count != 40 {
			t.Errorf("%s: %+v", what, got)
		}
		// A replica that seems to be behind what the bucket has seen is not believed.
		if snap, err := repoOf(t, store, typ).Load(t.Context(), "l1", aggregate.Follower()); err != nil || snap.State.Sum != 40 {
			t.Errorf("%s: a follower has %+v %v", what, snap, err)
		}
		bucket.put(t, subject, good.Header.Get("Rossby-Follows"), good.Data, nil)
		if got := load(); got.Sum != 40 {
			t.Errorf("after %s: %+v", what, got)
		}
	}
	if err := bucket.js.DeleteKeyValue(t.Context(), bucket.name); err != nil {
		t.Fatal(err)
	}
	if got := load(); got.Sum != 40 {
		t.Errorf("without the bucket: %+v", got)
	}
	bucket.follows(t, typ, "l1", 41) // that load made it again
	// A command decides on the right state, too, and nothing was lost.
	must(t, repoOf(t, store, typ), "l1", book{1})
	sums(t, repo, "l1", 41, 41)
}

// A store that was made anew under its old name finds the states of the old one.
func TestBucketOfAStoreThatWentBack(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := newLedgers(1, aggregate.StateLimit(0))
	fill(t, repoOf(t, store, typ), "l1", 0, 50, 1)
	bucket := bucketOf(t, store)
	old := bucket.follows(t, typ, "l1", 48)
	natstest.Recreate(t, nc, store.Name())
	again := newStore(t, nc, jetstream.Config{Name: store.Name()})
	repo := repoOf(t, again, typ)
	fill(t, repo, "l1", 0, 10, 2)
	sums(t, repoOf(t, again, typ), "l1", 20, 20)
	for range 10 {
		must(t, repo, "l1", book{1})
	}
	sums(t, repoOf(t, again, typ), "l1", 30, 30)
	// By one of the new store, whichever of its programs wrote last.
	commits := map[string]bool{}
	for c, err := range again.History(t.Context(), "ledger", "l1", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		commits[fmt.Sprintf("%s %d %d %d", c.CommitID, c.Sequence, c.Ordinal, c.Version)] = true
	}
	if commits[old.Header.Get("Rossby-Follows")] {
		t.Fatal("the new store has a commit of the old one")
	}
	natstest.Eventually(t, "the old state is replaced", func() error {
		m, err := bucket.get(t.Context(), bucket.subject(typ, "l1"))
		if err == nil && !commits[m.Header.Get("Rossby-Follows")] {
			err = errors.New(m.Header.Get("Rossby-Follows"))
		}
		if err != nil && outages.has(bucket.name) {
			bucketOf(t, again).load(t, typ, "l1")
		}
		return err
	})
	costs(t, "a load", nc, 2+len(commits)-aggregate.StateEveryDefault, func() { sums(t, repoOf(t, again, typ), "l1", 30, 30) })
}

// logged is a logger and what it was given.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.buf.String()), "\n")
}

// says waits for a line that holds the words, and wants only one.
func (l *logged) says(t testing.TB, words ...string) {
	t.Helper()
	count := func() (found int) {
		for _, line := range l.lines() {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				found++
			}
		}
		return found
	}
	natstest.Eventually(t, fmt.Sprint("the log says ", words), func() error {
		if got := count(); got < 1 {
			return fmt.Errorf("%d times: %q", got, l.lines())
		}
		return nil
	})
	if got := count(); got > 1 {
		t.Errorf("the log says %q %d times", words, got)
	}
}

// A program that may not use the bucket works without it, and says so once.
func TestBucketDenied(t *testing.T) {
	t.Parallel()
	deny := func(subjects ...string) *server.Permissions {
		return &server.Permissions{Publish: &server.SubjectPermission{Deny: subjects}}
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "all", Password: "x"},
			{Username: "create", Password: "x", Permissions: deny("$JS.API.STREAM.CREATE.*")},
			{Username: "write", Password: "x", Permissions: deny("$KV.>")},
			{Username: "read", Password: "x", Permissions: deny("$JS.API.DIRECT.GET.KV_read__state.>")},
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
	for _, user := range []string{"create", "write", "read"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			typ := newLedgers(1, aggregate.StateLimit(0))
			admin := newStore(t, natstest.Conn(t, srv.ClientURL(), nats.UserInfo("all", "x")), jetstream.Config{Name: user})
			store := reopen(t, natstest.Conn(t, srv.ClientURL(), nats.UserInfo(user, "x")), admin)
			repo := func(log *logged) *aggregate.Repository[ledger] {
				r, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{
					Logger: slog.New(slog.NewMultiHandler(outages, slog.NewTextHandler(log, nil))),
				})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			// denied has something fail for want of a permission. A server that is slow is given
			// up before it has said why: then it is tried anew.
			denied := func(what string, try func(r *aggregate.Repository[ledger])) (r *aggregate.Repository[ledger], log *logged) {
				natstest.Eventually(t, "the log says why", func() error {
					log = new(logged)
					r = repo(log)
					try(r)
					log.says(t, "bucket of states", what)
					if text := strings.Join(log.lines(), "\n"); !strings.Contains(text, "ermission") {
						return errors.New(text)
					}
					return nil
				})
				return r, log
			}
			if user == "read" {
				fill(t, repo(new(logged)), "l1", 0, 60, 1)
				bucketOf(t, admin).follows(t, typ, "l1", 48)
				cold, log := denied("what=read", func(r *aggregate.Repository[ledger]) { sums(t, r, "l1", 60, 60) })
				fill(t, cold, "l2", 0, 10, 1)
				sums(t, cold, "l1", 60, 60)
				log.says(t, "bucket of states", "what=read")
				return
			}
			id, n := "", 0
			writer, log := denied("what=write", func(r *aggregate.Repository[ledger]) {
				n++
				id = fmt.Sprint("l", n)
				fill(t, r, id, 0, 60, 1)
			})
			for range 60 {
				must(t, writer, id, book{1})
			}
			sums(t, repo(new(logged)), id, 120, 120)
			log.says(t, "bucket of states", "what=write")
		})
	}
}

// A state that no message can hold is left out, which is said once.
func TestStateBeyondMaxPayload(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	log := new(logged)
	typ := newLedgers(1)
	repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{
		StateEvery: 1, Logger: slog.New(slog.NewMultiHandler(outages, slog.NewTextHandler(log, nil))),
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, repo, "l1", int(nc.MaxPayload()), 30, 1)
	fill(t, repo, "l2", int(nc.MaxPayload()), 3, 1)
	fill(t, repo, "l3", 4<<10, 3, 1) // others are kept
	log.says(t, "too large", "max_payload", "l1")
	sums(t, repoOf(t, store, typ), "l1", 30, 30)
	bucket := bucketOf(t, store)
	bucket.follows(t, typ, "l3", 4)
	if _, err := bucket.get(t.Context(), bucket.subject(typ, "l1")); !errors.Is(err, natsjs.ErrMsgNotFound) {
		t.Error(err)
	}
}

// Without a bucket, loads replay and no bucket is made.
func TestNoBucket(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := newLedgers(1, aggregate.StateLimit(0))
	for range 2 {
		repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{StateEvery: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Load(t.Context(), "l1"); errors.Is(err, aggregate.ErrNotFound) {
			fill(t, repo, "l1", 0, 40, 1)
		}
		sums(t, repo, "l1", 40, 40)
	}
	bucket := bucketOf(t, store)
	if _, err := bucket.js.KeyValue(t.Context(), bucket.name); !errors.Is(err, natsjs.ErrBucketNotFound) {
		t.Error(err)
	}
}

// What earlier fingerprints left behind goes, and nothing else.
func TestDropOtherStates(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		now := newLedgers(3, aggregate.StateLimit(0))
		repo := repoOf(t, store, now)
		if n, err := repo.DropOtherStates(t.Context()); n != 0 || err != nil {
			t.Error(n, err) // there is no bucket yet
		}
		bucket := bucketOf(t, store)
		ids := []string{"l1", "l2", "l3"}
		for _, id := range ids {
			fill(t, repo, id, 0, 10, 1)
			for version := 1; version <= 2; version++ {
				old := newLedgers(version)
				sums(t, repoOf(t, store, old), id, 10, 10*int64(version))
				bucket.follows(t, old, id, 8)
			}
			bucket.follows(t, now, id, 8)
		}
		other := "$KV." + bucket.name + ".account.fingerprint.a1"
		bucket.put(t, other, "", []byte("another type's"), nil)
		if n, err := repo.DropOtherStates(t.Context()); n != 2*len(ids) || err != nil {
			t.Error(n, err)
		}
		natstest.Retry(t, "what is left", func(ctx context.Context) error {
			kv, err := bucket.js.KeyValue(ctx, bucket.name)
			if err != nil {
				return err
			}
			keys, err := kv.Keys(ctx)
			if err == nil && len(keys) != len(ids)+1 {
				err = fmt.Errorf("%v", keys)
			}
			return err
		})
		for _, id := range ids {
			sums(t, repoOf(t, store, now), id, 10, 30)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := repo.DropOtherStates(ctx); err == nil {
			t.Error("a cancelled call did it")
		}
	})
}

// A state that its commits had no room for beside their events is kept, too.
func TestStateLeftOutOfItsCommits(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := newLedgers(1, aggregate.StateLimit(1<<30))
	fill(t, repoOf(t, store, typ), "l1", int(nc.MaxPayload())-3000, 20, 400)
	last, err := store.Last(t.Context(), "ledger", "l1", jetstream.Leader)
	if err != nil || last.State != nil {
		t.Fatal("the state stands in the commit", err)
	}
	bucket := bucketOf(t, store)
	bucket.follows(t, typ, "l1", 16)
	sums(t, repoOf(t, store, typ), "l1", 8000, 8000)
}
