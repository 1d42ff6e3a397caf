package aggregate_test

import (
	"errors"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type (
	marked struct{ As string }
	frozen struct{}
	// withdrawn is what debited is called in the new program.
	withdrawn struct{ Cents int64 }

	newAccount struct {
		Cents  int64
		Frozen bool
	}

	mark     struct{ As string }
	withdraw struct{ Cents int64 }
	freeze   struct{}
)

// oldProgram knows "marked" and "debit"; newProgram has removed the one, renamed
// the other, event and command, and added "freeze".
func oldProgram() *aggregate.Type[account] {
	schema := jetstream.NewSchema("account",
		jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited"), jetstream.Event[credited]("credited"),
		jetstream.Event[marked]("marked"),
	)
	return aggregate.New[account](schema,
		aggregate.Apply(func(a *account, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *account, e debited, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *account, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Ignore[marked](),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("debit", func(_ account, c debit, _ aggregate.Decision) ([]any, error) { return []any{debited(c)}, nil }),
		aggregate.Handle("credit", func(_ account, c credit, _ aggregate.Decision) ([]any, error) { return []any{credited(c)}, nil }),
		aggregate.Handle("mark", func(_ account, c mark, _ aggregate.Decision) ([]any, error) { return []any{marked(c)}, nil }),
	)
}

func newProgram() *aggregate.Type[newAccount] {
	schema := jetstream.NewSchema("account",
		jetstream.Event[opened]("opened"), jetstream.Event[withdrawn]("withdrawn"), jetstream.Event[credited]("credited"),
		jetstream.Event[frozen]("frozen"), jetstream.Renamed("debited", "withdrawn"), jetstream.Removed("marked"),
	)
	return aggregate.New[newAccount](schema,
		aggregate.Apply(func(a *newAccount, e opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(func(a *newAccount, e withdrawn, _ jetstream.Meta) { a.Cents -= e.Cents }),
		aggregate.Apply(func(a *newAccount, e credited, _ jetstream.Meta) { a.Cents += e.Cents }),
		aggregate.Apply(func(a *newAccount, _ frozen, _ jetstream.Meta) { a.Frozen = true }),
		aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil }),
		aggregate.Handle("withdraw", func(a newAccount, c withdraw, _ aggregate.Decision) ([]any, error) {
			if a.Frozen {
				return nil, aggregate.Reject("frozen", "the account is frozen")
			}
			return []any{withdrawn(c)}, nil
		}),
		aggregate.RenamedCommand("debit", "withdraw"),
		aggregate.Handle("credit", func(_ newAccount, c credit, _ aggregate.Decision) ([]any, error) { return []any{credited(c)}, nil }),
		aggregate.Handle("freeze", func(newAccount, freeze, aggregate.Decision) ([]any, error) { return []any{frozen{}}, nil }),
	)
}

// Old and new instances side by side, on the same aggregates.
func TestProgramsSideBySide(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	setup := func(t *testing.T) (*aggregate.Repository[account], *aggregate.Repository[newAccount]) {
		t.Helper()
		store := newStore(t, nc, jetstream.Config{})
		return repoOf(t, store, oldProgram()), repoOf(t, store, newProgram())
	}
	state := func(t *testing.T, r *aggregate.Repository[newAccount], want newAccount, version uint64) {
		t.Helper()
		if snap, err := r.Load(t.Context(), "a1"); err != nil || snap.State != want || snap.Version != version {
			t.Fatalf("%+v %v, want %+v at version %d", snap, err, want, version)
		}
	}

	t.Run("TheNewReadsWhatTheOldWrote", func(t *testing.T) {
		t.Parallel()
		old, fresh := setup(t)
		must(t, old, "a1", open{100})
		must(t, old, "a1", debit{10})
		must(t, old, "a1", mark{"gone in the new"})
		state(t, fresh, newAccount{Cents: 90}, 3)
		must(t, old, "a1", mark{"again"})
		if res := must(t, fresh, "a1", credit{5}); res.Version != 5 {
			t.Errorf("%+v", res)
		}
		must(t, old, "a1", credit{1}) // which both know
		state(t, fresh, newAccount{Cents: 96}, 6)
		n := 0
		for e, err := range fresh.History(t.Context(), "a1") {
			if err != nil || e.Name == "marked" || e.Name == "debited" {
				t.Errorf("%+v %v", e, err)
			}
			n++
		}
		if n != 4 {
			t.Errorf("%d events are left", n)
		}
	})

	t.Run("TheOldStopsAtWhatItDoesNotKnow", func(t *testing.T) {
		t.Parallel()
		for name, command := range map[string]any{"added": freeze{}, "renamed": withdraw{10}} {
			old, fresh := setup(t)
			must(t, old, "a1", open{100})
			must(t, old, "a2", open{100})
			must(t, old, "a1", credit{1}) // remembered
			must(t, fresh, "a1", command)
			for range 2 {
				_, err := old.Execute(t.Context(), "a1", debit{1})
				if u := as[*jetstream.UnknownEventError](t, err); u.Type != "account" || !errors.Is(err, jetstream.ErrUnknownEvent) {
					t.Errorf("%s: %v", name, err)
				}
				_, err = old.Load(t.Context(), "a1")
				wantAs[*jetstream.UnknownEventError](t, err)
			}
			must(t, old, "a2", debit{1}) // others go on
			if res := must(t, fresh, "a1", credit{1}); res.Version != 4 {
				t.Errorf("%s: %+v", name, res)
			}
		}
	})

	t.Run("ACommandThatWasSentToTheOther", func(t *testing.T) {
		t.Parallel()
		old, fresh := setup(t)
		must(t, old, "a1", open{100})
		for _, id := range []string{jetstream.NewCommandID(), "any string"} {
			// Executed by the old, asked again of the new, under its new name.
			first := must(t, old, "a1", debit{10}, aggregate.CommandID(id))
			res := must(t, fresh, "a1", withdraw{10}, aggregate.CommandID(id))
			if !res.Duplicate || res.Version != first.Version || res.Events[0].Event != (withdrawn{10}) {
				t.Errorf("%+v, first %+v", res, first)
			}
			if _, err := fresh.Execute(t.Context(), "a1", withdraw{11}, aggregate.CommandID(id)); !errors.Is(err, aggregate.ErrOtherPayload) {
				t.Error(err)
			}
		}
		// The outcome of a command that the new does not have any more.
		must(t, old, "a1", mark{"x"}, aggregate.CommandID("marked"))
		_, err := fresh.Execute(t.Context(), "a1", mark{"x"}, aggregate.CommandID("marked"))
		invalid(t, err, "command")
		// Executed by the new: the old cannot tell what came of it, and does not do it
		// again.
		id := aggregate.CommandID(jetstream.NewCommandID())
		must(t, fresh, "a1", withdraw{10}, id)
		_, err = old.Execute(t.Context(), "a1", debit{10}, id)
		wantAs[*jetstream.UnknownEventError](t, err)
		// One that was added is unknown to the old.
		_, err = old.Execute(t.Context(), "a1", freeze{})
		invalid(t, err, "command")
		state(t, fresh, newAccount{Cents: 70}, 5)
	})
}

func TestMistakesInRenames(t *testing.T) {
	t.Parallel()
	keep := aggregate.Handle("keep", func(account, mark, aggregate.Decision) ([]any, error) { return nil, nil })
	for name, opts := range map[string][]aggregate.Option{
		"undeclared": {aggregate.RenamedCommand("old", "keep")},
		"taken":      {keep, aggregate.RenamedCommand("debit", "keep")},
		"bad name":   {keep, aggregate.RenamedCommand("Two words", "keep")},
		"twice":      {aggregate.Ignore[opened]()},
		"no event":   {aggregate.Ignore[mark]()},
	} {
		if newAccounts(opts...).Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	typ := newAccounts(keep, aggregate.RenamedCommand("kept", "keep"))
	if err := typ.Err(); err != nil {
		t.Error(err)
	}
	for _, c := range typ.Commands() {
		if c.Name == "kept" {
			t.Error("a former name is listed")
		}
	}
}
