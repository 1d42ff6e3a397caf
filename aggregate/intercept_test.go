package aggregate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func intercepted(t *testing.T, store *jetstream.Store, by ...aggregate.Interceptor) *aggregate.Repository[account] {
	t.Helper()
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{Interceptors: by})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func eventsOf(r aggregate.Result) []any {
	out := make([]any, 0, len(r.Events))
	for _, e := range r.Events {
		out = append(out, e.Event)
	}
	return out
}

func TestInterceptors(t *testing.T) { // A22, A23, AC-A18
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())

	t.Run("AddChangeDrop", func(t *testing.T) {
		t.Parallel()
		store := newStore(t, nc, jetstream.Config{})
		repo := intercepted(t, store, aggregate.Intercept(func(a account, i aggregate.Interception) ([]any, error) {
			if i.Name == "open" || i.Err != nil {
				return i.Events, i.Err
			}
			switch c, _ := i.Command.(debit); c.Cents {
			case 1: // a fee
				return append(i.Events, debited{a.Cents / 10}), nil
			case 2: // something else
				return []any{credited{2}}, nil
			case 3: // nothing
				return nil, nil
			}
			return i.Events, nil
		}))
		must(t, repo, "a1", open{100})
		before := head(t, store)
		for _, c := range []struct {
			command any
			want    []any
			version uint64
		}{
			{debit{1}, []any{debited{1}, debited{10}}, 3}, {debit{2}, []any{credited{2}}, 4}, {debit{3}, nil, 4}, {debit{4}, []any{debited{4}}, 5},
		} {
			if res := must(t, repo, "a1", c.command); !slices.Equal(eventsOf(res), c.want) || res.Version != c.version {
				t.Errorf("%v: %+v", c.command, res)
			}
		}
		if n := head(t, store) - before; n != 3 {
			t.Errorf("%d commits", n)
		}
		balance(t, newRepo(t, store), "a1", 87, 5)
	})

	t.Run("AFailedCommandBecomesEvents", func(t *testing.T) {
		t.Parallel()
		store := newStore(t, nc, jetstream.Config{})
		repo := intercepted(t, store, aggregate.Intercept(func(a account, i aggregate.Interception) ([]any, error) {
			switch {
			case errors.Is(i.Err, aggregate.ErrRejected):
				return []any{debited(a)}, nil // what there is
			case errors.Is(i.Err, errPlain):
				return nil, aggregate.Reject("plain", "a fault made a refusal")
			case i.Err != nil && strings.Contains(i.Err.Error(), "on purpose"):
				return []any{credited{7}}, nil
			}
			return i.Events, i.Err
		}))
		must(t, repo, "a1", open{100})
		if res := must(t, repo, "a1", debit{500}); !slices.Equal(eventsOf(res), []any{debited{100}}) {
			t.Errorf("%+v", res)
		}
		_, err := repo.Execute(t.Context(), "a1", fail{"plain"})
		if r := as[*aggregate.RejectedError](t, err); r.Code != "plain" {
			t.Error(err)
		}
		must(t, repo, "a1", fail{"panic"})
		// A trigger's outcome is what the interceptor made of it, for ever.
		trigger := aggregate.TriggeredBy(aggregate.Trigger{Subscriber: "s", EventID: "e", Step: "x"})
		first := must(t, repo, "a1", debit{500}, trigger)
		again := must(t, newRepo(t, store), "a1", debit{500}, trigger)
		if !again.Duplicate || !slices.Equal(eventsOf(again), eventsOf(first)) {
			t.Errorf("%+v, first %+v", again, first)
		}
		balance(t, newRepo(t, store), "a1", 0, 4)
	})

	t.Run("InOrderAndAgainOnEachRetry", func(t *testing.T) {
		t.Parallel()
		store := newStore(t, nc, jetstream.Config{})
		other := newRepo(t, store)
		var seen []string
		note := func(name string) aggregate.Interceptor {
			return aggregate.Intercept(func(_ account, i aggregate.Interception) ([]any, error) {
				if i.Name == "credit" {
					seen = append(seen, name+string(rune('0'+i.Attempt)))
					if i.Attempt == 1 && name == "call" {
						must(t, other, "a1", debit{1})
					}
				}
				return i.Events, i.Err
			})
		}
		repo := intercepted(t, store, note("first"), note("second"))
		must(t, repo, "a1", open{100})
		must(t, repo, "a1", credit{1}, aggregate.Intercepted(note("call")))
		want := []string{"first1", "second1", "call1", "first2", "second2", "call2"}
		if !slices.Equal(seen, want) {
			t.Errorf("%v, want %v", seen, want)
		}
		// What another decided before is final, whatever the call's interceptor says.
		balance(t, repo, "a1", 100, 3)
	})

	t.Run("NotAskedWhenThereIsNothingToDecide", func(t *testing.T) {
		t.Parallel()
		store := newStore(t, nc, jetstream.Config{})
		asked := 0
		repo := intercepted(t, store, aggregate.Intercept(func(_ account, i aggregate.Interception) ([]any, error) {
			asked++
			return i.Events, i.Err
		}))
		if _, err := repo.Execute(t.Context(), "a1", debit{1}); !errors.Is(err, aggregate.ErrNotFound) || asked != 0 {
			t.Error(err, asked)
		}
		must(t, repo, "a1", open{1}, aggregate.CommandID("once"))
		must(t, repo, "a1", open{1}, aggregate.CommandID("once"))
		if _, err := repo.Execute(t.Context(), "a1", open{1}); !errors.Is(err, aggregate.ErrExists) {
			t.Error(err)
		}
		_, err := repo.Execute(t.Context(), "a1", debit{1}, aggregate.ExpectVersion(9))
		wantAs[*aggregate.VersionError](t, err)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		// A function without a command is a decision: an interceptor may add to it.
		res, err := repo.ExecuteFunc(t.Context(), "a1", func(account, aggregate.Decision) (any, error) { return nil, nil }, //nolint:nilnil // allowed
			aggregate.Intercepted(aggregate.Intercept(func(_ account, i aggregate.Interception) ([]any, error) {
				if i.Command != nil || i.Name != "func" {
					t.Errorf("%+v", i)
				}
				return []any{credited{1}}, nil
			})))
		if err != nil || res.Version != 2 {
			t.Errorf("%+v %v", res, err)
		}
	})

	t.Run("Faults", func(t *testing.T) {
		t.Parallel()
		store := newStore(t, nc, jetstream.Config{})
		repo := newRepo(t, store)
		must(t, repo, "a1", open{100})
		before := head(t, store)
		for want, f := range map[string]func(account, aggregate.Interception) ([]any, error){
			"interceptor panicked: oh": func(account, aggregate.Interception) ([]any, error) { panic("oh") },
			"not declared":             func(account, aggregate.Interception) ([]any, error) { return []any{7}, nil },
			errPlain.Error():           func(account, aggregate.Interception) ([]any, error) { return nil, errPlain },
		} {
			_, err := repo.Execute(t.Context(), "a1", debit{1}, aggregate.Intercepted(aggregate.Intercept(f)))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
		other := aggregate.Intercept(func(_ notes, i aggregate.Interception) ([]any, error) { return i.Events, i.Err })
		for _, i := range []aggregate.Interceptor{{}, aggregate.Intercept[account](nil), other} {
			_, err := repo.Execute(t.Context(), "a1", debit{1}, aggregate.Intercepted(i))
			invalid(t, err, "interceptor")
			_, err = aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{Interceptors: []aggregate.Interceptor{i}})
			invalid(t, err, "interceptor")
		}
		keep := aggregate.Intercepted(aggregate.Intercept(func(_ account, i aggregate.Interception) ([]any, error) { return i.Events, i.Err }))
		_, err := newClient(t, nc, store).Execute(t.Context(), "a1", debit{1}, keep)
		invalid(t, err, "interceptor")
		if head(t, store) != before {
			t.Error("something was stored")
		}
	})
}
