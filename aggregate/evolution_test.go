package aggregate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	paidIn struct{ Euros int64 }
	swept  struct{ Out, In int64 }
)

// The events as they were once declared, and what has become of them: "paid-in" is
// "credited" in its second version, "swept" was split.
var (
	formerEvents = jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited"),
		jetstream.Event[paidIn]("paid-in"), jetstream.Event[swept]("swept"))
	latterEvents = jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited"),
		jetstream.Event[credited]("credited", jetstream.Version(2),
			jetstream.Upcast(func(o paidIn) credited { return credited{o.Euros * 100} })),
		jetstream.Renamed("paid-in", "credited"),
		jetstream.Retired("swept", jetstream.UpcastMany(func(o swept) []any { return []any{debited{o.Out}, credited{o.In}} })),
	)
)

func appendAs(t *testing.T, store *jetstream.Store, id string, after jetstream.Head, events ...jetstream.EventData) jetstream.Head {
	t.Helper()
	head, err := store.Append(t.Context(), jetstream.Write{
		Type: "account", ID: id, After: after, Decisions: []jetstream.Decision{{Events: events}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func encodeAs(t *testing.T, store *jetstream.Store, schema *jetstream.Schema, event any) jetstream.EventData {
	t.Helper()
	data, err := schema.Encode(event, store.Codec())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func latter() *aggregate.Type[account] {
	return aggregate.New[account](latterEvents,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) { return []any{credited(c)}, nil }),
	)
}

// AC-A13, AC-S13: old events are folded as what they have become, and reach the
// reactors that handle it.
func TestEvolvedEvents(t *testing.T) {
	t.Parallel()
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	h := appendAs(t, store, "a1", jetstream.Head{}, encodeAs(t, store, formerEvents, opened{1000}))
	h = appendAs(t, store, "a1", h, encodeAs(t, store, formerEvents, paidIn{2}))
	h = appendAs(t, store, "a1", h, encodeAs(t, store, formerEvents, swept{30, 4}))
	appendAs(t, store, "a1", h, encodeAs(t, store, latterEvents, credited{5}))
	repo := repoOf(t, store, latter())
	// A version counts what is stored, not what it is read as.
	balance(t, repo, "a1", 1179, 4)
	must(t, repo, "a1", credit{1})
	balance(t, repo, "a1", 1180, 5)

	seen := make(chan int64, 10)
	r := newReactor(t, store, "latter", aggregate.On(latterEvents, func(_ context.Context, e credited, m jetstream.Meta, _ *aggregate.Do) error {
		if m.Name != "credited" {
			e.Cents = -1
		}
		seen <- e.Cents
		return nil
	}))
	run(t, r)
	for _, want := range []int64{200, 4, 5, 1} {
		if got := received(t, seen); got != want {
			t.Errorf("handled %d, want %d", got, want)
		}
	}
}

// An aggregate with an event that its program does not know, or cannot read, is
// not decided on: the error says which event.
func TestAggregatesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	repo := newRepo(t, store)
	broken := encodeAs(t, store, events, credited{5})
	broken.Data = []byte("\xc1")
	for id, c := range map[string]struct {
		event   jetstream.EventData
		unknown bool
		want    []string
	}{
		"newer":   {encodeAs(t, store, formerEvents, paidIn{1}), true, []string{`"paid-in"`, "version 1", "older than the writer"}},
		"version": {encodeAs(t, store, latterEvents, credited{1}), true, []string{`"credited"`, "version 2", "older than the writer"}},
		"broken":  {broken, false, []string{`decode event "credited" version 1`}},
	} {
		h := appendAs(t, store, id, jetstream.Head{}, encodeAs(t, store, events, opened{1}))
		appendAs(t, store, id, h, c.event)
		for what, err := range map[string]error{
			"Execute": func() error { _, err := repo.Execute(t.Context(), id, credit{1}); return err }(),
			"Load":    func() error { _, err := repo.Load(t.Context(), id); return err }(),
		} {
			if err == nil || errors.Is(err, jetstream.ErrUnknownEvent) != c.unknown {
				t.Errorf("%s, %s: %v", id, what, err)
				continue
			}
			for _, want := range append(c.want, `account "`+id+`" version 2`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v, want %s", id, what, err, want)
				}
			}
		}
	}
	// Nothing was written, so that nothing is lost: the program that knows reads on.
	balance(t, repoOf(t, store, latter()), "version", 2, 2)
}

// What a reactor does not know lets only its aggregate wait when it is told so.
func TestReactorParksUnknownEvents(t *testing.T) {
	t.Parallel()
	store := newStore(t, natstest.Conn(t, natstest.Run(t).URL()), jetstream.Config{})
	h := appendAs(t, store, "new", jetstream.Head{}, encodeAs(t, store, formerEvents, paidIn{1}))
	appendAs(t, store, "new", h, encodeAs(t, store, events, credited{1}))
	appendAs(t, store, "old", jetstream.Head{}, encodeAs(t, store, events, credited{2}))
	cfg := reactorConfig()
	cfg.Unknown = jetstream.ParkUnknown
	seen := make(chan string, 10)
	r, err := aggregate.NewReactor(store, "parks-unknown", cfg, aggregate.On(events,
		func(_ context.Context, _ credited, m jetstream.Meta, _ *aggregate.Do) error { seen <- m.ID; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, r)
	if id := received(t, seen); id != "old" {
		t.Errorf("handled %s", id)
	}
	natstest.Eventually(t, "parked", func() error {
		if s := r.Status(); len(s.Blocked) != 1 || !s.Blocked[0].Parked {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	if len(seen) > 0 {
		t.Errorf("handled %s", <-seen)
	}
	cfg.Unknown = 9
	_, err = aggregate.NewReactor(store, "odd", cfg, aggregate.On(events,
		func(context.Context, credited, jetstream.Meta, *aggregate.Do) error { return nil }))
	invalid(t, err, "Unknown")
}
