package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// ranged is a store with one aggregate "a1" whose commits have 1, 2, 0 and 3 events
// in turn, and others between; every commit of it has a stored time of its own.
type ranged struct {
	*jetstream.Store

	commits []*jetstream.Commit // of a1
	all     []*jetstream.Commit
}

func newRanged(t *testing.T, s *jetstream.Store, n int) *ranged {
	t.Helper()
	heads := map[string]jetstream.Head{}
	add := func(typ, id string, events int) {
		d := command("", jetstream.EventData{})
		d.Events = nil
		d.Metadata = map[string]string{"n": strconv.FormatUint(heads[id].Ordinal, 10)}
		for i := range events {
			d.Events = append(d.Events, event([]string{"credited", "debited"}[i%2], "\x81\xa1c\x05"))
		}
		if events == 0 {
			d.Outcome = jetstream.OutcomeNone
		}
		head, err := s.Append(t.Context(), jetstream.Write{
			Type: typ, ID: id, After: heads[id], Decisions: []jetstream.Decision{d},
		})
		if err != nil {
			t.Fatal(err)
		}
		heads[id] = head
	}
	for i := range n {
		add("account", "a1", []int{1, 2, 0, 3}[i%4])
		add("customer", fmt.Sprint("c", i%3), 1)
	}
	r := &ranged{Store: s}
	for c, err := range s.Scan(t.Context(), "", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		r.all = append(r.all, c)
		if c.ID == "a1" {
			r.commits = append(r.commits, c)
		}
	}
	if len(r.commits) != n || len(r.all) != 2*n {
		t.Fatalf("%d and %d commits", len(r.commits), len(r.all))
	}
	return r
}

func sequences(commits []*jetstream.Commit) []uint64 {
	out := make([]uint64, 0, len(commits))
	for _, c := range commits {
		out = append(out, c.Sequence)
	}
	return out
}

func (r *ranged) check(t *testing.T, typ string, rg jetstream.Range) {
	t.Helper()
	commits, read := r.all, r.Scan(t.Context(), typ, rg)
	if typ == "history" {
		commits, read = r.commits, r.History(t.Context(), "account", "a1", rg)
	}
	want := slices.Clone(commits)
	want = slices.DeleteFunc(want, func(c *jetstream.Commit) bool {
		low := c.Version - uint64(c.Events())
		return typ != "history" && typ != "" && c.Type != typ ||
			c.Sequence <= rg.After || rg.To > 0 && c.Sequence > rg.To ||
			!rg.Since.IsZero() && c.Time.Before(rg.Since) || !rg.AsOf.IsZero() && c.Time.After(rg.AsOf) ||
			rg.AfterVersion > 0 && (c.Version <= rg.AfterVersion) || rg.UpToVersion > 0 && (low >= rg.UpToVersion) ||
			len(rg.Events) > 0 && !slices.ContainsFunc(c.EventNames, func(n string) bool { return slices.Contains(rg.Events, n) })
	})
	if rg.Backwards {
		slices.Reverse(want)
	}
	got, err := collect(read)
	if err != nil || !slices.Equal(sequences(got), sequences(want)) {
		t.Errorf("%q %+v: %v\n%v, want\n%v", typ, rg, err, sequences(got), sequences(want))
	}
}

// TestRanges compares every kind of range, forwards and backwards, from the leader
// and from replicas, with what filtering everything gives, on one server and on three.
func TestRanges(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, s *jetstream.Store) {
		t.Helper()
		r := newRanged(t, s, 41)
		last := r.all[len(r.all)-1]
		ranges := make([]jetstream.Range, 0, 100)
		ranges = append(ranges, []jetstream.Range{
			{}, {After: 1}, {After: last.Sequence}, {Since: r.all[0].Time.Add(-time.Hour)}, {Since: last.Time.Add(time.Hour)},
			{AsOf: r.all[0].Time.Add(-time.Hour)}, {AsOf: last.Time.Add(time.Hour)},
			// What no server can count in nanoseconds since 1970.
			{Since: last.Time.AddDate(1000, 0, 0)}, {AsOf: last.Time.AddDate(1000, 0, 0)},
			{Since: last.Time.AddDate(-1000, 0, 0)}, {AsOf: last.Time.AddDate(-1000, 0, 0)},
			{Events: []string{"credited"}}, {Events: []string{"debited"}}, {Events: []string{"debited", "credited"}}, {Events: []string{"none"}},
		}...)
		for _, i := range []int{0, 1, 2, 3, 7, 20, 39, 40}[unlessShort(0, 4):] {
			c := r.commits[i]
			ranges = append(ranges,
				jetstream.Range{After: c.Sequence}, jetstream.Range{After: c.Sequence + 1}, jetstream.Range{To: c.Sequence},
				jetstream.Range{Since: c.Time}, jetstream.Range{Since: c.Time.Add(1)}, jetstream.Range{AsOf: c.Time},
				jetstream.Range{AsOf: c.Time.Add(-1)}, jetstream.Range{Since: c.Time, AsOf: c.Time},
				jetstream.Range{After: r.commits[0].Sequence, Since: c.Time, AsOf: last.Time},
			)
		}
		for i, rg := range ranges {
			for b, back := range []bool{false, true} {
				for f, from := range []jetstream.Source{jetstream.Leader, jetstream.Replica} {
					if testing.Short() && (i+b+f)%2 > 0 {
						continue // half of them, in turn
					}
					if from == jetstream.Replica && s.Replicas() > 1 && rg.To == 0 && rg.AsOf.IsZero() {
						continue // A replica may be behind.
					}
					rg.Backwards, rg.From = back, from
					r.check(t, "history", rg)
					r.check(t, "", rg)
					r.check(t, "account", rg)
					if rg.To == 0 {
						r.check(t, "customer", rg)
					}
				}
			}
		}
		for v := uint64(0); v < r.commits[40].Version; v += uint64(unlessShort(1, 5)) {
			for _, back := range []bool{false, true} {
				r.check(t, "history", jetstream.Range{AfterVersion: v, Backwards: back})
				r.check(t, "history", jetstream.Range{UpToVersion: v, Backwards: back})
				r.check(t, "history", jetstream.Range{AfterVersion: v, UpToVersion: min(v+5, r.commits[40].Version), Backwards: back})
				r.check(t, "history", jetstream.Range{AfterVersion: v, After: r.commits[11].Sequence, Backwards: back})
			}
		}
		beyond := jetstream.Range{UpToVersion: r.commits[40].Version + 1}
		if got, err := collect(r.History(t.Context(), "account", "a1", beyond)); !errors.Is(err, jetstream.ErrIncomplete) || len(got) > 0 {
			t.Errorf("%d commits, %v", len(got), err)
		}
		if got, err := collect(r.History(t.Context(), "account", "none", jetstream.Range{UpToVersion: 1})); !errors.Is(err, jetstream.ErrIncomplete) || len(got) > 0 {
			t.Errorf("%d commits, %v", len(got), err)
		}
		if got, err := collect(r.History(t.Context(), "account", "none", jetstream.Range{AsOf: last.Time})); err != nil || len(got) > 0 {
			t.Errorf("%d commits, %v", len(got), err)
		}
		for _, back := range []bool{false, true} {
			foreign := jetstream.Range{To: r.all[1].Sequence, Backwards: back}
			if _, err := collect(r.Scan(t.Context(), "account", foreign)); !errors.Is(err, jetstream.ErrIncomplete) {
				t.Error(err)
			}
			if _, err := collect(r.History(t.Context(), "account", "a1", foreign)); !errors.Is(err, jetstream.ErrIncomplete) {
				t.Error(err)
			}
		}
	}
	t.Run("R1", func(t *testing.T) { t.Parallel(); test(t, newStore(t)) })
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, open(t, natstest.RunCluster(t).Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3}))
	})
}

func TestRangesThatSayNothing(t *testing.T) {
	t.Parallel()
	s := jetstream.NewStoreForTest("bank", "k3q5x7wzabcde", 64)
	for want, r := range map[string]jetstream.Range{
		"Range.To":           {To: 1, UpToVersion: 1},
		"Range.AfterVersion": {AfterVersion: 3},
		"Range.UpToVersion":  {UpToVersion: 3},
		"Range.From":         {From: 7},
		"event name":         {Events: []string{"a b"}},
	} {
		_, err := collect(s.Scan(t.Context(), "", r))
		if !is[*jetstream.InvalidError](err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	_, err := collect(s.History(t.Context(), "account", "a1", jetstream.Range{From: 7, To: 5, AsOf: storedAt, Events: []string{""}}))
	for _, want := range []string{"Range.To", "Range.From", "event name"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestLongHistory reads a history of many windows, of large and small commits, in
// little memory.
func TestLongHistory(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const n = 900
	want := make([]uint64, 0, n)
	var head, other jetstream.Head
	for i := range n {
		w := write("a1", "", head)
		if i > 300 && i < 330 {
			w.Decisions[0].Events[0].Data = []byte("\xc6\x00\x04\x00\x00" + strings.Repeat("x", 256<<10))
		}
		var err error
		if head, err = s.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		want = append(want, head.Sequence)
		if i > 600 && i%2 == 0 { // Later commits lie farther apart.
			if other, err = s.Append(t.Context(), write("b", "", other)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []jetstream.Range{{}, {After: want[0]}, {After: want[450]}, {Backwards: true}} {
		got, err := history(t.Context(), s, "a1", r)
		due := slices.DeleteFunc(slices.Clone(want), func(seq uint64) bool { return seq <= r.After })
		if r.Backwards {
			slices.Reverse(due)
		}
		if err != nil || !slices.Equal(sequences(got), due) {
			t.Errorf("%+v: %d commits of %d, %v", r, len(got), len(due), err)
		}
	}
}

// TestRangesThatHoldNothing: nothing is yielded of what lies outside of a range,
// also where its end is not there.
func TestRangesThatHoldNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	appendN(t, s, "a1", 3)
	appendN(t, s, "b", 1)
	never := time.Now().Add(1000 * time.Hour)
	for _, r := range []jetstream.Range{
		{Since: never}, {Since: never, To: 5}, {Since: never, To: 4}, {Since: never, AsOf: never.Add(1)},
		{AsOf: time.Unix(1, 0)}, {After: 4, To: 3}, {After: 4, To: 4},
	} {
		for name, seq := range map[string]iter.Seq2[*jetstream.Commit, error]{
			"history": s.History(t.Context(), "account", "a1", r), "scan": s.Scan(t.Context(), "account", r),
		} {
			if name == "scan" && r.After > 0 {
				continue // b's
			}
			for c, err := range seq {
				if c != nil || err != nil && !errors.Is(err, jetstream.ErrIncomplete) {
					t.Errorf("%s %+v: %+v, %v", name, r, c, err)
				}
			}
		}
	}
}

// TestMetadataIsRead is AC-A11: what was written with a decision is returned with
// each of its events, by every kind of read.
func TestMetadataIsRead(t *testing.T) {
	t.Parallel()
	r := newRanged(t, newStore(t), 5)
	last, err := r.Last(t.Context(), "account", "a1", jetstream.Replica)
	if err != nil {
		t.Fatal(err)
	}
	at, err := r.At(t.Context(), "account", "a1", r.commits[0].Sequence)
	if err != nil {
		t.Fatal(err)
	}
	history, err := collect(r.History(t.Context(), "account", "a1", jetstream.Range{Backwards: true}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(append(history, last, at), r.commits...) {
		if got := c.Decisions[0].Metadata["n"]; got != strconv.FormatUint(c.Ordinal-1, 10) {
			t.Errorf("ordinal %d: metadata %q", c.Ordinal, got)
		}
	}
}

// TestReadsCanBeCancelled: a read ends with its context, wherever it is.
func TestReadsCanBeCancelled(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	appendN(t, s, "a1", 600)
	for _, back := range []bool{false, true} {
		for kind, read := range map[string]func(context.Context) (int, error){
			"history": func(ctx context.Context) (int, error) { return stopAfter(ctx, s, "a1", back) },
			"scan":    func(ctx context.Context) (int, error) { return stopAfter(ctx, s, "", back) },
		} {
			if n, err := read(t.Context()); !errors.Is(err, context.Canceled) || n == 600 {
				t.Errorf("%s, backwards %v: %d commits, %v", kind, back, n, err)
			}
		}
	}
}

// stopAfter cancels a read at its first commit, and goes on reading.
func stopAfter(ctx context.Context, s *jetstream.Store, id string, back bool) (n int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seq := s.Scan(ctx, "", jetstream.Range{Backwards: back})
	if id != "" {
		seq = s.History(ctx, "account", id, jetstream.Range{Backwards: back})
	}
	for _, err := range seq {
		cancel()
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
