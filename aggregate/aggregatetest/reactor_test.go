package aggregatetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// pays is a reactor's handler: a debit pays a bill, whose deadline was set when
// the account was opened; who cannot pay gets a reminder.
func pays(repo *aggregate.Repository[Account]) []aggregate.ReactorOption {
	return []aggregate.ReactorOption{
		aggregate.On(events, func(ctx context.Context, _ Opened, m jetstream.Meta, do *aggregate.Do) error {
			if m.Metadata["silent"] != "" {
				return nil
			}
			return do.After(ctx, time.Hour, repo, m.ID, Debit{Cents: 1, Note: "late"}, aggregate.Step("fee"))
		}),
		aggregate.On(events, func(ctx context.Context, e Debited, m jetstream.Meta, do *aggregate.Do) error {
			if e.Note != "bill" {
				return nil
			}
			_, err := do.Update(ctx, repo, "landlord", Debit{Cents: 1})
			if aggregate.IsRefusal(err) {
				_, err = do.Create(ctx, repo, "", Open{Cents: 2}, aggregate.Step("reminder"))
			}
			if err != nil {
				return err
			}
			_, err = aggregate.UpdateFunc(ctx, do, repo, m.ID, func(a Account, _ aggregate.Decision) (any, error) {
				return Debit{Cents: a.Cents}, nil
			})
			if err != nil {
				return err
			}
			return do.Cancel(ctx, repo, m.ID, "fee")
		}),
	}
}

func newPays(t testing.TB) *aggregatetest.Handlers {
	t.Helper()
	s := aggregatetest.NewStore(t)
	return aggregatetest.NewHandlers(s, pays(aggregatetest.NewRepository(s, accountType()))...)
}

var (
	bill   = Debited{Cents: 3, Note: "bill"}
	fee    = aggregatetest.Effect{Target: "account", ID: "a1", Step: "fee", Command: Debit{Cents: 1, Note: "late"}, After: time.Hour}
	rent   = aggregatetest.Effect{Target: "account", ID: "landlord", Command: Debit{Cents: 1}}
	remind = aggregatetest.Effect{Target: "account", Step: "reminder", Command: Open{Cents: 2}, Create: true}
	rest   = aggregatetest.Effect{Target: "account", ID: "a1", Command: Debit{Cents: 7}}
	off    = aggregatetest.Effect{Target: "account", ID: "a1", Step: "fee", Cancel: true}
)

// T5: a handler without a store: an event comes, outcomes are fed, effects are
// looked at.
func TestHandlers(t *testing.T) {
	t.Parallel()
	h := newPays(t)
	h.When(events, "a1", Opened{Cents: 10}).Then(fee)
	h.When(events, "a2", jetstream.Recorded{Meta: jetstream.Meta{Metadata: map[string]string{"silent": "yes"}}, Event: Opened{}}).Then()
	h.When(events, "a1", Debited{Cents: 0}).Then()
	h.When(events, "a1", bill).Then(rent, rest, off)

	h = newPays(t).Answer(aggregatetest.Effect{ID: "landlord"}, aggregate.ErrNotFound)
	h.When(events, "a1", Opened{Cents: 10}).Then(fee)
	h.When(events, "a1", bill).Then(rent, remind, rest, off)

	boom := errors.New("boom")
	for _, e := range []aggregatetest.Effect{{Command: Debit{}}, {Target: "account"}, rent} {
		newPays(t).Answer(aggregatetest.Effect{Step: "other"}, aggregate.ErrExists).Answer(e, boom).
			When(events, "a1", bill).Fails(boom).Asked(rent)
	}
	newPays(t).Answer(aggregatetest.Effect{Cancel: true}, boom).When(events, "a1", bill).Fails(boom)
	newPays(t).Answer(aggregatetest.Effect{After: time.Hour}, boom).When(events, "a1", Opened{}).Fails(boom)
	newPays(t).Answer(aggregatetest.Effect{Create: true}, boom).When(events, "a1", bill).Then(
		rent, aggregatetest.Effect{Target: "account", ID: "a1", Command: Debit{Cents: -3}}, off)
}

func TestHandlersFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		test  func(t testing.TB)
		words []string
	}{
		"OtherEffect": {func(t testing.TB) { newPays(t).When(events, "a1", Opened{}).Then(rent) }, []string{"other effects", "landlord"}},
		"NoEffect":    {func(t testing.TB) { newPays(t).When(events, "a1", Debited{}).Then(rent) }, []string{"other effects"}},
		"MoreEffects": {func(t testing.TB) { newPays(t).When(events, "a1", bill).Then(rent) }, []string{"other effects"}},
		"Error": {func(t testing.TB) {
			newPays(t).Answer(rent, aggregate.ErrBusy).When(events, "a1", bill).Then(rent)
		}, []string{"busy"}},
		"NoError": {func(t testing.TB) { newPays(t).When(events, "a1", Opened{}).Fails(aggregate.ErrBusy) }, []string{"want busy"}},
		"Fickle": {func(t testing.TB) {
			n := int64(0)
			s := aggregatetest.NewStore(t)
			repo := aggregatetest.NewRepository(s, accountType())
			aggregatetest.NewHandlers(s, aggregate.On(events,
				func(ctx context.Context, _ Opened, m jetstream.Meta, do *aggregate.Do) error {
					n++
					_, err := do.Update(ctx, repo, m.ID, Debit{Cents: n})
					return err
				})).When(events, "a1", Opened{})
		}, []string{"handled again"}},
		"Panics": {func(t testing.TB) {
			aggregatetest.NewHandlers(aggregatetest.NewStore(t), aggregate.On(events,
				func(context.Context, Opened, jetstream.Meta, *aggregate.Do) error { panic("on purpose") },
			)).When(events, "a1", Opened{}).Then()
		}, []string{"on purpose"}},
		"NoHandlers": {func(t testing.TB) { aggregatetest.NewHandlers(aggregatetest.NewStore(t)) }, []string{"no handlers"}},
		"NoReactor":  {func(t testing.TB) { aggregatetest.NewStore(t).Run("r") }, []string{"no handlers"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natstest.Fails(t, c.test, c.words...)
		})
	}
}

// Reactors and deadlines over a store in memory, with time that the test moves.
func TestSimulation(t *testing.T) {
	t.Parallel()
	s := aggregatetest.NewStore(t)
	repo := aggregatetest.NewRepository(s, accountType())
	s.Run("pays", pays(repo)...)
	for _, id := range []string{"a1", "a2", "landlord"} {
		if _, err := repo.Create(t.Context(), id, Open{Cents: 10}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repo.Execute(t.Context(), "a1", Debit{Cents: 3, Note: "bill"}); err != nil {
		t.Fatal(err)
	}
	s.Advance(30 * time.Minute)
	began := s.Now()
	// a1 has paid, so its fee is off; a2 pays it, once, and the landlord, too.
	s.Advance(31 * time.Minute)
	if d := s.Now().Sub(began); d < 31*time.Minute || d > 32*time.Minute {
		t.Errorf("the clock moved %v", d)
	}
	for id, want := range map[string]int64{"a1": 0, "a2": 9, "landlord": 8} {
		snap, err := repo.Load(t.Context(), id)
		if err != nil || snap.State.Cents != want {
			t.Errorf("%s: %+v %v, want %d cents", id, snap.State, err, want)
		}
	}
}

func TestSimulationFails(t *testing.T) {
	t.Parallel()
	simulate := func(t testing.TB, handle func(
		ctx context.Context, repo *aggregate.Repository[Account], m jetstream.Meta, do *aggregate.Do) error,
	) {
		t.Helper()
		s := aggregatetest.NewStore(t)
		repo := aggregatetest.NewRepository(s, accountType(func(m *mistaken) {
			m.debited = func(a *Account, e Debited, _ jetstream.Meta) { a.Cents -= e.Cents } // a small state
		}))
		s.Run("r", aggregate.On(events, func(ctx context.Context, _ Debited, m jetstream.Meta, do *aggregate.Do) error {
			return handle(ctx, repo, m, do)
		}))
		s.Append(events, "a1", Opened{Cents: 1_000_000}, Debited{Cents: 1})
		s.Append(events, "a2", Opened{Cents: 1_000_000})
		s.Settle()
	}
	n := 0
	for name, c := range map[string]struct {
		handle func(context.Context, *aggregate.Repository[Account], jetstream.Meta, *aggregate.Do) error
		words  []string
	}{
		"BesideDo": {func(ctx context.Context, repo *aggregate.Repository[Account], m jetstream.Meta, _ *aggregate.Do) error {
			if m.ID != "a1" {
				return nil
			}
			_, err := repo.Execute(ctx, "a2", Debit{Cents: 1})
			return err
		}, []string{"through Do"}},
		"FickleStep": {func(ctx context.Context, repo *aggregate.Repository[Account], m jetstream.Meta, do *aggregate.Do) error {
			if m.ID != "a1" {
				return nil
			}
			n++
			return do.After(ctx, time.Hour, repo, "a2", Debit{Cents: 1}, aggregate.Step("step-"+string(rune('a'+n))))
		}, []string{"more deadlines"}},
		"Error": {func(context.Context, *aggregate.Repository[Account], jetstream.Meta, *aggregate.Do) error {
			return aggregate.Reject("no", "never")
		}, []string{"rejected: no"}},
		"Endless": {func(ctx context.Context, repo *aggregate.Repository[Account], _ jetstream.Meta, do *aggregate.Do) error {
			_, err := do.Update(ctx, repo, "a1", Debit{Cents: 1})
			return err
		}, []string{"do not settle"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natstest.Fails(t, func(t testing.TB) { simulate(t, c.handle) }, c.words...)
		})
	}
	natstest.Fails(t, func(t testing.TB) {
		// A deadline for a type that has no repository.
		s, other := aggregatetest.NewStore(t), aggregatetest.NewStore(t)
		s.Run("r", pays(aggregatetest.NewRepository(other, accountType()))...)
		s.Append(events, "a1", Opened{})
		s.Advance(2 * time.Hour)
	}, "no target")
}
