package projection_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// indexed are the accounts with indexes by owner, by what is on them, and by
// everything that was moved of late.
func indexed() *projection.Definition[account] {
	return accounts().Index("owner", byOwner).Index("cents", byCents).Index("moves", byMoves)
}

func byOwner(a account) []string { return []string{a.Owner} }

func byCents(a account) []string { return []string{projection.IntValue(a.Cents)} }

func byMoves(a account) []string {
	out := make([]string, 0, len(a.History))
	for _, c := range a.History {
		out = append(out, fmt.Sprintf("m%d", c))
	}
	return out
}

// lookupAccounts are indexed, too.
func lookupAccounts() *projection.Definition[account] {
	return plainLookup().Index("owner", byOwner).Index("cents", byCents).Index("moves", byMoves)
}

// plainLookup folds as accounts does.
func plainLookup() *projection.Definition[account] {
	change := func(tx *projection.Tx[account], key string, do func(*account)) {
		a, _ := tx.Get(key)
		do(&a)
		a.Events++
		tx.Put(key, a)
	}
	return projection.NewLookup("accounts",
		projection.OnTx(accountEvents, func(tx *projection.Tx[account], e opened, m jetstream.Meta) error {
			change(tx, m.ID, func(a *account) { a.Owner = e.Owner })
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[account], e credited, m jetstream.Meta) error {
			change(tx, m.ID, func(a *account) {
				a.Cents += e.Cents
				if a.History = append(a.History, e.Cents); len(a.History) > 10 {
					a.History = a.History[1:]
				}
			})
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[account], e moved, _ jetstream.Meta) error {
			change(tx, e.From, func(a *account) { a.Cents -= e.Cents })
			if e.To != e.From {
				change(tx, e.To, func(a *account) { a.Cents += e.Cents })
			}
			return nil
		}),
		projection.OnTx(accountEvents, func(tx *projection.Tx[account], _ closed, m jetstream.Meta) error {
			tx.Delete(m.ID)
			return nil
		}),
	)
}

// found is what a search yielded.
type found struct {
	value, key string
	account    account
}

func find(t testing.TB, r *projection.Reader[account], index string, o projection.FindOptions) []found {
	t.Helper()
	out := []found{}
	for e, err := range r.Find(t.Context(), index, o) {
		if err != nil {
			t.Fatalf("find %s %+v: %v", index, o, err)
		}
		out = append(out, found{e.Indexed, e.Key, e.Value})
	}
	return out
}

// keys are those of what was found, with a check that it is in order.
func keys(t testing.TB, all []found, reverse bool) []string {
	t.Helper()
	if !slices.IsSortedFunc(all, func(a, b found) int {
		if reverse {
			a, b = b, a
		}
		return cmp.Compare(a.value, b.value)
	}) {
		t.Errorf("not in order: %v", all)
	}
	out := make([]string, 0, len(all))
	for _, f := range all {
		out = append(out, f.key)
	}
	slices.Sort(out)
	return out
}

func indexes() map[string]func(account) []string {
	return map[string]func(account) []string{"owner": byOwner, "cents": byCents, "moves": byMoves}
}

// indexed is what an index must hold, by value and key.
func (m model) indexed(index string) map[[2]string]account {
	want := map[[2]string]account{}
	for key, a := range m {
		for _, v := range indexes()[index](*a) {
			if v != "" {
				want[[2]string{v, key}] = *a
			}
		}
	}
	return want
}

// entries is how many entries all indexes must hold.
func (m model) entries() int {
	n := 0
	for index := range indexes() {
		n += len(m.indexed(index))
	}
	return n
}

// checkIndexes compares the indexes with those of the model.
func (f *fixture) checkIndexes(t testing.TB, m model) {
	t.Helper()
	f.check(m)
	r := reader[account](t, f, "accounts")
	for name := range indexes() {
		want := m.indexed(name)
		got := map[[2]string]account{}
		for _, x := range find(t, r, name, projection.FindOptions{AtLeast: f.last}) {
			got[[2]string{x.value, x.key}] = x.account
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("index %s is\n%v, wanted\n%v", name, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	start(t, f.store, indexed(), quiet())
	odd := []string{"ann", "ann.b", "an", "ü ber:x@y+z$", ".dot.", "a..b", "a.", "=3D", "*>", "=", "x.=.y", "ann/b"}
	for i, o := range odd {
		f.append(id(i), opened{Owner: o}, credited{Cents: int64(10*i - 30)})
	}
	f.append("none", credited{Cents: 1}) // no owner: not in that index
	f.append("m", moved{From: "weird key.=.x", To: "weird key.=.x"})
	r := reader[account](t, f, "accounts")
	at := f.last
	for i, o := range odd {
		got := find(t, r, "owner", projection.FindOptions{Value: o, AtLeast: at})
		if len(got) != 1 || got[0].key != id(i) || got[0].value != o || got[0].account.Owner != o {
			t.Errorf("owner %q: %+v", o, got)
		}
	}
	for prefix, want := range map[string][]string{
		"ann": {id(0), id(1), id(11)}, "ann.": {id(1)}, "a": {id(0), id(1), id(2), id(5), id(6), id(11)},
		"a.": {id(5), id(6)}, "a..": {id(5)}, "ü": {id(3)}, "x.=": {id(10)}, "x.": {id(10)}, "no": {},
	} {
		slices.Sort(want)
		if got := keys(t, find(t, r, "owner", projection.FindOptions{Prefix: prefix}), false); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %v, wanted %v", prefix, got, want)
		}
	}
	// Numbers, negative ones too, and both directions.
	all := find(t, r, "cents", projection.FindOptions{})
	if len(all) != len(odd)+2 || !slices.IsSortedFunc(all, func(a, b found) int { return cmp.Compare(a.account.Cents, b.account.Cents) }) {
		t.Errorf("by cents: %+v", all)
	}
	top := find(t, r, "cents", projection.FindOptions{Reverse: true, Limit: 3})
	if len(top) != 3 || top[0].key != id(11) || top[2].key != id(9) {
		t.Errorf("the top is %+v", top)
	}
	some := find(t, r, "cents", projection.FindOptions{From: projection.IntValue(-10), Before: projection.IntValue(20)})
	if got := keys(t, some, false); !slices.Equal(got, []string{id(2), id(3), id(4), "none", "weird key.=.x"}) {
		t.Errorf("from -10 to 20: %v", got)
	}
	// Page by page, from anywhere.
	for _, reverse := range []bool{false, true} {
		var pages []found
		for token, n := "", 0; n < 100; n++ {
			last := ""
			for e, err := range r.Find(t.Context(), "cents", projection.FindOptions{After: token, Limit: 2, Reverse: reverse}) {
				if err != nil {
					t.Fatal(err)
				}
				pages, last = append(pages, found{e.Indexed, e.Key, e.Value}), e.Token()
			}
			if token = last; token == "" {
				break
			}
		}
		if whole := find(t, r, "cents", projection.FindOptions{Reverse: reverse}); !reflect.DeepEqual(pages, whole) {
			t.Errorf("pages %v\nare not the whole %v", pages, whole)
		}
	}
	// Any KV client can read the bucket: entries are keys like others.
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(patient(t), f.store.Name()+"_accounts")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := kv.Keys(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	entries := 0
	for _, key := range listed {
		if _, err := kv.Get(patient(t), key); err != nil {
			t.Errorf("get %q: %v", key, err)
		}
		if strings.HasPrefix(key, "_index.1.owner.") {
			entries++
		}
	}
	if entries != len(odd) {
		t.Errorf("%d entries of owner, wanted %d: %q", entries, len(odd), listed)
	}
	// What changes or goes leaves the index at once.
	f.append(id(0), opened{Owner: "bob"})
	f.append(id(1), closed{})
	got := find(t, r, "owner", projection.FindOptions{Prefix: "ann", AtLeast: f.last})
	if len(got) != 1 || got[0].key != id(11) {
		t.Errorf("ann is %+v", got)
	}
}

func TestFindRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	start(t, f.store, indexed(), quiet())
	r := reader[account](t, f, "accounts")
	refused := func(index string, o projection.FindOptions) error {
		for _, err := range r.Find(t.Context(), index, o) {
			return err
		}
		return nil
	}
	if err := refused("colour", projection.FindOptions{AtLeast: f.last}); !errors.Is(err, projection.ErrIndex) || !strings.Contains(err.Error(), "owner") {
		t.Errorf("an index that is not there: %v", err)
	}
	for _, e := range []error{
		refused("Owner", projection.FindOptions{}),
		refused("owner", projection.FindOptions{Limit: -1}),
		refused("owner", projection.FindOptions{After: "1-2"}),
		refused("owner", projection.FindOptions{After: "i-AAAA"}),
	} {
		if _, ok := errors.AsType[*jetstream.InvalidError](e); !ok {
			t.Errorf("not refused: %v", e)
		}
	}
	for i, def := range []projection.AnyDefinition{
		accounts().Index("Owner", byOwner), accounts().Index("owner", nil), accounts().Index("x", byOwner).Index("x", byOwner),
	} {
		if _, err := projection.NewUpdater(f.store, def, quiet()); err == nil {
			t.Errorf("definition %d is not refused", i)
		}
	}
	// Definitions with other indexes are other definitions.
	var de *projection.DefinitionError
	if err := start(t, f.store, accounts(), quiet()).wait(); !errors.As(err, &de) {
		t.Errorf("without indexes: %v", err)
	}
}

// TestIndexFails: what the index function does wrong stops the view.
func TestIndexFails(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]func(account) []string{
		"Panic":  func(account) []string { panic("oops") },
		"Long":   func(account) []string { return []string{strings.Repeat("x", 600)} },
		"Binary": func(account) []string { return []string{"\xff"} },
		"Many": func(account) (out []string) {
			for i := range 500 {
				out = append(out, strconv.Itoa(i))
			}
			return out
		},
	} {
		for kind, def := range map[string]*projection.Definition[account]{"Keyed": accounts(), "Lookup": lookupAccounts()} {
			t.Run(name+kind, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.append("a1", opened{Owner: "ann"})
				cfg := quiet()
				cfg.FoldRetries = 1
				var stopped *projection.StoppedError
				var value *projection.ValueError
				if err := start(t, f.store, def.Index("bad", by), cfg).wait(); !errors.As(err, &stopped) || !errors.As(err, &value) {
					t.Errorf("Run: %v", err)
				}
			})
		}
	}
}

// TestTimeValue: values of times sort as times do, and can be narrowed down.
func TestTimeValue(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 23, 16, 5, 123456789, time.FixedZone("", 3600))
	if v := projection.TimeValue(at); v != "2026.11.25.22.16.05.123456" {
		t.Errorf("%q", v)
	}
	times := []time.Time{
		{}, at, at.Add(time.Microsecond), at.Add(time.Hour), at.AddDate(1, 0, 0), time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	slices.SortFunc(times, time.Time.Compare)
	numbers := []int64{-1 << 63, -1<<63 + 1, -100, -10, -9, -1, 0, 1, 9, 10, 1<<63 - 1}
	a, b := make([]string, 0, len(times)), make([]string, 0, len(numbers))
	for _, x := range times {
		a = append(a, projection.TimeValue(x))
	}
	for _, n := range numbers {
		b = append(b, projection.IntValue(n))
	}
	for _, values := range [][]string{a, b} {
		length := func(x, y string) bool { return len(x) != len(y) }
		if !slices.IsSorted(values) || len(slices.CompactFunc(slices.Clone(values), func(x, y string) bool { return !length(x, y) })) != 1 {
			t.Errorf("%q", values)
		}
	}
}

// TestFindMany: more than one answer can hold, of one index value and of many,
// written by pages that no batch can hold.
func TestFindMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := 2600
	if testing.Short() {
		n = 1300 // as with the race detector
	}
	m := model{}
	for c := range n / 100 {
		events := make([]any, 0, 100)
		for i := range 100 {
			e := moved{From: id(c*100 + i), To: id(c*100 + i), Cents: int64(c*100 + i)}
			events = append(events, e)
			m.apply("x", e)
		}
		f.append("x", events...)
	}
	def := accounts().Index("all", func(account) []string { return []string{"yes"} }).Index("cents", byCents)
	start(t, f.store, def, quiet())
	r := reader[account](t, f, "accounts")
	for index, o := range map[string]projection.FindOptions{
		"all": {Value: "yes", AtLeast: f.last}, "cents": {AtLeast: f.last},
	} {
		for _, reverse := range []bool{false, true} {
			o.Reverse = reverse
			whole := find(t, r, index, o)
			if got := keys(t, whole, reverse); len(got) != len(m) || len(slices.Compact(got)) != len(m) {
				t.Errorf("%s: %d keys, wanted %d", index, len(got), len(m))
			}
			var pages []found
			for token, more := "", true; more; {
				o := o
				o.After, o.Limit, more = token, 700, false
				for e, err := range r.Find(t.Context(), index, o) {
					if err != nil {
						t.Fatal(err)
					}
					pages, token, more = append(pages, found{e.Indexed, e.Key, e.Value}), e.Token(), true
				}
			}
			if !reflect.DeepEqual(pages, whole) {
				t.Errorf("%s: %d in pages, %d at once", index, len(pages), len(whole))
			}
		}
	}
	some := find(t, r, "cents", projection.FindOptions{From: projection.IntValue(-100), Before: projection.IntValue(0)})
	for _, x := range some {
		if x.account.Cents >= 0 || x.account.Cents < -100 {
			t.Errorf("%+v is not in the range", x)
		}
	}
	f.check(m)
}

// TestIndexUnderKills: updaters lose their connection at random moments while
// readers look: a value and what it is found by never disagree, and in the end the
// indexes are those of a fold of all events.
func TestIndexUnderKills(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		var urls []string
		var cluster *natstest.Cluster
		if replicas == 1 {
			urls = []string{natstest.Run(t).URL()}
		} else {
			cluster = natstest.RunCluster(t)
			urls = cluster.URLs()
		}
		for kind, def := range map[string]*projection.Definition[account]{"Keyed": indexed(), "Lookup": lookupAccounts()} {
			t.Run(fmt.Sprintf("R%d%s", replicas, kind), func(t *testing.T) {
				t.Parallel()
				f := fixtureAt(t, strings.Join(urls, ","), replicas)
				m := underKills(t, f, cluster, def, func() func() {
					r := reader[account](t, f, "accounts")
					return func() { agrees(t, r) }
				})
				f.checkIndexes(t, m)
			})
		}
	}
}

// underKills feeds a store while updaters of a view lose their connection at random
// moments and somebody looks all the time. In the end an updater runs.
func underKills(
	t *testing.T, f *fixture, cluster *natstest.Cluster, def projection.AnyDefinition, look func() func(),
) model {
	t.Helper()
	view, feeds := viewOf(def), 8
	if testing.Short() {
		feeds = 4 // as with the race detector
	}
	m := model{}
	var looks atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	defer end()
	fed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(fed)
		for i := range feeds {
			f.feed(m, 60, 40)
			if cluster != nil && i%3 == 1 {
				cluster.StepDown(t, "KV_"+f.store.Name()+"_"+view)
			}
		}
	}()
	go func() {
		defer close(ended)
		look := look()
		for ; paced(ctx, 5*time.Millisecond); looks.Add(1) {
			look()
		}
	}()
	kills := 0
	for going := true; going || kills < 5; kills++ {
		nc, store := f.attach()
		cfg := mortal()
		cfg.PageEvents, cfg.CacheBytes = 1+rand.IntN(60), 1+rand.IntN(5000)
		up := start(t, store, def, cfg)
		natstest.Eventually(t, "the view is owned", func() error {
			if s := up.Status(); s.State != projection.StateRunning {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		for range rand.IntN(150) {
			if _, err := store.LastSequence(t.Context()); err != nil {
				break
			}
		}
		nc.Close() // as a kill: whatever is under way is cut off
		_ = up.wait()
		select {
		case <-fed:
			going = false
		default:
		}
	}
	natstest.Eventually(t, "somebody looks", func() error {
		if looks.Load() == 0 {
			return errors.New("nobody yet")
		}
		return nil
	})
	end()
	<-ended
	t.Logf("%d kills, %d looks", kills, looks.Load())
	_, store := f.attach()
	start(t, store, def, mortal())
	return m
}

// viewOf is the name of a definition's view.
func viewOf(def projection.AnyDefinition) string {
	named, _ := def.(interface{ View() string })
	return named.View()
}

// agrees looks at a whole index: it is one snapshot, and each value has exactly
// the index values that it was found by.
func agrees(t *testing.T, r *projection.Reader[account]) {
	t.Helper()
	for name, by := range map[string]func(account) []string{"owner": byOwner, "cents": byCents, "moves": byMoves} {
		var position jetstream.Position
		values := map[string][]string{}
		last := map[string]account{}
		for e, err := range r.Find(t.Context(), name, projection.FindOptions{}) {
			if err != nil {
				t.Errorf("find: %v", err)
				return
			}
			if !position.IsZero() && position != e.Position {
				t.Errorf("positions %v and %v in one answer", position, e.Position)
			}
			if a, ok := last[e.Key]; ok && !reflect.DeepEqual(a, e.Value) {
				t.Errorf("%s is %+v and %+v in one answer", e.Key, a, e.Value)
			}
			position, last[e.Key] = e.Position, e.Value
			values[e.Key] = append(values[e.Key], e.Indexed)
		}
		// Each account has one value of cents: no account may be missing where a list
		// shows the view at the same position.
		if name == "cents" {
			same := true
			listed := map[string]bool{}
			for e, err := range r.List(t.Context(), projection.ListOptions{}) {
				if err != nil {
					t.Errorf("list: %v", err)
					return
				}
				same = same && e.Position == position
				listed[e.Key] = true
			}
			if same && len(listed) > 0 && !reflect.DeepEqual(listed, keysOf(last)) {
				t.Errorf("position %v: listed %v, found %v", position, listed, last)
			}
		}
		for key, got := range values {
			want := slices.Compact(slices.Sorted(slices.Values(by(last[key]))))
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s was found by %q, its value %+v says %q", key, got, last[key], want)
			}
		}
	}
}

func keysOf[V any](m map[string]V) map[string]bool {
	out := map[string]bool{}
	for key := range m {
		out[key] = true
	}
	return out
}

// TestIndexRebuilt: a view gets an index with a new version, beside the one that is
// read; a rebuilt one is as the one before; entries that were taken out leave
// nothing behind.
func TestIndexRebuilt(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				url = strings.Join(natstest.RunCluster(t).URLs(), ",")
			}
			f := fixtureAt(t, url, replicas)
			m := model{}
			f.feed(m, 30, 20)
			plain := start(t, f.store, accounts(), quiet())
			f.check(m)
			start(t, f.store, indexed().Version(2), quiet())
			if err := plain.wait(); !errors.Is(err, projection.ErrSuperseded) {
				t.Errorf("Run: %v", err)
			}
			f.feed(m, 30, 20)
			f.checkIndexes(t, m)
			a := admin(t, f, "accounts")
			number, err := a.Rebuild(patient(t), projection.RebuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			f.feed(m, 10, 20)
			// A generation that is replaced while it is behind stays there.
			f.checkIndexes(t, m)
			if err := a.Switch(patient(t), number); err != nil {
				t.Fatal(err)
			}
			f.checkIndexes(t, m)
			// Any replica may say which keys there are, one that is behind, too.
			compare := projection.CompareOptions{Wait: natstest.Patience}
			natstest.Eventually(t, "all keys are compared", func() error {
				var counts projection.Compared
				for d, err := range a.Compare(patient(t), 2, number, compare, &counts) {
					t.Errorf("%+v, %v", d, err)
				}
				if counts.Keys < len(m) {
					return fmt.Errorf("compared %+v", counts)
				}
				return nil
			})
			js, err := natsjs.New(f.nc)
			if err != nil {
				t.Fatal(err)
			}
			// An index that is not what its function says is a difference.
			key := firstKey(m)
			subject := "$KV." + f.store.Name() + "_accounts.2." + key
			last, err := wire.LeaderLast(patient(t), f.nc, "KV_"+f.store.Name()+"_accounts", subject)
			if err != nil {
				t.Fatal(err)
			}
			f.scribble("accounts", "2."+key, string(last.Data),
				"Rossby-Sequence", last.Header.Get("Rossby-Sequence"), "Rossby-Index", "owner.nobody")
			natstest.Eventually(t, "one key differs", func() error {
				found := 0
				for d, err := range a.Compare(patient(t), 2, number, compare, nil) {
					if found++; err != nil || d.Key != key || string(d.A) != string(d.B) {
						t.Errorf("%+v, %v", d, err)
					}
				}
				if found != 1 {
					return fmt.Errorf("%d differences", found)
				}
				return nil
			})
			for _, gen := range []int{1, 2} {
				remove(t, a, gen)
			}
			f.checkIndexes(t, m)
			natstest.Eventually(t, "nothing is left of what was taken out", func() error {
				entries, err := indexSubjects(t.Context(), js, "KV_"+f.store.Name()+"_accounts")
				if err != nil {
					return err
				}
				want := 0
				for _, by := range []func(account) []string{byOwner, byCents, byMoves} {
					for _, a := range m {
						want += len(slices.Compact(slices.DeleteFunc(slices.Sorted(slices.Values(by(*a))), func(v string) bool { return v == "" })))
					}
				}
				if entries != want {
					return fmt.Errorf("%d entries, wanted %d", entries, want)
				}
				return nil
			})
			f.checkIndexes(t, m)
		})
	}
}

func indexSubjects(ctx context.Context, js natsjs.JetStream, stream string) (int, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	info, err := s.Info(ctx, natsjs.WithSubjectFilter("$KV.*._index.>"))
	if err != nil {
		return 0, err
	}
	return len(info.State.Subjects), nil
}
