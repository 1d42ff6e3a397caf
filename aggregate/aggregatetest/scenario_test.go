package aggregatetest_test

import (
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// T1: Eventuate's compares every expected event with the first one.
func TestScenario(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, accountType()).
		When(Debit{Cents: 1}).Fails(aggregate.ErrNotFound).
		When(Open{Cents: 700}).Then(Opened{Cents: 700}).
		When(Open{Cents: 700}).Fails(aggregate.ErrExists).
		When(&Debit{Cents: 500, Note: "rent"}).Then(&Debited{Cents: 500, Note: "rent"}).
		When(Debit{}).Nothing().
		When(Debit{Cents: 500}).Rejected("insufficient-funds").
		State(Account{Cents: 200, Notes: []string{"rent"}})

	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	res, err := aggregatetest.Given(t, accountType(), Opened{Cents: 10}, jetstream.Recorded{
		Meta: jetstream.Meta{Time: at, Metadata: map[string]string{"by": "-ada"}}, Event: Debited{Cents: 1, Note: "n"},
	}).ID("mine").
		When(Debit{Cents: 2, Note: "m"}, aggregate.CommandID("c1"), aggregate.ExpectVersion(2)).
		State(Account{Cents: 7, Notes: []string{"n-ada", "m"}}).
		When(Debit{Cents: 2, Note: "m"}, aggregate.CommandID("c1")).
		Result()
	if err != nil || !res.Duplicate || res.ID != "mine" || res.Version != 3 || len(res.Events) != 1 {
		t.Fatalf("%+v %v", res, err)
	}
}

func TestScenarioFails(t *testing.T) {
	t.Parallel()
	opened := func(t testing.TB) *aggregatetest.Scenario[Account] {
		t.Helper()
		return aggregatetest.Given(t, accountType(), Opened{Cents: 10})
	}
	for name, c := range map[string]struct {
		test  func(t testing.TB)
		words []string
	}{
		"OtherEvent":  {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Then(Debited{Cents: 2}) }, []string{"other events", "Cents"}},
		"SecondEvent": {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Then(Debited{Cents: 1}, Debited{Cents: 1}) }, []string{"other events"}},
		"NoEvents":    {func(t testing.TB) { opened(t).When(Debit{}).Then(Debited{}) }, []string{"other events"}},
		"NotNothing":  {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Nothing() }, []string{"other events"}},
		"RefusedThen": {func(t testing.TB) { opened(t).When(Debit{Cents: 11}).Then(Debited{Cents: 11}) }, []string{"insufficient-funds"}},
		"NotRefused":  {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Rejected("x") }, []string{"was not refused", "Debited{Cents:1"}},
		"OtherCode":   {func(t testing.TB) { opened(t).When(Debit{Cents: 11}).Rejected("x") }, []string{`want "x"`}},
		"NoRejection": {func(t testing.TB) { opened(t).When(Open{}).Rejected("x") }, []string{"exists already"}},
		"NoError":     {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Fails(aggregate.ErrExists) }, []string{"did not fail"}},
		"OtherError":  {func(t testing.TB) { opened(t).When(Debit{Cents: 11}).Fails(aggregate.ErrExists) }, []string{"insufficient-funds"}},
		"OtherState":  {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).State(Account{Cents: 8}) }, []string{"the state is another"}},
		"NoState": {func(t testing.TB) {
			aggregatetest.Given(t, accountType()).When(Debit{}).State(Account{})
		}, []string{"want a state"}},
		"NotAnEvent":     {func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Then(Debit{Cents: 1}) }, []string{"Debit"}},
		"NotAGivenEvent": {func(t testing.TB) { aggregatetest.Given(t, accountType(), Debit{}).When(Debit{}) }, []string{"given event"}},
		"NotACommand":    {func(t testing.TB) { opened(t).When(Opened{}).Nothing() }, []string{"is not a command"}},
		"BadID":          {func(t testing.TB) { opened(t).ID("a b").When(Debit{}) }, []string{"a b"}},
		"MistakenType":   {func(t testing.TB) { aggregatetest.Given(t, aggregate.New[Account](events)) }, []string{"no Apply"}},
		"HandlerThatPanics": {func(t testing.TB) {
			aggregatetest.Given(t, accountType(func(m *mistaken) {
				m.debit = func(Account, Debit, aggregate.Decision) ([]any, error) { panic("on purpose") }
			}), Opened{}).When(Debit{}).Nothing()
		}, []string{"on purpose"}},
		"ApplyThatIsNotPure": {func(t testing.TB) {
			n := int64(0)
			aggregatetest.Given(t, accountType(func(m *mistaken) {
				m.debited = func(a *Account, _ Debited, _ jetstream.Meta) { n++; a.Cents = n }
			}), Opened{Cents: 10}).When(Debit{Cents: 1})
		}, []string{"replayed", "Apply"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natstest.Fails(t, c.test, c.words...)
		})
	}
	if got := natstest.Failure(t, func(t testing.TB) { opened(t).When(Debit{Cents: 1}).Then(Debited{Cents: 1}) }); got != "" {
		t.Errorf("a right one fails: %s", got)
	}
}
