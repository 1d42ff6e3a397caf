package projection_test

import (
	"fmt"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// TestBucketDeletedUnderStandby: the bucket is deleted while nobody owns the view,
// as its owner has crashed and another waits for the end of the lease, or while it
// is paused: the view is built anew all the same.
func TestBucketDeletedUnderStandby(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, url string, replicas int) {
		for _, paused := range []bool{false, true} {
			t.Run(fmt.Sprintf("paused=%v", paused), func(t *testing.T) {
				t.Parallel()
				f := fixtureAt(t, url, replicas)
				m := model{}
				f.feed(m, 20, 5)
				cfg := quiet()
				cfg.LeaseTTL = 2 * time.Second
				nc, store := f.attach()
				start(t, store, accounts(), cfg)
				f.check(m)
				want := projection.StateStandby
				if paused {
					want = projection.StatePaused
					if err := admin(t, f, "accounts").Pause(t.Context(), "a test"); err != nil {
						t.Fatal(err)
					}
				}
				nc.Close()
				up := start(t, f.store, accounts(), cfg)
				natstest.Eventually(t, "the other one waits", func() error {
					if s := up.Status(); s.State != want {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
				js, err := natsjs.New(f.nc)
				if err != nil {
					t.Fatal(err)
				}
				if err := js.DeleteStream(t.Context(), "KV_"+f.store.Name()+"_accounts"); err != nil {
					t.Fatal(err)
				}
				f.feed(m, 20, 5)
				f.check(m)
			})
		}
	})
}
