package jetstream_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// copySource is a store of n commits of some aggregates, with transactions.
func copySource(t *testing.T, e env, n int) *jetstream.Store {
	t.Helper()
	s := e.store(t, e.connect(t))
	const aggregates = 40
	heads := make([]jetstream.Head, aggregates)
	for i := 0; i < n; i++ {
		k := i % aggregates
		w := write(fmt.Sprint("a", k), fmt.Sprint("c", i), heads[k])
		if i%50 == 49 && i+1 < n {
			other := (k + 1) % aggregates
			got, err := s.AppendAll(t.Context(), w, write(fmt.Sprint("a", other), "", heads[other]))
			if err != nil {
				t.Fatal(err)
			}
			heads[k], heads[other] = got[0], got[1]
			i++
			continue
		}
		var err error
		if heads[k], err = s.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// wantCopied checks that the copy has the commits of the source, each once, in order.
func wantCopied(t *testing.T, from, to *jetstream.Store) {
	t.Helper()
	a, err1 := collect(from.Scan(t.Context(), "", jetstream.Range{}))
	b, err2 := collect(to.Scan(t.Context(), "", jetstream.Range{}))
	if err := errors.Join(err1, err2); err != nil || len(a) != len(b) {
		t.Fatalf("%d commits, %d in the copy, %v", len(a), len(b), err)
	}
	last := map[string]uint64{}
	for i := range a {
		o := b[i].Origin
		if a[i].CommitID != b[i].CommitID || o == nil || o.Store != from.ID() || o.Sequence != a[i].Sequence || !o.Time.Equal(a[i].Time) ||
			b[i].PreviousSequence != last[b[i].ID] {
			t.Fatalf("commit %d: %+v is not the copy of %+v", i, b[i], a[i])
		}
		last[b[i].ID] = b[i].Sequence
	}
}

// TestCopyThroughFaults: acknowledgements that get lost, messages that do, messages
// that come late and out of order, connections that are cut, leaders that resign: the
// copy is one, in one call.
func TestCopyThroughFaults(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) env{"R1": r1, "R3": r3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			n := unlessShort(1200, 600)
			from := copySource(t, e, n)
			direct := e.store(t, e.connect(t))
			p, to := e.proxied(t, direct)
			var mu sync.Mutex
			rng, appends := rand.New(rand.NewPCG(1, 9)), 0
			faults := map[string]int{}
			throw := func() fate {
				mu.Lock()
				defer mu.Unlock()
				if appends++; appends%60 != 0 {
					return fate{}
				}
				switch rng.IntN(3) {
				case 0:
					faults["mute"]++
					return fate{mute: true}
				case 1:
					faults["lose"]++
					return fate{lose: true}
				}
				faults["late"]++
				return fate{delay: time.Duration(rng.IntN(800)) * time.Millisecond}
			}
			p.fate.Store(&throw)
			var wg sync.WaitGroup
			defer wg.Wait()
			seen := 0
			report := func(jetstream.CopyProgress) {
				if seen++; seen > 2 {
					return
				}
				if e.stepDown != nil {
					wg.Go(func() { e.stepDown(t, to.Name()) })
				}
				if seen == 2 {
					p.cut()
				}
			}
			from1 := jetstream.CopySource{StoreID: from.ID(), Report: report}
			got, err := to.AppendCopies(t.Context(), from1, from.Messages(t.Context(), "", "", jetstream.Range{}))
			if err != nil || got.Commits != uint64(n) {
				t.Fatalf("%+v, %v after %v", got, err, faults)
			}
			if len(faults) != 3 || seen < 2 {
				t.Errorf("faults %v, %d reports: not everything was tested", faults, seen)
			}
			wantCopied(t, from, direct)
		})
	}
}

// TestCopyEnds: a copy that cannot go on says so, says how far it is, and leaves
// nothing behind that would disturb the next.
func TestCopyEnds(t *testing.T) {
	t.Parallel()
	e := r1(t)
	from := copySource(t, e, 300)
	direct := e.store(t, e.connect(t))
	p, to := e.proxied(t, direct)
	source := jetstream.CopySource{StoreID: from.ID()}

	// The source fails.
	broken := errors.New("the disk is gone")
	n := 0
	failing := func(yield func(jetstream.Message, error) bool) {
		for m, err := range from.Messages(t.Context(), "", "", jetstream.Range{}) {
			if n++; n == 100 {
				yield(jetstream.Message{}, broken)
				return
			}
			if !yield(m, err) {
				return
			}
		}
	}
	// The first 99 may end within a transaction, whose commits then are not there.
	got, err := to.AppendCopies(t.Context(), source, failing)
	if !errors.Is(err, broken) || got.Commits < 98 || got.Commits > 99 {
		t.Errorf("%+v, %v", got, err)
	}
	// NATS is gone for longer than an append may take.
	subs := to.Conn().NumSubscriptions()
	p.down.Store(true)
	p.cut()
	short := to.WithConn(to.Conn()).Impatient()
	if got, err := short.AppendCopies(t.Context(), source, from.Messages(t.Context(), "", "", jetstream.Range{})); !errors.Is(err, jetstream.ErrUnavailable) {
		t.Errorf("%+v, %v", got, err)
	}
	p.heal()
	// A message that is no commit.
	garbage := func(yield func(jetstream.Message, error) bool) {
		yield(jetstream.Message{Subject: "x.event.y.1.z", Sequence: 7}, nil)
	}
	if _, err := to.AppendCopies(t.Context(), source, garbage); !is[*jetstream.FormatError](err) {
		t.Error(err)
	}
	// Nothing of what the store ends with.
	none := func(func(jetstream.Message, error) bool) {}
	if _, err := to.AppendCopies(t.Context(), source, none); !errors.Is(err, jetstream.ErrNotACopy) {
		t.Error(err)
	}
	if now := to.Conn().NumSubscriptions(); now > subs {
		t.Errorf("%d subscriptions, %d before", now, subs)
	}
	for what, bad := range map[string]jetstream.CopySource{"no id": {}, "itself": {StoreID: to.ID()}} {
		if _, err := to.AppendCopies(t.Context(), bad, none); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	// In the end it is all there.
	if _, err := to.AppendCopies(t.Context(), source, from.Messages(t.Context(), "", "", jetstream.Range{})); err != nil {
		t.Error(err)
	}
	wantCopied(t, from, direct)
	// The last copied commit is told from what comes after.
	last, err := to.LastCopied(t.Context())
	if err != nil || last.Sequence != 301 {
		t.Errorf("%+v, %v", last, err)
	}
	for i := range 9 {
		if _, err := direct.Append(t.Context(), write(fmt.Sprint("new", i), "", jetstream.Head{})); err != nil {
			t.Fatal(err)
		}
		if c, err := direct.LastCopied(t.Context()); err != nil || c.CommitID != last.CommitID {
			t.Errorf("%+v, %v", c, err)
		}
	}
	for _, s := range []*jetstream.Store{from, e.store(t, e.connect(t))} {
		if c, err := s.LastCopied(t.Context()); !errors.Is(err, jetstream.ErrNotFound) {
			t.Errorf("no copy: %+v, %v", c, err)
		}
	}
}

// TestMessagesRefuses: what would not be a copy is not given out.
func TestMessagesRefuses(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	appendN(t, s, "a", 3)
	for what, read := range map[string]struct {
		typ, id string
		r       jetstream.Range
	}{
		"type": {typ: "No"}, "id": {typ: "account", id: "a b"}, "backwards": {r: jetstream.Range{Backwards: true}},
		"events": {r: jetstream.Range{Events: []string{"credited"}}}, "versions": {typ: "account", id: "a", r: jetstream.Range{AfterVersion: 1}},
	} {
		for m, err := range s.Messages(t.Context(), read.typ, read.id, read.r) {
			if !is[*jetstream.InvalidError](err) {
				t.Errorf("%s: %+v, %v", what, m, err)
			}
		}
	}
	for _, read := range []struct{ typ, id string }{{"", ""}, {"account", ""}, {"account", "a"}} {
		n := 0
		for m, err := range s.Messages(t.Context(), read.typ, read.id, jetstream.Range{}) {
			if err != nil || m.Header["Rossby-Commit"] == nil {
				t.Errorf("%+v, %v", m, err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("%+v: %d messages", read, n)
		}
	}
	if !jetstream.AddedHeader("Nats-Sequence") || jetstream.AddedHeader("Nats-Expected-Last-Subject-Sequence") {
		t.Error("the server's headers are others")
	}
}
