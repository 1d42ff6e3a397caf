package aggregate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// some metadata: the handler of notes writes to it.
var some = aggregate.Metadata(map[string]string{"k": "v"})

// The cache is bounded by bytes, and what was used last stays.
func TestCacheIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	const most = 64 << 10
	typ := newNotes()
	repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{CacheBytes: most})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // of 1 to 8 kB
		must(t, repo, fmt.Sprint("n", i), sizing{1000 + i%8*1000})
		if s := repo.Stats(); s.CacheBytes > most || s.CacheEntries == 0 {
			t.Fatalf("%+v", s)
		}
	}
	full := repo.Stats()
	if full.CacheBytes < most/2 || full.CacheEntries > 60 || full.CacheEvictions != 200-uint64(full.CacheEntries) {
		t.Errorf("%+v", full)
	}
	// The last one is there, the first is not.
	must(t, repo, "n199", note{"x"}, some)
	must(t, repo, "n0", note{"x"}, some)
	if s := repo.Stats(); s.CacheHits != full.CacheHits+1 || s.CacheMisses != full.CacheMisses+1 {
		t.Errorf("%+v, before %+v", s, full)
	}
	// One aggregate alone may be larger than all: it stays while it is used.
	must(t, repo, "big", sizing{200_000})
	s := repo.Stats()
	if s.CacheEntries != 1 || s.CacheBytes < 200_000 {
		t.Errorf("%+v", s)
	}
	must(t, repo, "n1", note{"x"}, some)
	if s := repo.Stats(); s.CacheEntries != 1 || s.CacheBytes > 10_000 {
		t.Errorf("%+v", s)
	}
	// What is remembered of one aggregate's commands is bounded, too.
	for range 400 {
		must(t, repo, "n1", note{"x"}, some, aggregate.CommandID(jetstream.NewCommandID()))
	}
	if s := repo.Stats(); s.CacheBytes > most {
		t.Errorf("%+v", s)
	}
}

// An old cache is never why a command is refused: the append finds out, or the
// leader is asked. The bytes that are kept are the process's own.
func TestCacheIsNeverWhyACommandIsRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, one := newRepository(t, nc)
	two := newRepo(t, store)
	must(t, one, "a1", open{0})
	for i := range 20 {
		must(t, two, "a1", credit{10}) // one's cache says 0
		if res, err := one.Execute(t.Context(), "a1", debit{10}); err != nil || res.Version != uint64(2*i+3) {
			t.Fatalf("%+v %v", res, err)
		}
		if _, err := two.Execute(t.Context(), "a1", debit{1}); !errors.Is(err, aggregate.ErrRejected) { // two's says 10
			t.Fatal(err)
		}
	}
}

// Handlers and interceptors that change what they are given change nothing.
func TestUserCodeCannotReachTheCache(t *testing.T) { // C14
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	spoil := func(n notes) {
		n.Seen["spoilt"] = 1
		n.Order[0] = "spoilt"
	}
	repo, err := aggregate.NewRepository(store, newNotes(), aggregate.RepositoryConfig{
		Interceptors: []aggregate.Interceptor{aggregate.Intercept(func(n notes, i aggregate.Interception) ([]any, error) {
			if i.Name != "begin" {
				spoil(n)
			}
			return i.Events, i.Err
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, repo, "n1", begin{})
	must(t, repo, "n1", note{"a"}, some)
	if _, err := repo.ExecuteFunc(t.Context(), "n1", func(n notes, _ aggregate.Decision) (any, error) {
		spoil(n)
		return note{"b"}, nil
	}, some); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*aggregate.Repository[notes]{repo, repoOf(t, store, newNotes())} {
		snap, err := r.Load(t.Context(), "n1")
		if err != nil || strings.Join(snap.State.Order, " ") != "begun a b" || len(snap.State.Seen) != 3 {
			t.Errorf("%+v %v", snap, err)
		}
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	_, repo := newRepository(t, nc)
	must(t, repo, "a1", open{10}, aggregate.CommandID("x"))
	must(t, repo, "a1", open{10}, aggregate.CommandID("x"))
	must(t, repo, "a1", debit{1})
	if _, err := repo.Execute(t.Context(), "a1", debit{100}); err == nil {
		t.Fatal("not refused")
	}
	s := repo.Stats()
	want := aggregate.Stats{
		Commands: 4, Commits: 2, Decisions: 2, Duplicates: 1, Refusals: 1, CacheHits: 3, CacheMisses: 1,
		CacheEntries: 1, CacheBytes: s.CacheBytes,
	}
	want.Groups[0] = 2
	if s != want || s.CacheBytes == 0 {
		t.Errorf("%+v, want %+v", s, want)
	}
	if len(aggregate.GroupSizes()) != len(s.Groups)-1 {
		t.Error("a bucket without a bound")
	}
}
