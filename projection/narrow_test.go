package projection_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestFilterFollowsTheStore: the consumer of a view of one type has a filter while few
// of the store's events are of that type, and the view is right all along.
func TestFilterFollowsTheStore(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		filterFollows(t, newFixture(t))
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		filterFollows(t, fixtureAt(t, natstest.RunCluster(t).URLs()[0], 3))
	})
}

func filterFollows(t *testing.T, f *fixture) {
	t.Helper()
	m := model{}
	up, err := projection.NewUpdater(f.store, accounts(), lasting())
	if err != nil {
		t.Fatal(err)
	}
	projection.NarrowEvery(up, 16)
	launch(t, up)
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	// until appends until the consumer has the filter.
	until := func(filter string, more func()) {
		t.Helper()
		ok := natstest.Retry(t, fmt.Sprintf("the filter %q", filter), func(ctx context.Context) error {
			more()
			c, err := js.Consumer(ctx, f.store.Name(), "accounts")
			if err != nil {
				return err
			}
			if got := c.CachedInfo().Config.FilterSubject; got != filter {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
		if !ok {
			t.FailNow()
		}
	}
	some := func() { f.feed(m, 20, 4) }
	others := func() {
		for i := range 20 {
			f.appendData("noise", id(i%4), jetstream.EventData{Name: "made", Version: 1, Data: []byte("\xc0")})
		}
	}
	until("", some)
	f.check(m)
	until(f.store.SubjectFilter("account"), others)
	f.feed(m, 3, 4) // few of many: they come through the filter
	f.check(m)
	until("", some)
	f.check(m)
	if s := up.Status(); s.Err != nil && !errors.Is(s.Err, context.Canceled) {
		t.Error(s.Err)
	}
}
