package aggregatetest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatalf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// A test of a bank account's decisions.
func ExampleGiven() {
	t := printer{} // in a test: t *testing.T

	aggregatetest.Given(t, accountType(), Opened{Cents: 700}).
		When(Debit{Cents: 500, Note: "rent"}).Then(Debited{Cents: 500, Note: "rent"}).
		When(Debit{Cents: 500}).Rejected("insufficient-funds").
		State(Account{Cents: 200, Notes: []string{"rent"}})

	// What a wrong expectation reads like:
	aggregatetest.Given(t, accountType(), Opened{Cents: 700}).
		When(Debit{Cents: 701}).Then(Debited{Cents: 701})
	// Output:
	// aggregatetest_test.Debit failed: rejected: insufficient-funds: the balance is 700; want events aggregatetest_test.Debited{Cents:701 Note:}
}

// What a rent does about a debit that was refused. None of its effects happens: the
// test says what came of them.
func ExampleNewHandlers() {
	t := printer{} // in a test: t *testing.T

	store := aggregatetest.NewStore(t)
	repo := aggregatetest.NewRepository(store, accountType())
	handlers := aggregatetest.NewHandlers(store, pays(repo)...)
	handlers.Answer(aggregatetest.Effect{ID: "landlord"}, aggregate.Reject("insufficient-funds", ""))
	handlers.When(events, "a1", Debited{Cents: 3, Note: "bill"}).Then(
		aggregatetest.Effect{Target: "account", ID: "landlord", Command: Debit{Cents: 1}},
		aggregatetest.Effect{Target: "account", Command: Open{Cents: 2}, Step: "reminder", Create: true},
		aggregatetest.Effect{Target: "account", ID: "a1", Command: Debit{Cents: -3}},
		aggregatetest.Effect{Target: "account", ID: "a1", Step: "fee", Cancel: true},
	)
	fmt.Println("that is what it does")
	// Output:
	// that is what it does
}

// A property that does not hold, of an account that may be overdrawn: the report
// has the seed, and the fewest commands that show it.
func ExampleCheck() {
	t := printer{} // in a test: t *testing.T

	overdrawn := accountType(func(m *mistaken) {
		m.debit = func(_ Account, c Debit, _ aggregate.Decision) ([]any, error) { return []any{Debited(c)}, nil }
	})
	aggregatetest.Check(t, overdrawn, aggregatetest.Property[Account]{
		Command: func(r *rand.Rand, _ Account, exists bool) any {
			if !exists {
				return Open{Cents: 10 * r.Int64N(10)}
			}
			return Debit{Cents: 10 * r.Int64N(10)}
		},
		Invariant: func(a Account) error {
			if a.Cents < 0 {
				return errors.New("it is overdrawn")
			}
			return nil
		},
		Runs: 1, Seed: 1,
	})
	// Output:
	// property of aggregate type "account": after aggregatetest_test.Debit: it is overdrawn
	// run 0 of seed 1; the last of these 2 commands shows it (it was found with 3):
	//   1. aggregatetest_test.Open{Cents:50}
	//   2. aggregatetest_test.Debit{Cents:70, Note:""}
	// set Property.Seed to 1 to draw the same again
}

// Histories with the states that they led to, in files beside the test: what an Apply
// means cannot change unnoticed. ROSSBY_UPDATE=1 records new ones.
func ExampleGolden() {
	t := printer{} // in a test: t *testing.T

	aggregatetest.Golden(t, accountType(), "testdata/account", spent)
	fmt.Println("still means what it meant")
	// Output: still means what it meant
}

// A test with more than one process waits for what one of them will have done.
func ExampleAwait() {
	t := printer{} // in a test: t *testing.T

	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1), nats.Timeout(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, accountType(), aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Create(ctx, "a1", Open{Cents: 70}); err != nil {
		log.Fatal(err)
	}
	opened, m := aggregatetest.Await(t, store, events, func(e Opened, _ jetstream.Meta) bool { return e.Cents > 50 })
	fmt.Println(m.ID, opened.Cents)
	nc.Close()
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
	// Output: a1 70
}
