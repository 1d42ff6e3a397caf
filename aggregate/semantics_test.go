package aggregate_test

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// What Eventuate's own tests define.
func TestSemantics(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())

	t.Run("SaveAndUpdate", func(t *testing.T) { // AC-A1, AC-A2
		t.Parallel()
		store, repo := newRepository(t, nc)
		before := head(t, store)
		made := must(t, repo, "a1", open{150})
		if made.Version != 1 || head(t, store) != before+1 {
			t.Fatalf("%+v, %d commits", made, head(t, store)-before)
		}
		res := must(t, repo, "a1", debit{50})
		if res.Version != 2 || res.Events[0].Event != (debited{50}) || head(t, store) != before+2 {
			t.Fatalf("%+v", res)
		}
		balance(t, repo, "a1", 100, 2)
	})

	t.Run("SeveralEventsAreOneCommit", func(t *testing.T) { // AC-A18
		t.Parallel()
		store, repo := newRepository(t, nc)
		must(t, repo, "a1", open{150})
		before := head(t, store)
		res := must(t, repo, "a1", move{Out: 10, In: 3})
		if res.Version != 3 || len(res.Events) != 2 || res.Events[0].Version != 2 || res.Events[1].Version != 3 ||
			head(t, store) != before+1 {
			t.Fatalf("%+v", res)
		}
		// The second event's Apply panics: neither is stored.
		if _, err := repo.Execute(t.Context(), "a1", move{Out: 10, In: -1}); err == nil || !strings.Contains(err.Error(), "a negative credit") {
			t.Fatal(err)
		}
		balance(t, newRepo(t, store), "a1", 143, 3)
	})

	t.Run("ConflictIsDecidedAgain", func(t *testing.T) { // AC-A4
		t.Parallel()
		store, one := newRepository(t, nc)
		two := newRepo(t, store)
		must(t, one, "a1", open{150})
		must(t, two, "a1", debit{1}) // both have a cache now
		must(t, one, "a1", debit{1})
		if res := must(t, two, "a1", debit{1}); res.Version != 4 {
			t.Fatalf("%+v", res)
		}
		balance(t, one, "a1", 147, 4)
	})

	t.Run("RefusalsOfAnOldCacheAreConfirmed", func(t *testing.T) {
		t.Parallel()
		store, one := newRepository(t, nc)
		two := newRepo(t, store)
		must(t, one, "a1", open{10})
		must(t, two, "a1", debit{10})
		if _, err := one.Execute(t.Context(), "a1", debit{10}); !errors.Is(err, aggregate.ErrRejected) {
			t.Fatal(err)
		}
		must(t, two, "a1", credit{10}) // one's cache says 0
		if res := must(t, one, "a1", debit{10}); res.Version != 4 {
			t.Fatalf("%+v", res)
		}
		// A command without events reports the version that the leader has.
		must(t, two, "a1", credit{5})
		if res := must(t, one, "a1", credit{}); res.Version != 5 {
			t.Fatalf("%+v", res)
		}
		// "Exists already" and "not found", too.
		if _, err := one.Execute(t.Context(), "a2", debit{1}); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		must(t, two, "a2", open{5})
		must(t, one, "a2", debit{1})
	})

	t.Run("DuplicateTriggers", func(t *testing.T) { // AC-A5, AC-A8, AC-A18
		t.Parallel()
		store, repo := newRepository(t, nc)
		cause := must(t, repo, "cause", open{1})
		trigger := func(subscriber string) aggregate.CallOption {
			return aggregate.TriggeredBy(aggregate.Trigger{
				Subscriber: subscriber, EventID: cause.Events[0].EventID, Step: "x", Position: cause.Position,
			})
		}
		// Created from an event that is delivered again: one aggregate.
		made, err := repo.Create(t.Context(), "", open{100}, trigger("maker"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*aggregate.Repository[account]{repo, newRepo(t, store)} {
			again, err := r.Create(t.Context(), "", open{100}, trigger("maker"))
			if err != nil || again.ID != made.ID || !again.Duplicate || again.Version != 1 {
				t.Fatalf("%+v %v", again, err)
			}
		}
		// Two subscribers to one event, one aggregate: both apply.
		must(t, repo, made.ID, debit{10}, trigger("one"))
		must(t, repo, made.ID, debit{10}, trigger("two"))
		before := head(t, store)
		res := must(t, repo, made.ID, debit{10}, trigger("two"))
		if !res.Duplicate || res.Version != 3 || len(res.Events) != 1 || head(t, store) != before {
			t.Fatalf("%+v", res)
		}
		balance(t, newRepo(t, store), made.ID, 80, 3)
	})

	t.Run("ATriggerWithoutEventsIsRecorded", func(t *testing.T) {
		t.Parallel()
		store, repo := newRepository(t, nc)
		cause := must(t, repo, "cause", open{1})
		trigger := aggregate.TriggeredBy(aggregate.Trigger{
			Subscriber: "s", EventID: cause.Events[0].EventID, Step: "x", Position: cause.Position,
		})
		must(t, repo, "a1", open{5})
		before := head(t, store)
		if res := must(t, repo, "a1", credit{}, trigger); res.Version != 1 || res.Duplicate || head(t, store) != before+1 {
			t.Fatalf("%+v", res)
		}
		// It stays "nothing", whatever the command would do now.
		if res := must(t, repo, "a1", credit{7}, trigger); res.Version != 1 || !res.Duplicate || head(t, store) != before+1 {
			t.Fatalf("%+v", res)
		}
		balance(t, newRepo(t, store), "a1", 5, 1)
	})

	t.Run("ARecordedVersionErrorStaysOne", func(t *testing.T) {
		t.Parallel()
		store, repo := newRepository(t, nc)
		cause := must(t, repo, "a1", open{5})
		trigger := aggregate.TriggeredBy(aggregate.Trigger{
			Subscriber: "s", EventID: cause.Events[0].EventID, Step: "x", Position: cause.Position,
		})
		for _, r := range []*aggregate.Repository[account]{repo, repo, newRepo(t, store)} {
			_, err := r.Execute(t.Context(), "a1", debit{1}, trigger, aggregate.ExpectVersion(7))
			if v := as[*aggregate.VersionError](t, err); v.Expected != 7 || v.Actual != 1 || v.ID != "a1" {
				t.Fatal(err)
			}
		}
		// A trigger's "exists" stays one, too.
		exists := aggregate.TriggeredBy(aggregate.Trigger{
			Subscriber: "s", EventID: cause.Events[0].EventID, Step: "y", Position: cause.Position,
		})
		for range 2 {
			if _, err := repo.Create(t.Context(), "a1", open{5}, exists); !errors.Is(err, aggregate.ErrExists) {
				t.Fatal(err)
			}
		}
	})

	t.Run("LoadedVersionIsTheSaved", func(t *testing.T) { // AC-A6, AC-A7, AC-A9
		t.Parallel()
		_, repo := newRepository(t, nc)
		saved, err := repo.Create(t.Context(), "mine", open{5})
		if err != nil {
			t.Fatal(err)
		}
		for _, opts := range [][]aggregate.LoadOption{
			nil, {aggregate.Follower()}, {aggregate.AtLeast(saved.Position)}, {aggregate.Follower(), aggregate.AtLeast(saved.Position)},
		} {
			found, err := repo.Load(t.Context(), "mine", opts...)
			if err != nil || found.Version != saved.Version || found.Position != saved.Position || found.ID != "mine" {
				t.Fatalf("%+v %v", found, err)
			}
		}
		if _, err := repo.Load(t.Context(), "absent"); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		other, _ := newRepository(t, nc)
		if _, err := repo.Load(t.Context(), "mine", aggregate.AtLeast(other.Position(1))); err == nil {
			t.Fatal("a position of another store was taken")
		}
		_, err = repo.Execute(t.Context(), "mine", debit{1}, aggregate.ExpectVersion(0))
		wantAs[*aggregate.VersionError](t, err)
		balance(t, repo, "mine", 5, 1)
	})

	t.Run("Metadata", func(t *testing.T) { // AC-A11
		t.Parallel()
		store, repo := newRepository(t, nc)
		given := map[string]string{"user": "u1", "empty": ""}
		res := must(t, repo, "a1", open{5}, aggregate.Metadata(given), aggregate.Correlation("conv"), aggregate.Causation("msg"))
		given["user"] = "changed afterwards"
		must(t, repo, "a1", debit{1})
		var metas []jetstream.Meta
		for e, err := range newRepo(t, store).History(t.Context(), "a1") {
			if err != nil {
				t.Fatal(err)
			}
			metas = append(metas, e.Meta)
		}
		if len(metas) != 2 || metas[0].EventID != res.Events[0].EventID || metas[0].Version != 1 || metas[1].Version != 2 ||
			!maps.Equal(metas[0].Metadata, map[string]string{"user": "u1", "empty": ""}) || len(metas[1].Metadata) != 0 ||
			metas[0].Correlation != "conv" || metas[0].Causation != "msg" || metas[0].Position != res.Position {
			t.Fatalf("%+v", metas)
		}
	})

	t.Run("SixteenThreads", func(t *testing.T) { // AC-A15
		t.Parallel()
		_, repo := newRepository(t, nc)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 10 {
					if _, err := repo.Create(t.Context(), "", open{1}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})

	t.Run("ManyUpdatersOfOneProcessConverge", func(t *testing.T) { // AC-A18
		t.Parallel()
		_, repo := newRepository(t, nc)
		must(t, repo, "a1", open{0})
		const updaters, each = 16, 20
		var wg sync.WaitGroup
		for range updaters {
			wg.Go(func() {
				for range each {
					if _, err := repo.Execute(t.Context(), "a1", credit{1}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		balance(t, repo, "a1", updaters*each, updaters*each+1)
	})

	t.Run("LimitOfAttemptsIsReported", func(t *testing.T) { // AC-A18
		t.Parallel()
		store, repo := newRepository(t, nc)
		must(t, repo, "a1", open{100})
		short, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{MaxAttempts: 3})
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		_, err = short.ExecuteFunc(t.Context(), "a1", func(account, aggregate.Decision) (any, error) {
			tries++
			must(t, repo, "a1", credit{1}) // always first
			return debit{1}, nil
		})
		if !errors.Is(err, aggregate.ErrContended) || tries != 3 {
			t.Fatal(tries, err)
		}
		balance(t, repo, "a1", 103, 4)
	})
}

func TestExecuteFunc(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	other := newRepo(t, store)
	must(t, repo, "a1", open{100})
	half := func(a account, _ aggregate.Decision) (any, error) {
		if a.Cents == 100 {
			must(t, other, "a1", debit{20}) // another comes first
		}
		return debit{a.Cents / 2}, nil
	}
	res, err := repo.ExecuteFunc(t.Context(), "a1", half, aggregate.CommandID("halve"))
	if err != nil || res.Events[0].Event != (debited{40}) { // computed again from 80
		t.Fatalf("%+v %v", res, err)
	}
	if res, err := other.ExecuteFunc(t.Context(), "a1", half, aggregate.CommandID("halve")); err != nil || !res.Duplicate {
		t.Fatalf("%+v %v", res, err)
	}
	for name, f := range map[string]func(account, aggregate.Decision) (any, error){
		"nothing":  func(account, aggregate.Decision) (any, error) { return nil, nil }, //nolint:nilnil // allowed here
		"error":    func(account, aggregate.Decision) (any, error) { return nil, errPlain },
		"rejected": func(account, aggregate.Decision) (any, error) { return debit{1000}, nil },
		"create":   func(account, aggregate.Decision) (any, error) { return open{1}, nil },
		"other":    func(account, aggregate.Decision) (any, error) { return 7, nil },
		"panic":    func(account, aggregate.Decision) (any, error) { panic("on purpose") },
	} {
		res, err := repo.ExecuteFunc(t.Context(), "a1", f)
		ok := false
		switch name {
		case "nothing":
			ok = err == nil && res.Version == 3
		case "error":
			ok = errors.Is(err, errPlain)
		case "rejected":
			ok = errors.Is(err, aggregate.ErrRejected)
		case "create":
			ok = errors.Is(err, aggregate.ErrExists)
		case "other":
			invalid(t, err, "command")
			ok = true
		case "panic":
			ok = err != nil && strings.Contains(err.Error(), "on purpose")
		}
		if !ok {
			t.Errorf("%s: %+v %v", name, res, err)
		}
	}
	balance(t, repo, "a1", 40, 3)
}

func TestFaultsAreErrorsAndStoreNothing(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{100})
	before := head(t, store)
	for kind, want := range map[string]string{
		"panic": "on purpose", "plain": errPlain.Error(), "undeclared": "not declared", "nil": "not declared",
		"bare": "aggregate.Reject", "": "rejection code", "_exists": "rejection code", "two\nlines": "rejection code",
	} {
		_, err := repo.Execute(t.Context(), "a1", fail{kind})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	_, err := repo.Execute(t.Context(), "a1", fail{"fine"})
	if r := as[*aggregate.RejectedError](t, err); r.Code != "fine" || r.Reason != "because \uFFFD" {
		t.Errorf("%+v", r)
	}
	if _, err := repo.Execute(t.Context(), "a1", struct{}{}); err == nil {
		t.Error("a command that was not declared")
	}
	if head(t, store) != before {
		t.Error("something was stored")
	}
}
