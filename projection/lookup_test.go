package projection_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// owner is a customer with the accounts that it owns, and what is on them.
type owner struct {
	Accounts map[string]int64 `json:"accounts"`
}

// owners finds a customer by what it holds: only a lookup view can.
func owners() *projection.Definition[owner] {
	return projection.NewLookup("owners",
		projection.OnTx(accountEvents, func(tx *projection.Tx[owner], e opened, m jetstream.Meta) error {
			o, found := tx.Get(e.Owner)
			if !found {
				o.Accounts = map[string]int64{}
			}
			o.Accounts[m.ID] = 0
			tx.Put(e.Owner, o)
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[owner], e credited, m jetstream.Meta) error {
			for key, o := range tx.Prefix("") {
				if cents, has := o.Accounts[m.ID]; has {
					o.Accounts[m.ID] = cents + e.Cents
					tx.Put(key, o)
				}
			}
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[owner], _ closed, m jetstream.Meta) error {
			for key, o := range tx.Prefix("") {
				delete(o.Accounts, m.ID)
				if len(o.Accounts) == 0 {
					tx.Delete(key)
				} else {
					tx.Put(key, o)
				}
			}
			return nil
		}),
	)
}

func TestLookup(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"}, credited{Cents: 5})
	f.append("a2", opened{Owner: "ann"})
	f.append("a3", opened{Owner: "bob"})
	up := start(t, f.store, owners(), quiet())
	r := reader[owner](t, f, "owners")
	pos := f.append("a2", credited{Cents: 7})
	if e := get(t, r, "ann", projection.AtLeast(pos)); !maps.Equal(e.Value.Accounts, map[string]int64{"a1": 5, "a2": 7}) {
		t.Errorf("ann is %+v", e)
	}
	// Another owner of the view knows nothing: it must read.
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	f.append("a1", closed{})
	start(t, f.store, owners(), quiet())
	pos = f.append("a3", closed{})
	if e := get(t, r, "ann", projection.AtLeast(pos)); !maps.Equal(e.Value.Accounts, map[string]int64{"a2": 7}) {
		t.Errorf("ann is %+v", e)
	}
	if _, err := r.Get(t.Context(), "bob"); !errors.Is(err, projection.ErrNotFound) {
		t.Errorf("bob: %v", err)
	}
}

func TestLookupManyKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	def := func(n int) *projection.Definition[account] {
		return projection.NewLookup("many", projection.OnTx(accountEvents, func(tx *projection.Tx[account], _ opened, m jetstream.Meta) error {
			for i := range n {
				tx.Put(fmt.Sprintf("%s-%d", m.ID, i), account{Events: i})
			}
			return nil
		}))
	}
	for i := range 5 {
		f.append(id(i), opened{})
	}
	up := start(t, f.store, def(600), quiet())
	r := reader[account](t, f, "many")
	if e := get(t, r, "a4-599", projection.AtLeast(f.last)); e.Value.Events != 599 {
		t.Errorf("a4-599 is %+v", e)
	}
	n := 0
	for _, err := range r.List(t.Context(), projection.ListOptions{}) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 3000 {
		t.Errorf("%d keys", n)
	}
	if err := up.stop(); err != nil {
		t.Error(err)
	}

	f = newFixture(t)
	f.append("a1", opened{})
	up = start(t, f.store, def(1000), quiet())
	err := up.wait()
	var stopped *projection.StoppedError
	var many *projection.TooManyKeysError
	if !errors.As(err, &stopped) || !errors.As(err, &many) || many.Keys != 1000 {
		t.Errorf("Run: %v", err)
	}
}

// transaction stores one event of each of several aggregates, all or none.
func (f *fixture) transaction(ids []string, types []string, events []jetstream.EventData) jetstream.Position {
	f.t.Helper()
	writes := make([]jetstream.Write, len(ids))
	for i, id := range ids {
		writes[i] = jetstream.Write{
			Type: types[i], ID: id, Expect: jetstream.Any(),
			Decisions: []jetstream.Decision{{Events: events[i : i+1]}},
		}
	}
	return f.transact(writes...)
}

func (f *fixture) transact(writes ...jetstream.Write) jetstream.Position {
	f.t.Helper()
	heads, err := f.store.AppendAll(f.t.Context(), writes...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = f.store.Position(heads[len(heads)-1].Sequence)
	return f.last
}

func encode(t testing.TB, schema *jetstream.Schema, event any) jetstream.EventData {
	t.Helper()
	e, err := schema.Encode(event, jetstream.Msgpack)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestTransactionIsNotSplit: money moved within a transaction is never seen half
// moved, and the position never stands inside.
func TestTransactionIsNotSplit(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				url = natstest.RunCluster(t).URLs()[0]
			}
			f := fixtureAt(t, url, replicas)
			sums := projection.NewLookup("sums", projection.OnTx(accountEvents, func(tx *projection.Tx[int64], e credited, m jetstream.Meta) error {
				v, _ := tx.Get(m.ID)
				tx.Put(m.ID, v+e.Cents)
				return nil
			}))
			start(t, f.store, sums, quiet())
			r := reader[int64](t, f, "sums")
			const rounds = 60
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				for i := range rounds {
					f.transaction([]string{"x", "y"}, []string{"account", "account"}, []jetstream.EventData{
						encode(t, accountEvents, credited{Cents: int64(-i)}), encode(t, accountEvents, credited{Cents: int64(i)}),
					})
				}
			}()
			for paced(t.Context(), time.Millisecond) {
				entries, err := r.GetMany(t.Context(), []string{"x", "y"})
				if err != nil {
					t.Fatal(err)
				}
				var sum int64
				for _, e := range entries {
					sum += e.Value
				}
				if sum != 0 || len(entries) == 1 {
					t.Fatalf("half of a transaction: %+v", entries)
				}
				select {
				case <-finished:
				default:
					continue
				}
				break
			}
			if e := get(t, r, "y", projection.AtLeast(f.last)); e.Value != rounds*(rounds-1)/2 {
				t.Errorf("y is %+v", e)
			}
		})
	}
}

// TestTransactionHiddenByFilter: the view follows one type, the transaction ends
// with a commit of another.
func TestTransactionHiddenByFilter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	start(t, f.store, accounts(), quiet())
	other := jetstream.NewSchema("other", jetstream.Event[credited]("credited"))
	r := reader[account](t, f, "accounts")
	pos := f.transaction([]string{"x", "y"}, []string{"account", "other"}, []jetstream.EventData{
		encode(t, accountEvents, opened{Owner: "ann"}), encode(t, other, credited{}),
	})
	if e := get(t, r, "x", projection.AtLeast(pos)); e.Value.Owner != "ann" || e.Position != pos {
		t.Errorf("x is %+v", e)
	}
	// Position moves over what is not followed.
	pos = f.appendData("other", "z", encode(t, other, credited{}))
	if e := get(t, r, "x", projection.AtLeast(pos)); e.Position != pos {
		t.Errorf("x is %+v, wanted %v", e, pos)
	}
}
