package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// One event that the service cannot take, among 500 aggregates – 150 with -short –: the others are
// delivered with not one call more than without it, its successors wait in the
// store, and after the fix they come in order.
func TestOnePoisonedAggregate(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		poisoned(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		poisoned(t, natstest.RunCluster(t).Conn(t), 3)
	})
}

func poisoned(t *testing.T, nc *nats.Conn, replicas int) {
	t.Helper()
	const each, attempts = 4, 3
	total := each * hostileOrders()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t), Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, store, total)
	var mu sync.Mutex
	order := map[string][]uint64{}
	calls, mended := 0, false
	cfg := config()
	cfg.Concurrency = 16
	cfg.Policies = []gateway.Policy{{Is: func(err error) bool { return errors.Is(err, errTest) }, Attempts: attempts}}
	g := newGateway(t, store, "poisoned", cfg, gateway.On(events, func(_ context.Context, _ paid, d gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if d.ID == "o7" && d.Version == 2 && !mended {
			return errTest
		}
		order[d.ID] = append(order[d.ID], d.Version)
		return nil
	}))
	run(t, g)
	before := total - (each - 1) // all but the poisoned event and those behind it
	natstest.Eventually(t, "the others are delivered", func() error {
		mu.Lock()
		defer mu.Unlock()
		done := calls - attempts
		if done != before {
			return fmt.Errorf("%d delivered, want %d", done, before)
		}
		return nil
	})
	// A lane is finished a moment after its last handler has returned.
	parked(t, g, 1)
	natstest.Eventually(t, "one lane is left", func() error {
		if s := g.Status(); s.Unfinished != 1 || s.Position < uint64(total) {
			return fmt.Errorf("position %d, %d lanes unfinished", s.Position, s.Unfinished)
		}
		return nil
	})
	mu.Lock()
	mended = true
	mu.Unlock()
	admin := followers.New(store)
	var groups []followers.Group
	natstest.Eventually(t, "what is parked", func() (err error) {
		groups, err = admin.Parked(t.Context(), "poisoned")
		return err
	})
	if len(groups) != 1 || !strings.HasSuffix(groups[0].Lanes[0].Lane, ".o7") {
		t.Fatalf("%+v", groups)
	}
	tried := false
	natstest.Eventually(t, "it is tried again", func() error {
		n, err := admin.Retry(t.Context(), "poisoned", followers.Selection{Group: groups[0].ID}, "ada")
		if tried && errors.Is(err, followers.ErrNotWaiting) {
			return nil // it is, by a request whose answer was late
		}
		if tried = true; err == nil && n != 1 {
			t.Errorf("%d lanes", n)
		}
		return err
	})
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	for id, versions := range order {
		if fmt.Sprint(versions) != "[1 2 3 4]" {
			t.Errorf("%s: %v", id, versions)
		}
	}
	if len(order) != hostileOrders() || calls != total+attempts {
		t.Errorf("%d aggregates, %d calls", len(order), calls)
	}
}
