package projectiontest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

func TestRebuild(t *testing.T) {
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
			nc := natstest.Conn(t, url)
			var store *jetstream.Store
			natstest.Eventually(t, "open the store", func() (err error) {
				store, err = jetstream.Open(t.Context(), nc, jetstream.Config{
					Name: natstest.Name(t), Replicas: replicas, AppendTimeout: natstest.Patience,
				})
				return err
			})
			for i := range 20 {
				id := fmt.Sprint("a", i%5)
				data, err := events.Encode(Opened{Owner: fmt.Sprint("o", i%3)}, store.Codec())
				if err != nil {
					t.Fatal(err)
				}
				_, err = store.Append(t.Context(), jetstream.Write{
					Type: "account", ID: id, Expect: jetstream.Any(),
					Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			projectiontest.Rebuild(t, store, accounts())
			projectiontest.Rebuild(t, store, accounts()) // the view is there
			a, err := projection.NewAdmin(nc, store.Name(), "accounts")
			if err != nil {
				t.Fatal(err)
			}
			if all, err := a.Generations(t.Context()); err != nil || len(all) != 1 || !all[0].Live || all[0].Number != 1 {
				t.Errorf("left behind: %+v, %v", all, err)
			}
			clock := accounts(func(m *mistaken) {
				m.opened = func(a *Account, e Opened, _ jetstream.Meta) { a.Owner, a.By = e.Owner, time.Now().String() }
			})
			fails(t, func(t testing.TB) { projectiontest.Rebuild(t, store, clock) }, `"a4"`, "rebuilt", "clock")
			fails(t, func(t testing.TB) { projectiontest.Rebuild(t, store, clock.Index("by", nil)) }, "no function")
		})
	}
}
