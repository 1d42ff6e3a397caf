package projectiontest_test

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

func TestScenario(t *testing.T) {
	t.Parallel()
	s := projectiontest.New(t, accounts()).
		Then(map[string]Account{}).
		Given(events, "a1", Opened{Owner: "ann", Tags: []string{"x"}}, Credited{Cents: 70}).
		Given(events, "a2", Opened{Owner: "bob"}).
		Given(events, "a3", jetstream.Recorded{
			Meta: jetstream.Meta{Metadata: map[string]string{"by": "eve"}}, Event: Opened{Owner: "ann"},
		}).
		Given(events, "a1", Moved{From: "a1", To: "a2", Cents: 20}).
		Then(map[string]Account{
			"a1": {Owner: "ann", Cents: 50, Tags: []string{"x"}}, "a2": {Owner: "bob", Cents: 20}, "a3": {Owner: "ann", By: "eve"},
		}).
		Finds("owner", "ann", "a3", "a1").
		Given(events, "a1", Closed{}).
		Holds("a2", Account{Owner: "bob", Cents: 20}).
		Lacks("a1", "a4").
		Finds("owner", "ann", "a3").
		Finds("owner", "nobody")
	if a, found := s.Get("a3"); !found || a.By != "eve" {
		t.Errorf("a3 is %+v, %v", a, found)
	}
	s.Given(events, "a2", Moved{From: "a1", To: "a2"}).Fails(projection.ErrFold)
}

// Within a test that has a clock of its own.
func TestScenarioInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		projectiontest.New(t, accounts()).Given(events, "a1", Opened{Owner: "ann"}).Holds("a1", Account{Owner: "ann"})
	})
}

func TestScenarioOfALookup(t *testing.T) {
	t.Parallel()
	def := func(many int) *projection.Definition[int64] {
		return projection.NewLookup("sums", projection.OnTx(events, func(tx *projection.Tx[int64], e Credited, m jetstream.Meta) error {
			var sum int64
			for _, v := range tx.Prefix("a") {
				sum += v
			}
			tx.Put(m.ID, e.Cents)
			tx.Put("sum", sum+e.Cents)
			for i := range many {
				tx.Put(m.ID+"-"+strconv.Itoa(i), e.Cents)
			}
			return nil
		}))
	}
	projectiontest.New(t, def(0)).
		Given(events, "a1", Credited{1}).Given(events, "a2", Credited{2}).Given(events, "a3", Credited{3}).
		Then(map[string]int64{"a1": 1, "a2": 2, "a3": 3, "sum": 6})
	// Pages are filled to what a batch holds, as an updater's are.
	projectiontest.New(t, def(400)).
		Given(events, "b1", Credited{1}).Given(events, "b2", Credited{2}).Given(events, "b3", Credited{3}).
		Holds("b3-399", 3)
	projectiontest.New(t, def(998)).Given(events, "b1", Credited{1}).Fails(projection.ErrTooManyKeys)
}

func TestScenarioFails(t *testing.T) {
	t.Parallel()
	given := func(t testing.TB) *projectiontest.Scenario[Account] {
		t.Helper()
		return projectiontest.New(t, accounts()).Given(events, "a1", Opened{Owner: "ann"}, Credited{Cents: 70})
	}
	broken := func(t testing.TB) *projectiontest.Scenario[Account] {
		t.Helper()
		return given(t).Given(events, "a1", Moved{From: "a1", To: "zz"})
	}
	for name, c := range map[string]struct {
		test  func(testing.TB)
		words []string
	}{
		"OtherValue": {func(t testing.TB) { given(t).Then(map[string]Account{"a1": {Owner: "ann", Cents: 71}}) }, []string{"71", "70"}},
		"MissingKey": {func(t testing.TB) { given(t).Then(map[string]Account{"a1": {Owner: "ann", Cents: 70}, "a2": {}}) }, []string{"a2"}},
		"KeyTooMany": {func(t testing.TB) { given(t).Then(nil) }, []string{"a1"}},
		"Holds":      {func(t testing.TB) { given(t).Holds("a1", Account{}) }, []string{"a1", "ann"}},
		"HoldsNot":   {func(t testing.TB) { given(t).Holds("a2", Account{}) }, []string{"a2", "a1"}},
		"Lacks":      {func(t testing.TB) { given(t).Lacks("a2", "a1") }, []string{"a1", "ann"}},
		"FindsOther": {func(t testing.TB) { given(t).Finds("owner", "ann", "a2") }, []string{"owner", "a1", "a2"}},
		"FindsNone":  {func(t testing.TB) { given(t).Finds("owner", "bob", "a1") }, []string{"bob", "a1"}},
		"NoIndex":    {func(t testing.TB) { given(t).Finds("colour", "red") }, []string{"colour", "owner"}},
		"Sound":      {func(t testing.TB) { given(t).Fails(projection.ErrFold) }, []string{"can be folded"}},
		"OtherError": {func(t testing.TB) { broken(t).Fails(projection.ErrTooManyKeys) }, []string{"zz", "batch"}},
		"Then":       {func(t testing.TB) { broken(t).Then(nil) }, []string{"zz", "want the view"}},
		"Get":        {func(t testing.TB) { broken(t).Get("a1") }, []string{"zz"}},
		"Panic": {func(t testing.TB) {
			projectiontest.New(t, accounts(func(m *mistaken) {
				m.credited = func(*Account, Credited, jetstream.Meta) { panic("oops") }
			})).Given(events, "a1", Credited{}).Holds("a1", Account{})
		}, []string{"oops", "credited"}},
		"ForeignEvent": {func(t testing.TB) { projectiontest.New(t, accounts()).Given(events, "a1", Account{}) }, []string{"Account"}},
		"BadID":        {func(t testing.TB) { projectiontest.New(t, accounts()).Given(events, "a 1.", Closed{}) }, []string{"a 1."}},
		"Definition":   {func(t testing.TB) { projectiontest.New(t, projection.NewKeyed[Account]("V")) }, []string{"no event"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fails(t, c.test, c.words...)
		})
	}
}

// TestImpure: every way in which a fold can depend on more than it should.
func TestImpure(t *testing.T) {
	t.Parallel()
	shared := make([]string, 1, 10)
	shared[0] = "new"
	for name, c := range map[string]struct {
		mistake func(*mistaken)
		words   []string
	}{
		"Counter": {func(m *mistaken) {
			n := int64(0)
			m.credited = func(a *Account, _ Credited, _ jetstream.Meta) { n++; a.Cents = n }
		}, []string{"credited of account a1", "ran again", "variable"}},
		"Clock": {func(m *mistaken) {
			m.opened = func(a *Account, _ Opened, _ jetstream.Meta) { a.By = time.Now().String() }
		}, []string{"opened of account", "clock"}},
		"CoarseClock": {func(m *mistaken) {
			m.opened = func(a *Account, _ Opened, _ jetstream.Meta) { a.By = time.Now().UTC().Format("2006") }
		}, []string{"2000", "Meta"}},
		"Random": {func(m *mistaken) {
			m.credited = func(a *Account, _ Credited, _ jetstream.Meta) { a.Cents = rand.Int64() }
		}, []string{"credited", "random"}},
		"MapOrder": {func(m *mistaken) {
			m.opened = func(a *Account, e Opened, _ jetstream.Meta) {
				set := map[string]bool{}
				for _, tag := range e.Tags {
					set[tag] = true
				}
				a.Tags = nil
				for tag := range set {
					a.Tags = append(a.Tags, tag)
				}
			}
		}, []string{"opened", "map"}},
		// Both accounts hold one array: what is appended for one shows in the other,
		// as long as neither was stored in between.
		"SharedArray": {func(m *mistaken) {
			m.opened = func(a *Account, _ Opened, _ jetstream.Meta) { a.Tags = shared[:1] }
			m.credited = func(a *Account, e Credited, _ jetstream.Meta) {
				a.Tags = append(a.Tags, strconv.FormatInt(e.Cents, 10))
			}
		}, []string{"together", "share"}},
		"Remembers": {func(m *mistaken) {
			last := ""
			m.opened = func(a *Account, e Opened, _ jetstream.Meta) { a.Owner, a.By, last = e.Owner, last, e.Owner }
		}, []string{"variable"}},
		"Metadata": {func(m *mistaken) {
			m.opened = func(a *Account, _ Opened, m jetstream.Meta) { a.By, m.Metadata["by"] = m.Metadata["by"], "me" }
		}, []string{"Metadata", "account"}},
		"Index": {func(m *mistaken) {
			n := 0
			m.owner = func(Account) []string { n++; return []string{strconv.Itoa(n)} }
		}, []string{"ran again"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fails(t, func(t testing.TB) {
				by := jetstream.Meta{Metadata: map[string]string{"by": "eve"}}
				tags := []string{"a", "b", "c", "d"}
				projectiontest.New(t, accounts(c.mistake)).
					Given(events, "a1", jetstream.Recorded{Meta: by, Event: Opened{Owner: "ann", Tags: tags}}).
					Given(events, "a2", jetstream.Recorded{Meta: by, Event: Opened{Owner: "bob", Tags: tags}}).
					Given(events, "a1", Credited{Cents: 1}).
					Given(events, "a2", Credited{Cents: 2}).
					Lacks("zz")
			}, c.words...)
		})
	}
}

// TestPureFails: the view that an impure fold makes is looked at all the same.
func TestPureFails(t *testing.T) {
	t.Parallel()
	fails(t, func(t testing.TB) {
		n := int64(0)
		projectiontest.New(t, accounts(func(m *mistaken) {
			m.credited = func(a *Account, _ Credited, _ jetstream.Meta) { n++; a.Cents = n }
		})).Given(events, "a1", Credited{}).Holds("a9", Account{})
	}, "ran again", "a9")
}

var errRefused = errors.New("refused")

// TestLookupRemembers: a lookup fold that keeps what it has read.
func TestLookupRemembers(t *testing.T) {
	t.Parallel()
	fails(t, func(t testing.TB) {
		seen := map[string]bool{}
		def := projection.NewLookup("sums", projection.OnTx(events, func(tx *projection.Tx[int64], e Credited, m jetstream.Meta) error {
			if seen[m.EventID] {
				return nil
			}
			seen[m.EventID] = true
			v, _ := tx.Get(m.ID)
			tx.Put(m.ID, v+e.Cents)
			return nil
		}))
		projectiontest.New(t, def).Given(events, "a1", Credited{1}, Credited{2}).Lacks("zz")
	}, "ran again")
	def := projection.NewLookup("sums", projection.OnTx(events, func(*projection.Tx[int64], Credited, jetstream.Meta) error { return errRefused }))
	projectiontest.New(t, def).Given(events, "a1", Credited{1}).Fails(errRefused)
}
