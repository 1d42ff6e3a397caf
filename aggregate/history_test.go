package aggregate_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// An aggregate is found as it was at every version, those within a commit too, and
// at every time, whether its states travel in the commits or not.
func TestLoadAt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		for name, typ := range map[string]*aggregate.Type[ledger]{
			"states": newLedgers(1), "none": newLedgers(1, aggregate.StateLimit(0)),
		} {
			repo := repoOf(t, store, typ)
			must(t, repo, name, startLedger{})
			for i := range times(30, 12) {
				must(t, repo, name, book{i%3 + 1})
				must(t, newRepo(t, store), "a-"+name, open{1}, aggregate.CommandID("once")) // others come between
			}
			last, err := repo.Load(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for what, r := range map[string]*aggregate.Repository[ledger]{"warm": repo, "cold": repoOf(t, store, typ)} {
				for v := uint64(1); v <= last.Version; v++ {
					snap, err := r.LoadAt(t.Context(), name, v)
					if err != nil || snap.Version != v || snap.State.Count != int64(v)-1 || snap.ID != name {
						t.Fatalf("%s, %s, version %d: %+v %v", name, what, v, snap, err)
					}
					past, err := r.LoadAsOf(t.Context(), name, snap.StoredAt)
					if err != nil || past.Version < v || past.Version > v+2 || past.StoredAt != snap.StoredAt || past.Position != snap.Position {
						t.Fatalf("%s, %s, as of version %d: %+v %v", name, what, v, past, err)
					}
				}
				_, err := r.LoadAt(t.Context(), name, last.Version+1)
				if e := as[*aggregate.VersionError](t, err); e.Expected != last.Version+1 || e.Actual != last.Version {
					t.Error(err)
				}
				first, err := r.LoadAt(t.Context(), name, 1)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.LoadAsOf(t.Context(), name, first.StoredAt.Add(-1)); !errors.Is(err, aggregate.ErrNotFound) {
					t.Error(err)
				}
				if snap, err := r.LoadAsOf(t.Context(), name, time.Now().Add(time.Hour)); err != nil || snap.Version != last.Version {
					t.Error(snap, err)
				}
			}
			// The past is no news to whoever loads now.
			sums(t, repo, name, int64(last.Version)-1, int64(last.Version)-1)
		}
		repo := repoOf(t, store, newLedgers(1))
		if _, err := repo.LoadAt(t.Context(), "none-such", 1); !errors.Is(err, aggregate.ErrNotFound) {
			t.Error(err)
		}
		if _, err := repo.LoadAsOf(t.Context(), "none-such", time.Now()); !errors.Is(err, aggregate.ErrNotFound) {
			t.Error(err)
		}
		_, err := repo.LoadAt(t.Context(), "states", 0)
		invalid(t, err, "version")
		_, err = repo.LoadAsOf(t.Context(), "states", time.Time{})
		invalid(t, err, "time")
	})
}

// A version in a long history is found in a few requests, and with its state in the
// commit nothing is replayed.
func TestLoadAtIsCheap(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := newLedgers(1)
	fill(t, repoOf(t, store, typ), "l1", 0, 500, 2)
	for _, v := range []uint64{1, 2, 3, 250, 777, 1000, 1001} {
		costs(t, fmt.Sprintf("version %d of 1001", v), nc, 25, func() {
			if snap, err := repoOf(t, store, typ).LoadAt(t.Context(), "l1", v); err != nil || snap.State.Count != int64(v)-1 {
				t.Errorf("%+v %v", snap, err)
			}
		})
	}
}

// A history is read forwards and backwards, between versions and times.
func TestHistory(t *testing.T) {
	t.Parallel()
	_, onServer := newRepository(t, natstest.Conn(t, natstest.Run(t).URL()))
	for name, repo := range map[string]*aggregate.Repository[account]{
		"OnAServer": onServer, "InMemory": aggregatetest.NewRepository(aggregatetest.NewStore(t), accounts),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			must(t, repo, "a1", open{100})
			must(t, repo, "a1", move{1, 2})
			must(t, repo, "a1", move{3, 4})
			must(t, repo, "a1", credit{5})
			read := func(opts ...aggregate.HistoryOption) (versions []string) {
				t.Helper()
				for e, err := range repo.History(t.Context(), "a1", opts...) {
					if err != nil {
						t.Fatal(err)
					}
					versions = append(versions, strconv.FormatUint(e.Version, 10))
				}
				return versions
			}
			var at []time.Time
			for e, err := range repo.History(t.Context(), "a1") {
				if err != nil {
					t.Fatal(err)
				}
				at = append(at, e.StoredAt)
			}
			for want, opts := range map[string][]aggregate.HistoryOption{
				"1 2 3 4 5 6": nil,
				"6 5 4 3 2 1": {aggregate.Backwards()},
				"3 4 5":       {aggregate.AfterVersion(2), aggregate.UpToVersion(5)},
				"4 3":         {aggregate.AfterVersion(2), aggregate.UpToVersion(4), aggregate.Backwards()},
				"6":           {aggregate.AfterVersion(5)},
				"":            {aggregate.AfterVersion(6)},
				"1 2 3":       {aggregate.AsOf(at[1])},
				"6 5 4":       {aggregate.Since(at[3]), aggregate.Backwards()},
				"2 3 4 5":     {aggregate.Since(at[1]), aggregate.AsOf(at[4])},
				"1":           {aggregate.AsOf(at[5]), aggregate.UpToVersion(1)}, // the last one holds
			} {
				if got := strings.Join(read(opts...), " "); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
			for _, err := range repo.History(t.Context(), "a1", aggregate.UpToVersion(7)) {
				if !errors.Is(err, jetstream.ErrIncomplete) {
					t.Error(err)
				}
			}
			for e, err := range repo.History(t.Context(), "none") {
				t.Error(e, err)
			}
			for v, want := range []int64{100, 99, 101, 98, 102, 107} {
				snap, err := repo.LoadAt(t.Context(), "a1", uint64(v)+1)
				if err != nil || snap.State.Cents != want {
					t.Errorf("version %d: %+v %v", v+1, snap, err)
				}
			}
		})
	}
}
