package projection_test

import (
	"cmp"
	"context"
	"fmt"
	"log"
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

// row is what the totals' view holds: an account under "account." and its id, and
// under "owner." and a name how many accounts somebody has, and what is on them.
type row struct {
	Owner    string `json:"owner,omitempty"`
	Cents    int64  `json:"cents"`
	Accounts int    `json:"accounts,omitempty"` // of owners only
}

// count adds an account to the total of its owner, or takes it out with -1.
func count(tx *projection.Tx[row], a row, sign int) {
	key := "owner." + a.Owner
	total, _ := tx.Get(key)
	total.Accounts += sign
	total.Cents += int64(sign) * a.Cents
	if total.Accounts == 0 {
		tx.Delete(key)
		return
	}
	tx.Put(key, total)
}

// change changes an account, and the totals with it: what it was is taken out of
// one, what it is goes into one. A nil do deletes it.
func change(tx *projection.Tx[row], id string, do func(*row)) {
	key := "account." + id
	a, found := tx.Get(key)
	if found {
		count(tx, a, -1)
	}
	if do == nil {
		tx.Delete(key)
		return
	}
	do(&a)
	count(tx, a, +1)
	tx.Put(key, a)
}

// ownerTotals counts and sums up the accounts of each owner. Its indexes rank owners
// and accounts by what they have.
func ownerTotals() *projection.Definition[row] {
	rank := func(owners bool) func(row) []string {
		return func(r row) []string {
			if (r.Accounts > 0) != owners {
				return nil
			}
			return []string{projection.IntValue(r.Cents)}
		}
	}
	return projection.NewLookup("totals",
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e opened, m jetstream.Meta) error {
			change(tx, m.ID, func(r *row) { r.Owner = e.Owner })
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e credited, m jetstream.Meta) error {
			change(tx, m.ID, func(r *row) { r.Cents += e.Cents })
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], e moved, _ jetstream.Meta) error {
			change(tx, e.From, func(r *row) { r.Cents -= e.Cents })
			if e.To != e.From {
				change(tx, e.To, func(r *row) { r.Cents += e.Cents })
			}
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[row], _ closed, m jetstream.Meta) error {
			change(tx, m.ID, nil)
			return nil
		}),
	).Index("owners", rank(true)).Index("accounts", rank(false))
}

// Counts, sums and a ranking over many keys. Functions and definition are those
// above: what an account was is taken out of its owner's total before an event,
// what it is goes into one after it.
func ExampleReader_Find_topOwners() {
	nc, last, end := bank(ownerTotals())
	defer end()

	ctx := context.Background()
	reader, err := projection.NewReader[row](ctx, nc, "bank", "totals", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	top := projection.FindOptions{Reverse: true, Limit: 10, AtLeast: last}
	for owner, err := range reader.Find(ctx, "owners", top) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s has %d in %d account\n", owner.Key, owner.Value.Cents, owner.Value.Accounts)
	}
	// Output:
	// owner.ann has 70 in 1 account
	// owner.bob has 5 in 1 account
}

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
			for e, err := range r.Find(t.Context(), "owners", projection.FindOptions{Reverse: true}) {
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
