package projection_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// TestIndexedPagesDie: updaters die within pages of more keys than a batch holds,
// some of which change an index and some not. What they leave is consistent, though
// the position has not moved: each value is found by what it says, and by nothing
// else. In the end view and index are those of a fold of all events.
func TestIndexedPagesDie(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				url = strings.Join(natstest.RunCluster(t).URLs(), ",")
			}
			f := fixtureAt(t, url, replicas)
			m := model{}
			def := func() *projection.Definition[account] { return accounts().Index("owner", byOwner) }
			died := []string{"each", "batch", "put", "stored", "batch"}
			if replicas == 3 {
				died = died[1:] // there each page is batches
			}
			if testing.Short() {
				died = died[:2] // as with the race detector
			}
			for round, step := range died {
				f.feedWide(m, round)
				nc, store := f.attach()
				up, err := projection.NewUpdater(store, def(), mortal())
				if err != nil {
					t.Fatal(err)
				}
				var reached atomic.Int64
				projection.Steps(up, func(s string) {
					if s == step && reached.Add(1) == 1 {
						nc.Close()
					}
				})
				run := launch(t, up)
				natstest.Eventually(t, "the updater dies at "+step, func() error {
					if !nc.IsClosed() {
						return fmt.Errorf("%+v", up.Status())
					}
					return nil
				})
				_ = run.wait()
				f.standsStill(t)
			}
			_, store := f.attach()
			start(t, store, def(), mortal())
			f.check(m)
			f.standsStill(t)
			want := map[string]bool{}
			for key, a := range m {
				if a.Owner != "" {
					want[key] = true
				}
			}
			got := map[string]bool{}
			for _, x := range find(t, reader[account](t, f, "accounts"), "owner", projection.FindOptions{AtLeast: f.last}) {
				got[x.key] = true
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("found %v, wanted %v", got, want)
			}
		})
	}
}

// feedWide appends events for about 2,000 keys, and owners for some of them. Of the
// first commit alone no batch can hold the keys.
func (f *fixture) feedWide(m model, round int) {
	for i := range 40 {
		n := 45
		if i == 0 {
			n = 750
		}
		events := make([]any, 0, n)
		for range n {
			e := moved{From: id(rand.IntN(2500)), To: id(rand.IntN(2500)), Cents: 1}
			events = append(events, e)
			m.apply("x", e)
		}
		f.append("x", events...)
		key := id(rand.IntN(300))
		var e any = opened{Owner: fmt.Sprintf("o%d.%d", round, rand.IntN(5))}
		if rand.IntN(8) == 0 {
			e = closed{}
		}
		m.apply(key, e)
		f.append(key, e)
	}
}

// standsStill compares the index with the values while nobody writes.
func (f *fixture) standsStill(t *testing.T) {
	t.Helper()
	r := reader[account](t, f, "accounts")
	// The list may come from a replica that is behind, and the search from another.
	natstest.Eventually(t, "index and values agree", func() error {
		owners := map[string]string{}
		for e, err := range r.List(t.Context(), projection.ListOptions{}) {
			if err != nil {
				return err
			}
			if e.Value.Owner != "" {
				owners[e.Key] = e.Value.Owner
			}
		}
		got := map[string]string{}
		for e, err := range r.Find(t.Context(), "owner", projection.FindOptions{}) {
			if err != nil {
				return err
			}
			if e.Indexed != e.Value.Owner {
				t.Errorf("%s is found by %q, its owner is %q", e.Key, e.Indexed, e.Value.Owner)
			}
			if got[e.Key] != "" {
				return fmt.Errorf("%s is found by %q and by %q", e.Key, got[e.Key], e.Indexed)
			}
			got[e.Key] = e.Indexed
		}
		if !reflect.DeepEqual(got, owners) {
			return fmt.Errorf("found by owner %v, wanted %v", got, owners)
		}
		return nil
	})
}
