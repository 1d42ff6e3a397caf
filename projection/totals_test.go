package projection_test

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

// TestTopFalls: a ranking is right when the first one goes, loses or comes back.
func TestTopFalls(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	start(t, f.store, ownerTotals(), quiet())
	for i := range 8 {
		f.append(id(i), opened{Owner: fmt.Sprint("o", i)}, credited{Cents: int64(10 * i)})
	}
	r := reader[row](t, f, "totals")
	top := func(index string, want ...string) {
		t.Helper()
		var got []string
		for e, err := range r.Find(t.Context(), index, projection.FindOptions{Reverse: true, Limit: 3, AtLeast: f.last}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(strings.TrimPrefix(e.Key, "owner."), "account."))
		}
		if !slices.Equal(got, want) {
			t.Errorf("the top %s are %q, wanted %q", index, got, want)
		}
	}
	top("owners", "o7", "o6", "o5")
	f.append(id(7), closed{})
	top("owners", "o6", "o5", "o4")
	top("accounts", "a6", "a5", "a4")
	f.append(id(6), credited{Cents: -55})
	top("owners", "o5", "o4", "o3")
	f.append(id(6), opened{Owner: "o3"}) // another owner's now
	top("owners", "o5", "o4", "o3")
	f.append(id(6), credited{Cents: 16}) // with the 30 that o3 has
	top("owners", "o3", "o5", "o4")
	f.append(id(7), credited{Cents: 99})
	top("accounts", "a7", "a5", "a4")
	top("owners", "", "o3", "o5") // a7 is nobody's
}

// TestTotalsUnderKills: totals and accounts agree in every snapshot while updaters
// are killed; in the end, and in a rebuild, they are those of a fold of all events.
func TestTotalsUnderKills(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var url string
			var cluster *natstest.Cluster
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				cluster = natstest.RunCluster(t)
				url = strings.Join(cluster.URLs(), ",")
			}
			f := fixtureAt(t, url, replicas)
			look := func() map[string]row {
				r := reader[row](t, f, "totals")
				rows := map[string]row{}
				for e, err := range r.List(t.Context(), projection.ListOptions{AtLeast: f.last}) {
					if err != nil {
						t.Fatal(err)
					}
					rows[e.Key] = e.Value
				}
				return rows
			}
			m := underKills(t, f, cluster, ownerTotals(), func() func() {
				r := reader[row](t, f, "totals")
				return func() { addsUp(t, r) }
			})
			want := map[string]row{}
			for id, a := range m {
				want["account."+id] = row{Owner: a.Owner, Cents: a.Cents}
				total := want["owner."+a.Owner]
				want["owner."+a.Owner] = row{Cents: total.Cents + a.Cents, Accounts: total.Accounts + 1}
			}
			if got := look(); !reflect.DeepEqual(got, want) {
				t.Errorf("totals are\n%v, wanted\n%v", got, want)
			}
			r := reader[row](t, f, "totals")
			ranked := slices.SortedFunc(maps.Values(want), func(a, b row) int { return -cmp.Compare(a.Cents, b.Cents) })
			ranked = slices.DeleteFunc(ranked, func(r row) bool { return r.Accounts == 0 })
			i := 0
			for e, err := range r.Find(t.Context(), "owners", projection.FindOptions{Reverse: true, AtLeast: f.last}) {
				if err != nil {
					t.Fatal(err)
				}
				if i >= len(ranked) || e.Value.Cents != ranked[i].Cents || want[e.Key] != e.Value {
					t.Fatalf("owner %d is %s with %+v, of %+v", i, e.Key, e.Value, ranked)
				}
				i++
			}
			if i != len(ranked) {
				t.Errorf("%d owners are ranked, wanted %d", i, len(ranked))
			}
			projectiontest.Rebuild(t, f.store, ownerTotals())
		})
	}
}

// addsUp looks at the whole view in one snapshot.
func addsUp(t *testing.T, r *projection.Reader[row]) {
	t.Helper()
	sums, rows := map[string]row{}, map[string]row{}
	var position jetstream.Position
	for e, err := range r.List(t.Context(), projection.ListOptions{}) {
		if err != nil {
			t.Errorf("list: %v", err)
			return
		}
		if !position.IsZero() && e.Position != position {
			t.Errorf("positions %v and %v in one answer", position, e.Position)
		}
		position = e.Position
		if strings.HasPrefix(e.Key, "account.") {
			sum := sums["owner."+e.Value.Owner]
			sums["owner."+e.Value.Owner] = row{Cents: sum.Cents + e.Value.Cents, Accounts: sum.Accounts + 1}
			continue
		}
		rows[e.Key] = e.Value
	}
	if !reflect.DeepEqual(sums, rows) {
		t.Errorf("at %v the accounts make %v, the totals are %v", position, sums, rows)
	}
}
