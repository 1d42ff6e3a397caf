package projection_test

import (
	"fmt"
	"testing"

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
				cfg := lasting()
				nc, store := f.attach()
				start(t, store, accounts(), cfg)
				f.check(m)
				want := projection.StateStandby
				if paused {
					want = projection.StatePaused
					if err := admin(t, f, "accounts").Pause(patient(t), "a test"); err != nil {
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
				f.deleteBucket("accounts")
				f.feed(m, 20, 5)
				f.check(m)
			})
		}
	})
}
