package docs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/docs/internal/account"
	"github.com/rossby-go/rossby/docs/internal/accounts"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

// snippet:given
func TestDebit(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, accounts.Type, account.Opened{Cents: 700}).
		When(accounts.Debit{Cents: 500}).Then(account.Debited{Cents: 500}).
		When(accounts.Debit{Cents: 500}).Rejected("insufficient-funds").
		When(accounts.Credit{}).Nothing().
		State(accounts.Account{Cents: 200})
}

// end:given

// snippet:property
func TestNeverOverdrawn(t *testing.T) {
	t.Parallel()
	aggregatetest.Check(t, accounts.Type, aggregatetest.Property[accounts.Account]{
		Command: func(r *rand.Rand, _ accounts.Account, exists bool) any { // draws the next one
			if !exists {
				return accounts.Open{Cents: r.Int64N(100)}
			}
			return accounts.Debit{Cents: r.Int64N(100)}
		},
		Invariant: func(a accounts.Account) error { // of every state
			if a.Cents < 0 {
				return errors.New("it is overdrawn")
			}
			return nil
		},
		Transition: func(before accounts.Account, _ any, events []any, after accounts.Account) error {
			if len(events) == 0 && before != after {
				return fmt.Errorf("%v became %v without an event", before, after)
			}
			return nil
		},
	})
}

// end:property

// snippet:handlers
func TestTransferIsRefused(t *testing.T) {
	t.Parallel()
	store := aggregatetest.NewStore(t)
	repo := aggregatetest.NewRepository(store, accounts.Type)
	transfers := aggregatetest.NewRepository(store, transferType)
	h := aggregatetest.NewHandlers(store, moneyTransfer(repo, transfers))
	h.Answer(aggregatetest.Effect{ID: "a1"}, aggregate.Reject("insufficient-funds", ""))

	h.When(transferEvents, "t1", Requested{From: "a1", To: "a2", Cents: 5}).Then(
		aggregatetest.Effect{Target: "transfer", ID: "t1", Step: "expire", Command: Fail{Code: "expired"}, After: time.Minute},
		aggregatetest.Effect{Target: "account", ID: "a1", Command: accounts.Debit{Cents: 5}},
		aggregatetest.Effect{Target: "transfer", ID: "t1", Command: Fail{Code: "insufficient-funds"}},
	)
}

// end:handlers

// snippet:process
func TestTrip(t *testing.T) {
	t.Parallel()
	store := aggregatetest.NewStore(t)
	repo := aggregatetest.NewRepository(store, accounts.Type)
	trips := tripSaga(repo, repo)
	instances := aggregatetest.NewRepository(store, trips.Type())
	store.Run("trip", trips.Handlers(instances)...)
	store.Append(account.Events, "express", account.Opened{Cents: 100})
	store.Append(account.Events, "visa", account.Opened{Cents: 70})

	if _, err := instances.Create(t.Context(), "t1", saga.Start[Trip]{Data: Trip{Train: "express", Card: "visa", Cents: 70}}); err != nil {
		t.Fatal(err)
	}
	store.Settle()                 // every event is handled, those that follow, too
	store.Advance(2 * time.Minute) // deadlines fall due, in order, each at its time

	t1, err := instances.Load(t.Context(), "t1")
	if err != nil || t1.State.Phase != saga.Completed {
		t.Error(t1.State.Phase, err)
	}
}

// end:process

// snippet:view
func TestOwners(t *testing.T) {
	t.Parallel()
	projectiontest.New(t, Owners).
		Given(Events, "a1", Credited{Owner: "ann", Cents: 50}, Credited{Owner: "ann", Cents: 20}).
		Given(Events, "a2", Credited{Owner: "bob", Cents: 5}).
		Then(map[string]Owner{"ann": {Cents: 70}, "bob": {Cents: 5}}).
		Finds("cents", projection.IntValue(70), "ann")
}

// end:view
