package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// A wallet before and after a deploy: "spend" was called "take", "audit" is gone,
// "freeze" and its event are new, "filled" has another version, "spend" has one
// more field and leads to one more event.
type (
	oldFilled struct{ Units int }
	oldTaken  struct{ Units int }
	oldWallet struct{ Units int }
	oldFill   struct{ Units int }
	oldTake   struct{ Units int }
	oldAudit  struct{}

	newFilled struct{ Cents int }
	newTaken  struct{ Units int }
	newFee    struct{ Cents int }
	newFrozen struct{}
	newWallet struct{ Cents int }
	newFill   struct{ Units int }
	newSpend  struct {
		Units int
		Fee   int `json:",omitempty"`
	}
	newFreeze struct{}
)

var oldWallets = aggregate.New[oldWallet](
	jetstream.NewSchema("wallet", jetstream.Event[oldFilled]("filled"), jetstream.Event[oldTaken]("taken")),
	aggregate.Apply(func(w *oldWallet, e oldFilled, _ jetstream.Meta) { w.Units += e.Units }),
	aggregate.Apply(func(w *oldWallet, e oldTaken, _ jetstream.Meta) { w.Units -= e.Units }),
	aggregate.Create("fill", func(c oldFill, _ aggregate.Decision) ([]any, error) { return []any{oldFilled(c)}, nil }),
	aggregate.Handle("take", func(_ oldWallet, c oldTake, _ aggregate.Decision) ([]any, error) { return []any{oldTaken(c)}, nil }),
	aggregate.Handle("audit", func(oldWallet, oldAudit, aggregate.Decision) ([]any, error) { return nil, nil }),
)

var newWallets = aggregate.New[newWallet](
	jetstream.NewSchema("wallet",
		jetstream.Event[newFilled]("filled", jetstream.Version(2),
			jetstream.Upcast(func(e oldFilled) newFilled { return newFilled{100 * e.Units} })),
		jetstream.Event[newTaken]("taken"), jetstream.Event[newFee]("fee"), jetstream.Event[newFrozen]("frozen"),
	),
	aggregate.Apply(func(w *newWallet, e newFilled, _ jetstream.Meta) { w.Cents += e.Cents }),
	aggregate.Apply(func(w *newWallet, e newTaken, _ jetstream.Meta) { w.Cents -= 100 * e.Units }),
	aggregate.Apply(func(w *newWallet, e newFee, _ jetstream.Meta) { w.Cents -= e.Cents }),
	aggregate.Ignore[newFrozen](),
	aggregate.Create("fill", func(c newFill, _ aggregate.Decision) ([]any, error) { return []any{newFilled{100 * c.Units}}, nil }),
	aggregate.Handle("spend", func(_ newWallet, c newSpend, _ aggregate.Decision) ([]any, error) {
		if c.Fee > 0 {
			return []any{newTaken{c.Units}, newFee{c.Fee}}, nil
		}
		return []any{newTaken{c.Units}}, nil
	}),
	aggregate.RenamedCommand("take", "spend"),
	aggregate.Handle("freeze", func(newWallet, newFreeze, aggregate.Decision) ([]any, error) { return []any{newFrozen{}}, nil }),
)

// deploy is a store with services of both sides, which start and stop.
type deploy struct {
	oldOnes, newOnes func() (stop func())
	oldOne, newOne   *aggregate.Client
	url              string
	store            *jetstream.Store
}

func newDeploy(t *testing.T) *deploy {
	t.Helper()
	url := natstest.Run(t).URL()
	nc := natstest.Conn(t, url)
	store := newStore(t, nc, jetstream.Config{})
	d := &deploy{
		url: url, store: store,
		oldOne: clientOf(t, nc, store.Name(), oldWallets), newOne: clientOf(t, nc, store.Name(), newWallets),
	}
	d.oldOnes = func() func() {
		return run(t, newService(t, repoOf(t, reopen(t, natstest.Conn(t, url), store), oldWallets), aggregate.ServiceConfig{}))
	}
	d.newOnes = func() func() {
		return run(t, newService(t, repoOf(t, reopen(t, natstest.Conn(t, url), store), newWallets), aggregate.ServiceConfig{}))
	}
	return d
}

// unavailable wants a command on a to be done by nobody. On a machine that is slow
// a short time may end before there was an answer.
func unavailable(t *testing.T, client *aggregate.Client, command any, text string) {
	t.Helper()
	given := 100 * time.Millisecond
	natstest.Eventually(t, "nobody does it", func() error {
		given *= 2
		soon, cancel := context.WithTimeout(t.Context(), given)
		defer cancel()
		_, err := client.Execute(soon, "a", command)
		if errors.Is(err, jetstream.ErrUnavailable) && strings.Contains(err.Error(), text) {
			return nil
		}
		return fmt.Errorf("%w", err)
	})
}

// Clients of both sides are served by services of both sides, in any mixture.
func TestDeployBothSides(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(d *deploy){
		"old services":         func(d *deploy) { d.oldOnes() },
		"new services":         func(d *deploy) { d.newOnes() },
		"services of both":     func(d *deploy) { d.oldOnes(); d.newOnes() },
		"old, then new":        func(d *deploy) { stop := d.oldOnes(); d.newOnes(); stop() },
		"new, then old: back!": func(d *deploy) { stop := d.newOnes(); d.oldOnes(); stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeploy(t)
			start(d)
			must(t, d.oldOne, "old", oldFill{100})
			must(t, d.newOne, "new", newFill{100})
			spent := 0
			for i := range 6 { // whoever takes them
				for _, wallet := range []string{"old", "new"} {
					id := aggregate.CommandID(jetstream.NewCommandID())
					first, again := any(oldTake{1}), any(newSpend{Units: 1})
					one, other := d.oldOne, d.newOne
					if i%2 == 1 {
						one, other, first, again = other, one, again, first
					}
					res, err := one.Execute(t.Context(), wallet, first, id)
					if err != nil || len(res.Events) != 1 || res.Events[0].Name != "taken" || res.Events[0].Event == nil {
						// The wallet may have been made by another side: see TestDeployOutdated.
						t.Fatalf("%+v %v", res, err)
					}
					// The same command, whatever its name.
					if res, err := other.Execute(t.Context(), wallet, again, id); err != nil || !res.Duplicate {
						t.Fatalf("%+v %v", res, err)
					}
					spent++
				}
			}
			if spent != 12 {
				t.Fatal(spent)
			}
		})
	}
}

// What one side cannot read, it leaves to the other.
func TestDeployOutdated(t *testing.T) {
	t.Parallel()
	d := newDeploy(t)
	stopOld := d.oldOnes()
	must(t, d.oldOne, "a", oldFill{100})

	// A new command waits for a service that knows it.
	unavailable(t, d.newOne, newFreeze{}, "no responders")
	waiting := make(chan error, 1)
	go func() {
		_, err := d.newOne.Execute(t.Context(), "a", newFreeze{})
		waiting <- err
	}()
	d.newOnes()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	// Its event is unknown to the old services: they say so, and a new one does it.
	for range 10 {
		must(t, d.oldOne, "a", oldTake{1})
	}
	// What the new ones tell, old clients read as far as they can.
	stopOld()
	res := must(t, d.oldOne, "b", oldFill{5})
	if len(res.Events) != 1 || res.Events[0].Event != nil || res.Events[0].Name != "filled" || res.Version != 1 {
		t.Errorf("%+v", res) // of version 2
	}
	if res := must(t, d.newOne, "c", newFill{}); res.Events[0].Event != (newFilled{}) {
		t.Errorf("%+v", res)
	}
}

// A command that is gone is nobody's, and one with a new field is not for old
// services: they would leave out what the client wants.
func TestDeployRefusals(t *testing.T) {
	t.Parallel()
	d := newDeploy(t)
	stopOld := d.oldOnes()
	must(t, d.oldOne, "a", oldFill{100})
	must(t, d.oldOne, "a", oldAudit{})
	_, err := d.newOne.Execute(t.Context(), "a", newSpend{Units: 1, Fee: 1})
	if bad := as[*jetstream.InvalidError](t, err); bad.Field != "Fee" {
		t.Error(err)
	}
	stopNew := d.newOnes()
	stopOld()
	unavailable(t, d.oldOne, oldAudit{}, "no responders")
	res := must(t, d.newOne, "a", newSpend{Units: 1, Fee: 1})
	if len(res.Events) != 2 || res.Events[1].Event != (newFee{1}) {
		t.Errorf("%+v", res)
	}
	// The old client does not know what a fee is, but that there is one.
	stopNew()
	d.oldOnes()
	unavailable(t, d.oldOne, oldTake{1}, `"fee"`)
}
