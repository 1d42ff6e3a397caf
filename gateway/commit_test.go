package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// store appends one commit of several events.
func store(t *testing.T, s *jetstream.Store, schema *jetstream.Schema, id string, made ...any) {
	t.Helper()
	d := jetstream.Decision{}
	for _, e := range made {
		data, err := schema.Encode(e, s.Codec())
		if err != nil {
			t.Fatal(err)
		}
		d.Events = append(d.Events, data)
	}
	_, err := s.Append(t.Context(), jetstream.Write{Type: schema.Type(), ID: id, Decisions: []jetstream.Decision{d}})
	if err != nil {
		t.Fatal(err)
	}
}

// What is discarded is the event that failed, whatever was stored with it that has
// no handler.
func TestDiscardGivesUpWhatFailed(t *testing.T) {
	t.Parallel()
	s, _, _ := setup(t)
	store(t, s, events, "o1", placed{}, refunded{}, paid{1}, paid{2})
	var mu sync.Mutex
	var got []int64
	g := newGateway(t, s, "discards", config(), gateway.On(events, func(_ context.Context, e paid, _ gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.Cents)
		if e.Cents == 1 {
			return gateway.Permanent(errTest)
		}
		return nil
	}))
	run(t, g)
	lane := parked(t, g, 1).Blocked[0]
	admin, tried := followers.New(s), false
	natstest.Eventually(t, "it is discarded", func() error {
		err := admin.Discard(t.Context(), "discards",
			followers.Lane{Lane: lane.Subject, Sequence: lane.From}, false, "ada", "sent by post")
		if tried && errors.Is(err, followers.ErrNotWaiting) {
			return nil // it was, by a request whose answer was late
		}
		tried = true
		return err
	})
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("tried %v", got)
	}
}

// Attempts are those of an event: what the one before it in its commit took, it is
// not charged with.
func TestAttemptsAreOfTheEvent(t *testing.T) {
	t.Parallel()
	s, _, _ := setup(t)
	store(t, s, events, "o1", paid{1}, paid{2})
	var mu sync.Mutex
	var got []string
	cfg := config()
	cfg.Policies = []gateway.Policy{{Attempts: 3}}
	g := newGateway(t, s, "attempts", cfg, gateway.On(events, func(_ context.Context, e paid, d gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(e.Cents, d.Attempt))
		if d.Attempt < 3 {
			return errTest
		}
		return nil
	}))
	run(t, g)
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(got) != "[1 1 1 2 1 3 2 1 2 2 2 3]" {
		t.Errorf("tried %v", got)
	}
}

type both struct{ One, Two int64 }

// An event that was upcast into several and of which one is skipped is not done
// with that: the others are delivered, after a failure, too.
func TestSkipOfOneProductOfAnUpcaster(t *testing.T) {
	t.Parallel()
	s, _, _ := setup(t)
	old := jetstream.NewSchema("order", jetstream.Event[both]("both"), jetstream.Event[paid]("paid"))
	now := jetstream.NewSchema("order", jetstream.Event[paid]("paid"), jetstream.Retired("both",
		jetstream.UpcastMany(func(o both) []any { return []any{paid{o.One}, paid{o.Two}} })))
	store(t, s, old, "o1", both{1, 2}, paid{3})
	never := errors.New("never")
	var mu sync.Mutex
	tried := map[int64]int{}
	cfg := config()
	cfg.Policies = []gateway.Policy{{
		Is: func(err error) bool { return errors.Is(err, never) }, Attempts: 1, Then: gateway.Skip,
	}}
	g := newGateway(t, s, "products", cfg, gateway.On(now, func(_ context.Context, e paid, _ gateway.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		tried[e.Cents]++
		switch {
		case e.Cents == 1:
			return never
		case e.Cents == 2 && tried[2] == 1:
			return errTest
		}
		return nil
	}))
	run(t, g)
	caughtUp(t, g)
	mu.Lock()
	defer mu.Unlock()
	if tried[2] != 2 || tried[3] != 1 {
		t.Errorf("tried %v", tried)
	}
}
