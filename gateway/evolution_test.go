package gateway_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	settled struct{ Euros int64 }
	shipped struct{ To string }
)

// store appends a commit as another version of the program would.
func appendAs(t *testing.T, store *jetstream.Store, schema *jetstream.Schema, id string, after jetstream.Head, events ...any) jetstream.Head {
	t.Helper()
	var d jetstream.Decision
	for _, e := range events {
		data, err := schema.Encode(e, store.Codec())
		if err != nil {
			t.Fatal(err)
		}
		d.Events = append(d.Events, data)
	}
	head, err := store.Append(t.Context(), jetstream.Write{Type: "order", ID: id, After: after, Decisions: []jetstream.Decision{d}})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// AC-S13: a renamed and upcast event reaches the gateway that handles what it has
// become.
func TestRenamedEventsAreDelivered(t *testing.T) {
	t.Parallel()
	store, _, _ := setup(t)
	former := jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Event[settled]("settled"))
	latter := jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Renamed("settled", "paid"),
		jetstream.Event[paid]("paid", jetstream.Version(2), jetstream.Upcast(func(o settled) paid { return paid{o.Euros * 100} })))
	head := appendAs(t, store, former, "o1", jetstream.Head{}, placed{1})
	head = appendAs(t, store, former, "o1", head, settled{3})
	appendAs(t, store, latter, "o1", head, paid{7})
	got := make(chan post, 3)
	run(t, newGateway(t, store, "latter", config(), gateway.On(latter, func(_ context.Context, e paid, d gateway.Delivery) error {
		got <- post{d, e.Cents}
		return nil
	})))
	for _, want := range []int64{300, 7} {
		if p := received(t, got); p.cents != want || p.Name != "paid" {
			t.Errorf("%+v, want %d", p, want)
		}
	}
}

// An event that only a newer program knows stops a gateway, is skipped alone, or
// lets its aggregate wait, as the gateway was told.
func TestUnknownEventsByPolicy(t *testing.T) {
	t.Parallel()
	store, _, _ := setup(t)
	newer := jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Event[shipped]("shipped"),
		jetstream.Event[paid]("paid"), jetstream.Event[refunded]("refunded"))
	head := appendAs(t, store, newer, "o1", jetstream.Head{}, paid{1}, shipped{"Bergen"}, paid{2})
	appendAs(t, store, newer, "o1", head, paid{3})
	appendAs(t, store, newer, "o2", jetstream.Head{}, paid{4})

	deliveries := func(name string, policy jetstream.UnknownPolicy) (*gateway.Gateway, <-chan post) {
		cfg := config()
		cfg.Unknown = policy
		got := make(chan post, 10)
		return newGateway(t, store, name, cfg, payments(func(_ context.Context, p post) error { got <- p; return nil })), got
	}
	g, _ := deliveries("stops", jetstream.StopOnUnknown)
	if err := received(t, ends(t, g)); !errors.Is(err, jetstream.ErrUnknownEvent) {
		t.Errorf("stop: %v", err)
	}
	g, got := deliveries("skips", jetstream.SkipUnknown)
	run(t, g)
	cents := make([]int64, 0, 4)
	for range 4 {
		cents = append(cents, received(t, got).cents)
	}
	caughtUp(t, g)
	if slices.Sort(cents); !slices.Equal(cents, []int64{1, 2, 3, 4}) {
		t.Errorf("skip: delivered %v", cents)
	}

	// Of o1 nothing is delivered, o2 goes on.
	g, got = deliveries("parks", jetstream.ParkUnknown)
	stop := run(t, g)
	if p := received(t, got); p.cents != 4 {
		t.Errorf("park: delivered %+v", p)
	}
	natstest.Eventually(t, "o1 parked", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || !s.Blocked[0].Parked {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	if len(got) > 0 {
		t.Errorf("park: delivered %+v", <-got)
	}
	// The newer program takes it up again.
	cfg := config()
	more := make(chan post, 10)
	g = newGateway(t, store, "parks", cfg, gateway.On(newer, func(_ context.Context, e paid, d gateway.Delivery) error {
		more <- post{d, e.Cents}
		return nil
	}))
	run(t, g)
	natstest.Eventually(t, "resumed", func() error { return g.Resume(t.Context(), "") })
	for _, want := range []int64{1, 2, 3} {
		if p := received(t, more); p.cents != want || p.ID != "o1" {
			t.Errorf("resumed: %+v, want %d", p, want)
		}
	}
	// What a policy has no name for is refused.
	cfg.Unknown = 9
	if _, err := gateway.New(store, "odd", cfg, payments(nil)); err == nil {
		t.Error("an unknown policy is taken")
	}
}
