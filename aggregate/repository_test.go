package aggregate_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestExecute(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())

	t.Run("CreateThenLoad", func(t *testing.T) {
		t.Parallel()
		_, repo := newRepository(t, nc)
		res, err := repo.Create(t.Context(), "a1", open{Cents: 150})
		if err != nil {
			t.Fatal(err)
		}
		if res.ID != "a1" || res.Version != 1 || len(res.Events) != 1 || res.Events[0].Event != (opened{150}) {
			t.Fatalf("%+v", res)
		}
		snap, err := repo.Load(t.Context(), "a1")
		if err != nil || snap.State.Cents != 150 || snap.Version != 1 || snap.Position != res.Position {
			t.Fatalf("%+v %v", snap, err)
		}
	})

	t.Run("RejectionLeavesNoTrace", func(t *testing.T) {
		t.Parallel()
		store, repo := newRepository(t, nc)
		created, err := repo.Create(t.Context(), "a1", open{Cents: 150})
		if err != nil {
			t.Fatal(err)
		}
		_, err = repo.Execute(t.Context(), "a1", debit{Cents: 200})
		var rejected *aggregate.RejectedError
		if !errors.As(err, &rejected) || rejected.Code != "insufficient-funds" || !errors.Is(err, aggregate.ErrRejected) {
			t.Fatal(err)
		}
		if head, err := store.LastPosition(t.Context()); err != nil || head != created.Position {
			t.Fatal(head, err)
		}
	})

	t.Run("NoEventsWritesNothing", func(t *testing.T) {
		t.Parallel()
		store, repo := newRepository(t, nc)
		created, err := repo.Create(t.Context(), "a1", open{Cents: 150})
		if err != nil {
			t.Fatal(err)
		}
		res, err := repo.Execute(t.Context(), "a1", credit{})
		if err != nil || res.Version != 1 || len(res.Events) != 0 {
			t.Fatal(res, err)
		}
		if head, err := store.LastPosition(t.Context()); err != nil || head != created.Position {
			t.Fatal(head, err)
		}
	})

	t.Run("NotFoundAndExists", func(t *testing.T) {
		t.Parallel()
		_, repo := newRepository(t, nc)
		if _, err := repo.Execute(t.Context(), "a1", debit{Cents: 1}); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := repo.Load(t.Context(), "a1"); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := repo.Create(t.Context(), "a1", open{Cents: 150}); err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Create(t.Context(), "a1", open{Cents: 150}); !errors.Is(err, aggregate.ErrExists) {
			t.Fatal(err)
		}
	})

	t.Run("CommandIDs", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{jetstream.NewCommandID(), "any string"} {
			store, repo := newRepository(t, nc)
			if _, err := repo.Create(t.Context(), "a1", open{Cents: 150}); err != nil {
				t.Fatal(err)
			}
			first, err := repo.Execute(t.Context(), "a1", debit{Cents: 10}, aggregate.CommandID(id))
			if err != nil || first.Duplicate {
				t.Fatal(first, err)
			}
			for range 3 {
				if _, err := repo.Execute(t.Context(), "a1", credit{Cents: 1}); err != nil {
					t.Fatal(err)
				}
			}
			other, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []*aggregate.Repository[account]{repo, other} {
				again, err := r.Execute(t.Context(), "a1", debit{Cents: 10}, aggregate.CommandID(id))
				if err != nil || !again.Duplicate || again.Version != first.Version || again.Position != first.Position ||
					len(again.Events) != 1 || again.Events[0].EventID != first.Events[0].EventID {
					t.Fatalf("%+v %+v %v", again, first, err)
				}
				if _, err := r.Execute(t.Context(), "a1", debit{Cents: 11}, aggregate.CommandID(id)); !errors.Is(err, aggregate.ErrOtherPayload) {
					t.Fatal(err)
				}
			}
		}
	})

	t.Run("TriggersForEver", func(t *testing.T) {
		t.Parallel()
		store, repo := newRepository(t, nc)
		cause, err := repo.Create(t.Context(), "cause", open{Cents: 1})
		if err != nil {
			t.Fatal(err)
		}
		trig := aggregate.Trigger{Subscriber: "s", EventID: cause.Events[0].EventID, Step: "debit", Position: cause.Position}
		// Recorded as not found, and for ever so.
		if _, err := repo.Execute(t.Context(), "a1", debit{Cents: 1}, aggregate.TriggeredBy(trig)); !errors.Is(err, aggregate.ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := repo.Create(t.Context(), "a1", open{Cents: 100}); err != nil {
			t.Fatal(err)
		}
		if res, err := repo.Execute(t.Context(), "a1", debit{Cents: 1}, aggregate.TriggeredBy(trig)); !errors.Is(err, aggregate.ErrNotFound) || !res.Duplicate {
			t.Fatal(res, err)
		}
		// A recorded rejection stays one after a deposit.
		trig.Step = "big"
		if _, err := repo.Execute(t.Context(), "a1", debit{Cents: 500}, aggregate.TriggeredBy(trig)); !errors.Is(err, aggregate.ErrRejected) {
			t.Fatal(err)
		}
		if _, err := repo.Execute(t.Context(), "a1", credit{Cents: 1000}); err != nil {
			t.Fatal(err)
		}
		other, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Execute(t.Context(), "a1", debit{Cents: 500}, aggregate.TriggeredBy(trig)); !errors.Is(err, aggregate.ErrRejected) {
			t.Fatal(err)
		}
		trig.Step = "once"
		for range 3 {
			if _, err := other.Execute(t.Context(), "a1", debit{Cents: 5}, aggregate.TriggeredBy(trig)); err != nil {
				t.Fatal(err)
			}
		}
		snap, err := repo.Load(t.Context(), "a1")
		if err != nil || snap.State.Cents != 1095 {
			t.Fatal(snap, err)
		}
	})

	t.Run("ExpectVersion", func(t *testing.T) {
		t.Parallel()
		_, repo := newRepository(t, nc)
		if _, err := repo.Create(t.Context(), "a1", open{Cents: 150}); err != nil {
			t.Fatal(err)
		}
		var version *aggregate.VersionError
		if _, err := repo.Execute(t.Context(), "a1", debit{Cents: 1}, aggregate.ExpectVersion(7)); !errors.As(err, &version) || version.Actual != 1 {
			t.Fatal(err)
		}
		if _, err := repo.Execute(t.Context(), "a1", debit{Cents: 1}, aggregate.ExpectVersion(1)); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("CreateDerivesTheIDFromTheCommand", func(t *testing.T) {
		t.Parallel()
		_, repo := newRepository(t, nc)
		id := jetstream.NewCommandID()
		one, err := repo.Create(t.Context(), "", open{Cents: 150}, aggregate.CommandID(id))
		if err != nil {
			t.Fatal(err)
		}
		two, err := repo.Create(t.Context(), "", open{Cents: 150}, aggregate.CommandID(id))
		if err != nil || two.ID != one.ID || !two.Duplicate {
			t.Fatal(one, two, err)
		}
	})
}

func TestConcurrentWritersLoseNothing(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, first := newRepository(t, nc)
	if _, err := first.Create(t.Context(), "a1", open{Cents: 0}); err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for w := range writers {
		repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{MaxAttempts: 1000})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range each {
				id := jetstream.NewCommandID()
				for range 2 { // each command is sent twice
					if _, err := repo.Execute(t.Context(), "a1", credit{Cents: 1}, aggregate.CommandID(id)); err != nil {
						t.Error(w, i, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	snap, err := first.Load(t.Context(), "a1")
	if err != nil || snap.State.Cents != writers*each || snap.Version != writers*each+1 {
		t.Fatal(snap, err)
	}
}
