package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// verify collects what a verification finds, and how far it came.
func verify[S any](t testing.TB, repo *aggregate.Repository[S], cfg aggregate.VerifyConfig) (
	[]aggregate.StateFinding, aggregate.VerifyProgress,
) {
	t.Helper()
	var (
		out  []aggregate.StateFinding
		done aggregate.VerifyProgress
	)
	cfg.Progress = func(p aggregate.VerifyProgress) { done = p }
	for f, err := range repo.Verify(t.Context(), cfg) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out, done
}

// newCheats is the ledgers' type of the same fingerprint, but bookings count double.
func newCheats(more ...aggregate.Option) *aggregate.Type[ledger] {
	return aggregate.New[ledger](ledgerEvents, append([]aggregate.Option{
		aggregate.Apply(func(l *ledger, e begunLedger, _ jetstream.Meta) { l.Pad = strings.Repeat("x", e.Pad) }),
		aggregate.Apply(func(l *ledger, e booked, _ jetstream.Meta) {
			l.Count++
			l.Sum += 2 * e.Cents
		}),
		aggregate.Handle("book", func(ledger, book, aggregate.Decision) ([]any, error) { return []any{booked{1}}, nil }),
	}, more...)...)
}

// An Apply that has changed its meaning without a new StateVersion is found, in
// commits and in the bucket, with what differs; with one, there is nothing to find.
func TestVerifyFindsAnotherMeaning(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		typ := newLedgers(1)
		repo := repoOf(t, store, typ)
		fill(t, repo, "small", 0, 20, 1)
		fill(t, repo, "large", 4<<10, 40, 1)
		fill(t, repo, "other", 0, 3, 1)
		bucket := bucketOf(t, store)
		bucket.follows(t, typ, "large", 40)

		if found, done := verify(t, repo, aggregate.VerifyConfig{}); len(found) > 0 || done.Aggregates != 3 || done.Commits != 66 ||
			done.States != 21+4+1 || done.Findings != 0 || done.Last != head(t, store) {
			t.Errorf("%+v %v", done, found)
		}
		cheats := newCheats()
		if cheats.Fingerprint() != typ.Fingerprint() {
			t.Fatal("these types are not taken for one another")
		}
		found, done := verify(t, repoOf(t, store, cheats), aggregate.VerifyConfig{})
		if len(found) != 3 || done.Findings != 3 {
			t.Fatalf("%+v %v", done, found)
		}
		for i, want := range []struct {
			id       string
			version  uint64
			inBucket bool
			detail   string
		}{
			{"small", 2, false, "Sum is 1, replayed 2"},
			{"large", 40, true, "Sum is 39, replayed 78"},
			{"other", 2, false, "Sum is 1, replayed 2"},
		} {
			f := found[i]
			if want.inBucket && f.Version > 30 { // the newest that its writer had time for, on some replica
				want.version, want.detail = f.Version, fmt.Sprintf("Sum is %d, replayed %d", f.Version-1, 2*(f.Version-1))
			}
			if f.Fault != aggregate.StateDiffers || f.Type != "ledger" || f.ID != want.id || f.Version != want.version ||
				f.InBucket != want.inBucket || f.Detail != want.detail || f.Sequence == 0 {
				t.Errorf("%+v, want %+v", f, want)
			}
			if !strings.Contains(f.String(), fmt.Sprintf("ledger %q version %d", want.id, want.version)) ||
				!strings.Contains(f.String(), want.detail) {
				t.Error(f)
			}
		}
		raised := repoOf(t, store, newCheats(aggregate.StateVersion(2)))
		if found, done := verify(t, raised, aggregate.VerifyConfig{}); len(found) > 0 || done.Aggregates != 3 || done.States != 0 {
			t.Errorf("%+v %v", done, found)
		}
		// Named ones, and no others.
		if found, done := verify(t, repoOf(t, store, cheats), aggregate.VerifyConfig{IDs: []string{"other", "none"}}); len(found) != 1 ||
			found[0].ID != "other" || done.Aggregates != 2 || done.Last != 0 {
			t.Errorf("%+v %v", done, found)
		}
		// Whoever has seen enough stops.
		n := 0
		for _, err := range repoOf(t, store, cheats).Verify(t.Context(), aggregate.VerifyConfig{}) {
			if n++; err != nil || n > 1 {
				t.Fatal(n, err)
			}
			break
		}
	})
}

// A fold that relies on what is not stored makes other states in one go than
// commit by commit.
func TestVerifyFindsHiddenState(t *testing.T) {
	t.Parallel()
	type counter struct {
		Seen   int
		before int64 `json:"-"` // what is left out
	}
	typ := aggregate.New[counter](events,
		aggregate.Apply(func(c *counter, e opened, _ jetstream.Meta) { c.before = e.Cents }),
		aggregate.Apply(func(*counter, debited, jetstream.Meta) {}),
		aggregate.Apply(func(c *counter, _ credited, _ jetstream.Meta) {
			if c.before > 0 {
				c.Seen++
			}
		}),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("credit", func(_ counter, c credit, _ aggregate.Decision) ([]any, error) { return []any{credited(c)}, nil }),
	)
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	repo := repoOf(t, store, typ)
	must(t, repo, "a1", open{1})
	must(t, repo, "a1", credit{1})
	if found, _ := verify(t, repo, aggregate.VerifyConfig{}); len(found) != 1 || found[0].Detail != "Seen is 0, replayed 1" {
		t.Error(found)
	}
}

// States in the bucket that no load uses are told apart from those that are wrong.
func TestVerifyTheBucket(t *testing.T) {
	t.Parallel()
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	typ := newLedgers(1, aggregate.StateLimit(0))
	repo := repoOf(t, store, typ)
	bucket := bucketOf(t, store)
	for _, id := range []string{"fine", "garbage", "stray", "wrong"} {
		fill(t, repo, id, 0, 10, 1)
		bucket.follows(t, typ, id, 8)
	}
	bucket.put(t, bucket.subject(typ, "garbage"), "", []byte("hello"), nil)
	last, err := store.Last(t.Context(), "ledger", "wrong", jetstream.Leader)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := store.Codec().Encode(ledger{Count: 10, Sum: 11})
	if err != nil {
		t.Fatal(err)
	}
	follows := fmt.Sprintf("%s %d %d %d", last.CommitID, last.Sequence, last.Ordinal, last.Version)
	bucket.put(t, bucket.subject(typ, "wrong"), follows, wrong, nil)
	bucket.put(t, bucket.subject(typ, "stray"), follows, wrong, nil)
	found, done := verify(t, repo, aggregate.VerifyConfig{})
	got := map[string]aggregate.StateFault{}
	for _, f := range found {
		got[f.ID] = f.Fault
		if !f.InBucket {
			t.Error(f)
		}
	}
	if len(found) != 3 || done.Aggregates != 4 || got["garbage"] != aggregate.StateUnreadable ||
		got["stray"] != aggregate.StateStray || got["wrong"] != aggregate.StateDiffers {
		t.Errorf("%+v %v", done, found)
	}
	undecodable := []byte{0xc1}
	bucket.put(t, bucket.subject(typ, "wrong"), follows, undecodable, nil)
	if found, _ := verify(t, repo, aggregate.VerifyConfig{IDs: []string{"wrong"}}); len(found) != 1 || found[0].Fault != aggregate.StateUnreadable {
		t.Error(found)
	}
}

// A sample costs what its aggregates cost.
func TestVerifyASample(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	repo := repoOf(t, store, newLedgers(1))
	for i := range 200 {
		must(t, repo, fmt.Sprint("l", i), startLedger{})
		must(t, repo, fmt.Sprint("l", i), book{1})
	}
	cheats := repoOf(t, store, newCheats())
	seen := map[string]bool{}
	costs(t, "a sample", nc, 150, func() {
		found, done := verify(t, cheats, aggregate.VerifyConfig{Sample: 10})
		if len(found) != 10 || done.Aggregates != 10 {
			t.Errorf("%+v %v", done, found)
		}
		clear(seen)
		for _, f := range found {
			seen[f.ID] = true
		}
	})
	if len(seen) != 10 {
		t.Errorf("%d aggregates", len(seen))
	}
	// More than there are: at most all, and it ends.
	if found, _ := verify(t, cheats, aggregate.VerifyConfig{Sample: 1000}); len(found) > 200 || len(found) < 100 {
		t.Error(len(found))
	}
	none := repoOf(t, store, accounts)
	if _, done := verify(t, none, aggregate.VerifyConfig{Sample: 3}); done.Aggregates != 0 {
		t.Error(done)
	}
	if _, done := verify(t, none, aggregate.VerifyConfig{}); done.Aggregates != 0 {
		t.Error(done)
	}
}

// TestVerifyASampleOfOldAggregates: a sample finds aggregates wherever in the store
// they stand.
func TestVerifyASampleOfOldAggregates(t *testing.T) {
	t.Parallel()
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	must(t, repoOf(t, store, newLedgers(1)), "l", startLedger{})
	must(t, repoOf(t, store, newLedgers(1)), "l", book{1})
	others := repoOf(t, store, accounts)
	for i := range 600 {
		must(t, others, fmt.Sprint("a", i), open{1})
	}
	found, done := verify(t, repoOf(t, store, newCheats()), aggregate.VerifyConfig{Sample: 1})
	if len(found) != 1 || done.Aggregates != 1 {
		t.Errorf("%+v %v", done, found)
	}
}

// Events that no longer make a state are findings, and the others are verified;
// what says nothing about an aggregate is an error.
func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{1})
	must(t, repo, "a2", open{1})
	must(t, repo, "a2", credit{5})
	must(t, repo, "a3", open{1})
	brittle := aggregate.New[account](events,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(*account, debited, jetstream.Meta) {}),
		aggregate.Apply(func(*account, credited, jetstream.Meta) { panic("on purpose") }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
	)
	found, done := verify(t, repoOf(t, store, brittle), aggregate.VerifyConfig{})
	if len(found) != 1 || found[0].Fault != aggregate.EventsFail || found[0].ID != "a2" || found[0].Version != 2 ||
		!strings.Contains(found[0].Detail, "on purpose") || done.Aggregates != 3 {
		t.Errorf("%+v %v", done, found)
	}
	var errs []error
	collect := func(ctx context.Context, cfg aggregate.VerifyConfig) error {
		for _, err := range repo.Verify(ctx, cfg) {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := collect(ctx, aggregate.VerifyConfig{}); err == nil {
		t.Error("a verification that was cancelled found nothing")
	}
	for field, cfg := range map[string]aggregate.VerifyConfig{
		"VerifyConfig.Sample": {Sample: -1}, "aggregate id": {IDs: []string{"a b"}},
	} {
		errs = nil
		invalid(t, collect(t.Context(), cfg), field)
	}
	errs = nil
	invalid(t, collect(t.Context(), aggregate.VerifyConfig{Sample: 1, IDs: []string{"a"}}), "VerifyConfig.Sample")
	for fault, want := range map[aggregate.StateFault]string{
		aggregate.StateDiffers: "differs", aggregate.StateUnreadable: "unreadable", aggregate.StateStray: "stray",
		aggregate.EventsFail: "events fail", 77: "fault(77)",
	} {
		if fault.String() != want {
			t.Error(fault.String())
		}
	}
}
