package projection_test

import (
	"errors"
	"strconv"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// spread is a view in which one event gives n keys a value that an index finds.
func spread(n int) *projection.Definition[account] {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = id(i)
	}
	return projection.NewKeyed("accounts",
		projection.On(accountEvents, func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner },
			projection.Keys(func(opened, jetstream.Meta) []string { return keys })))
}

// TestFindEnds: a search about as large as one answer may be ends at its last match,
// not where its values have to be read a second time.
func TestFindEnds(t *testing.T) {
	t.Parallel()
	sizes := []int{511, 1000, 1001, 1022, 1023}
	if testing.Short() {
		sizes = []int{1000, 1023} // as with the race detector
	}
	for _, n := range sizes {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.append("a", opened{Owner: "o"})
			start(t, f.store, spread(n).Index("owner", byOwner), quiet())
			r := reader[account](t, f, "accounts")
			for _, o := range []projection.FindOptions{{}, {Value: "o"}, {Limit: 1000}, {Limit: n}, {Limit: n + 1}} {
				o.AtLeast = f.last
				want := n
				if o.Limit > 0 {
					want = min(want, o.Limit)
				}
				if got := find(t, r, "owner", o); len(got) != want {
					t.Errorf("%+v: %d of %d entries", o, len(got), want)
				}
			}
		})
	}
}

// TestFindTooMany: a search that would have to sort more than it may is refused, and
// one that is narrow enough is not.
func TestFindTooMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a", opened{Owner: "o"})
	start(t, f.store, spread(1100).Index("owner", byOwner), quiet())
	r := reader[account](t, f, "accounts")
	projection.MaxMatches(r, 1099)
	yielded := 0
	var last error
	for _, err := range r.Find(t.Context(), "owner", projection.FindOptions{AtLeast: f.last}) {
		if last = err; err == nil {
			yielded++
		}
	}
	if !errors.Is(last, projection.ErrTooManyMatches) || yielded > 0 {
		t.Errorf("%d entries, %v", yielded, last)
	}
	// A client is told the same, by the code.
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()
	c := projection.NewQueryClient[account](f.nc, f.store.Name(), "accounts")
	told := 0
	for e, err := range c.Find(t.Context(), "owner", projection.FindOptions{}) {
		told++
		var refused *projection.QueryError
		if !errors.Is(err, projection.ErrTooManyMatches) || !errors.As(err, &refused) || refused.Code != projection.CodeTooMany {
			t.Errorf("over the wire: %+v, %v", e, err)
		}
	}
	if told != 1 {
		t.Errorf("over the wire it was told %d times", told)
	}
	// With one value nothing is sorted.
	if got := find(t, r, "owner", projection.FindOptions{Value: "o"}); len(got) != 1100 {
		t.Errorf("%d entries", len(got))
	}
	projection.MaxMatches(r, 1100)
	if got := find(t, r, "owner", projection.FindOptions{}); len(got) != 1100 {
		t.Errorf("%d entries", len(got))
	}
}

// TestFindWhileTheIndexGoes: a search under way while the view is switched to a
// generation without the index says so, and does not just end.
func TestFindWhileTheIndexGoes(t *testing.T) {
	t.Parallel()
	const n = 2100
	f := newFixture(t)
	f.append("a", opened{Owner: "o"})
	first := start(t, f.store, spread(n).Index("owner", byOwner), quiet())
	r := reader[account](t, f, "accounts")
	yielded := 0
	var last error
	for _, err := range r.Find(t.Context(), "owner", projection.FindOptions{AtLeast: f.last}) {
		if last = err; err != nil {
			break
		}
		if yielded++; yielded > 1 {
			continue
		}
		start(t, f.store, spread(n).Version(2), quiet())
		generation(t, admin(t, f, "accounts"), 2, "live", live)
		if err := first.wait(); !errors.Is(err, projection.ErrSuperseded) {
			t.Errorf("Run: %v", err)
		}
	}
	if !errors.Is(last, projection.ErrIndex) || yielded == 0 || yielded >= n {
		t.Errorf("%d of %d entries, then: %v", yielded, n, last)
	}
	if _, err := r.Position(t.Context()); err != nil {
		t.Errorf("the reader goes on: %v", err)
	}
}
