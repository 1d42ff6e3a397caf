package projection_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestCheckpointsAndTransactions: every checkpoint that is ever written stands at
// the end of a transaction or outside of any, whether the view follows all of its
// commits, some, or has the others hidden by its filter, and whether it follows
// closely or catches up.
func TestCheckpointsAndTransactions(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		url := natstest.Run(t).URL()
		if replicas == 3 {
			url = natstest.RunCluster(t).URLs()[0]
		}
		for _, types := range []int{1, 2} {
			for _, behind := range []bool{false, true} {
				t.Run(fmt.Sprintf("R%d-%d-%v", replicas, types, behind), func(t *testing.T) {
					t.Parallel()
					testCheckpoints(t, fixtureAt(t, url, replicas), types, behind)
				})
			}
		}
	}
}

// noted is an event of a second type; a third is never followed.
type noted struct {
	N int `json:"n"`
}

func testCheckpoints(t *testing.T, f *fixture, types int, behind bool) {
	t.Helper()
	rounds := 40
	if behind {
		rounds = 150 // what is read at once ends within some of them
	}
	if testing.Short() {
		rounds = min(rounds/2, 50) // as with the race detector
	}
	notes := jetstream.NewSchema("note", jetstream.Event[noted]("noted"))
	handlers := []projection.TxHandler[int64]{
		projection.OnTx(accountEvents, func(tx *projection.Tx[int64], e credited, m jetstream.Meta) error {
			v, _ := tx.Get(m.ID)
			tx.Put(m.ID, v+e.Cents)
			return nil
		}),
	}
	if types == 2 {
		handlers = append(handlers, projection.OnTx(notes, func(tx *projection.Tx[int64], e noted, m jetstream.Meta) error {
			tx.Put(m.ID, int64(e.N))
			return nil
		}))
	}
	var mu sync.Mutex
	var positions []uint64
	sub, err := f.nc.Subscribe("$KV."+f.store.Name()+"_sums._rossby.>", func(m *nats.Msg) {
		var cp struct {
			Position uint64 `json:"position"`
		}
		if json.Unmarshal(m.Data, &cp) == nil {
			mu.Lock()
			defer mu.Unlock()
			positions = append(positions, cp.Position)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	def := projection.NewLookup("sums", handlers...)
	var r *projection.Reader[int64]
	if !behind {
		start(t, f.store, def, quiet())
		r = reader[int64](t, f, "sums")
	}
	sum := int64(0)
	for i := range rounds {
		// The aggregates x and y are always there and move an amount; the rest is
		// before, between and behind them.
		writes := []jetstream.Write{
			writing("account", "x", encode(t, accountEvents, credited{Cents: int64(-i)})),
			writing("account", "y", encode(t, accountEvents, credited{Cents: int64(i)})),
		}
		sum += int64(i)
		for k := range rand.N(12) {
			other := writing("other", fmt.Sprint("o", k), encode(t, notes, noted{k}))
			if rand.N(2) == 0 {
				other.Type, other.ID = "note", fmt.Sprint("n", k)
			}
			writes = slices.Insert(writes, rand.N(len(writes)+1), other)
		}
		if rand.N(3) == 0 {
			writes[0].Reserve = []jetstream.Key{{Name: "round", Value: strconv.Itoa(i)}}
		}
		f.transact(writes...)
		if i%3 == 0 {
			f.transact(writing("other", "alone", encode(t, notes, noted{i})), writing("other", "two", encode(t, notes, noted{i})))
		}
		if i%5 == 0 && !behind {
			get(t, r, "x", projection.AtLeast(f.last)) // it keeps up
		}
	}
	if behind {
		cfg := quiet()
		cfg.PageEvents = 1
		start(t, f.store, def, cfg)
		r = reader[int64](t, f, "sums")
	}
	if e := get(t, r, "y", projection.AtLeast(f.last)); e.Value != sum {
		t.Errorf("y is %+v", e)
	}
	if e := get(t, r, "x", projection.AtLeast(f.last)); e.Value != -sum || e.Position != f.last {
		t.Errorf("x is %+v, the last position %v", e, f.last)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Error(err)
	}
	within := map[uint64]bool{}
	for m, err := range f.store.Messages(t.Context(), "", "", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		index, count := wire.TxPlace(m.Header)
		within[m.Sequence] = index < count
	}
	mu.Lock()
	defer mu.Unlock()
	different := slices.Clone(positions)
	slices.Sort(different)
	if different = slices.Compact(different); len(different) < 5 {
		t.Errorf("only the positions %d were seen", different)
	}
	for _, p := range different {
		if within[p] {
			t.Errorf("a checkpoint stands at %d, within a transaction", p)
		}
	}
}

// writing is a commit of one event after whatever is there.
func writing(typ, id string, e jetstream.EventData) jetstream.Write {
	return jetstream.Write{
		Type: typ, ID: id, Expect: jetstream.Any(),
		Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{e}}},
	}
}
