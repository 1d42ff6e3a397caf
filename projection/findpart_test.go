package projection_test

import (
	"strconv"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestFindMuchInOnePart: a part of an index that no single answer can hold is read all
// the same, as is one that holds only the markers of what went, for a second.
func TestFindMuchInOnePart(t *testing.T) {
	t.Parallel()
	const n = 1030
	var keys []string
	for i := 0; len(keys) < n; i++ {
		if key := strconv.Itoa(i); projection.PartOf(key) == "0.0" {
			keys = append(keys, key)
		}
	}
	f := newFixture(t)
	f.append("a", opened{Owner: "o"})
	start(t, f.store, projection.NewKeyed("accounts",
		projection.On(accountEvents, func(a *account, e opened, _ jetstream.Meta) { a.Owner = e.Owner },
			projection.Keys(func(opened, jetstream.Meta) []string { return keys })),
		projection.OnRow(accountEvents, func(r *projection.Row[account], _ closed, _ jetstream.Meta) error {
			r.Delete()
			return nil
		}, projection.Keys(func(closed, jetstream.Meta) []string { return keys[1:] })),
	).Index("owner", byOwner), quiet())
	r := reader[account](t, f, "accounts")
	for _, want := range []int{n, 1} {
		for _, o := range []projection.FindOptions{{}, {Value: "o"}, {Value: "o", Reverse: true}, {Value: "o", Limit: n - 1}, {Value: "other"}} {
			o.AtLeast = f.last
			n := want
			switch {
			case o.Value == "other":
				n = 0
			case o.Limit > 0:
				n = min(n, o.Limit)
			}
			if got := find(t, r, "owner", o); len(got) != n {
				t.Errorf("%+v: %d of %d entries", o, len(got), n)
			}
		}
		f.append("a", closed{})
	}
}
