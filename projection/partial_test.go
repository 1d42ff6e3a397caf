package projection_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// servers runs a test on one server and on three.
func servers(t *testing.T, test func(t *testing.T, url string, replicas int)) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.Run(t).URL(), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, strings.Join(natstest.RunCluster(t).URLs(), ","), 3)
	})
}

// everywhere runs a test with a store on one server, and with one on three.
func everywhere(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	servers(t, func(t *testing.T, url string, replicas int) {
		t.Helper()
		test(t, fixtureAt(t, url, replicas))
	})
}

// scribble writes into a view's bucket, as nobody should.
func (f *fixture) scribble(view, key, value string, headers ...string) {
	f.t.Helper()
	natstest.Retry(f.t, "scribble", func(ctx context.Context) error {
		_, err := f.nc.RequestMsgWithContext(ctx, natsMsg("$KV."+f.store.Name()+"_"+view+"."+key, value, headers...))
		return err
	})
}

// going appends events until it is told to stop, and waits for some first.
func (f *fixture) going(m model, ids int) (stop func()) {
	f.t.Helper()
	ctx, end := context.WithCancel(f.t.Context())
	ended, some := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; paced(ctx, 2*time.Millisecond); n++ {
			f.feed(m, 1, ids) //nolint:contextcheck // it appends until the test ends
			if n == 20 {
				close(some)
			}
		}
	}()
	<-some
	stop = sync.OnceFunc(func() { end(); <-ended })
	f.t.Cleanup(stop)
	return stop
}

// TestRebuildAggregate: keys that somebody wrote by hand are mended while events
// go on, each from all events that touch it.
func TestRebuildAggregate(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		m := model{}
		const ids = 15
		f.feed(m, 200, ids)
		f.append("a1", moved{From: "a1", To: "a2", Cents: 1}, opened{}, credited{Cents: 1})
		m.apply("a1", moved{From: "a1", To: "a2", Cents: 1})
		m.apply("a1", opened{})
		m.apply("a1", credited{Cents: 1})
		up := start(t, f.store, accounts(), quiet())
		f.check(m)
		if err := up.stop(); err != nil {
			t.Fatal(err)
		}
		head, _ := f.store.Sequence(f.last)
		// Whoever takes over goes on from what the bucket holds.
		f.scribble("accounts", "1.a1", `{"owner":"somebody","cents":1000000}`)
		f.scribble("accounts", "1.a2", `{"owner":"else","cents":2000000}`, "Rossby-Sequence", strconv.FormatUint(head+1_000_000, 10))
		f.scribble("accounts", "1.a3", "", "KV-Operation", "DEL")
		f.scribble("accounts", "1.a4", "garbage", "Rossby-Sequence", "1")
		_, store := f.attach()
		cfg, _ := waiting() // a value that does not decode stops the view
		cfg.LeaseTTL = lasting().LeaseTTL
		start(t, f.store, accounts(), cfg)
		start(t, store, accounts(), cfg)
		f.append("a1", credited{Cents: 5})
		m.apply("a1", credited{Cents: 5})
		damaged := get(t, reader[account](t, f, "accounts"), "a1", projection.AtLeast(f.last))
		if damaged.Value.Cents != 1000005 {
			t.Fatalf("not damaged: %+v", damaged)
		}
		stop := f.going(m, ids)
		a := admin(t, f, "accounts")
		for _, id := range []string{"a1", "a2", "a3", "a4"} {
			done, err := a.RebuildAggregate(patient(t), "account", id, "somebody wrote into the bucket")
			if err != nil || done.Keys == 0 || done.Done.IsZero() {
				t.Errorf("%+v, %v", done, err)
			}
			if id == "a1" && done.Changed == 0 {
				t.Errorf("a1 was damaged: %+v", done)
			}
		}
		stop()
		f.check(m)
		list, err := a.AggregateRebuilds(patient(t))
		if err != nil || len(list) != 4 || list[0].ID != "a1" || list[0].Reason != "somebody wrote into the bucket" || list[0].Error != "" {
			t.Errorf("%+v, %v", list, err)
		}
		status(t, a, "running", inState(projection.StateRunning))
		// The rest of the history is folded once only.
		f.feed(m, 50, ids)
		f.check(m)
	})
}

// TestRebuildHealthyAggregate: what is as it must be is not changed, and readers
// notice nothing, while events go on.
func TestRebuildHealthyAggregate(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		m := model{}
		keys := make([]string, 6)
		for i := range keys {
			keys[i] = id(i)
			f.append(keys[i], opened{})
			m.apply(keys[i], opened{})
		}
		cfg := quiet()
		cfg.PageEvents, cfg.CacheBytes = 7, 2000
		start(t, f.store, accounts(), cfg)
		get(t, reader[account](t, f, "accounts"), keys[5], projection.AtLeast(f.last))
		watch := readAllTheTime(t, f, keys)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for n := 0; paced(ctx, 2*time.Millisecond); n++ {
				e := moved{From: keys[n%6], To: keys[n*n%6], Cents: int64(n)}
				f.append(keys[n%6], e) //nolint:contextcheck // it appends until the test ends
				m.apply(keys[n%6], e)
			}
		}()
		a := admin(t, f, "accounts")
		for n := range 5 {
			done, err := a.RebuildAggregate(patient(t), "account", keys[n%6], "")
			if err != nil || done.Changed != 0 || done.Keys == 0 {
				t.Errorf("%+v, %v", done, err)
			}
		}
		end()
		<-ended
		watch.stop()
		f.check(m)
	})
}

// visits is what a person's visits and notes come to: two aggregates, one key.
func visits(notes *jetstream.Schema) *projection.Definition[[]int64] {
	return projection.NewKeyed("visits",
		projection.On(accountEvents, func(v *[]int64, e credited, _ jetstream.Meta) { *v = append(*v, e.Cents) }),
		projection.On(notes, func(v *[]int64, e noted, _ jetstream.Meta) { *v = append(*v, int64(-e.N)) }),
	)
}

// TestRebuildAggregateOfTwoTypes: a key is folded from aggregates of two types, in
// the order of their events.
func TestRebuildAggregateOfTwoTypes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	notes := jetstream.NewSchema("note", jetstream.Event[noted]("noted"))
	var want []int64
	for i := range 40 {
		if i%3 == 0 {
			f.appendData("note", "p1", encode(t, notes, noted{i}))
			want = append(want, int64(-i))
		} else {
			f.append("p1", credited{Cents: int64(i)})
			want = append(want, int64(i))
		}
	}
	f.append("p2", credited{Cents: 1})
	start(t, f.store, visits(notes), lasting())
	r := reader[[]int64](t, f, "visits")
	get(t, r, "p1", projection.AtLeast(f.last))
	f.scribble("visits", "1.p1", "[7]")
	f.scribble("visits", "1.p2", "[8]")
	done, err := admin(t, f, "visits").RebuildAggregate(patient(t), "note", "p1", "")
	if err != nil || done.Keys != 1 || done.Changed != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if e := get(t, r, "p1"); !slices.Equal(e.Value, want) {
		t.Errorf("p1 is %v, wanted %v", e.Value, want)
	}
	if e := get(t, r, "p2"); !slices.Equal(e.Value, []int64{8}) {
		t.Errorf("p2 is %v, which nobody asked for", e.Value)
	}
}

// TestRebuildAggregateManyKeys: more keys than one batch can hold, some of them
// ahead of the position, as an updater that died within a page leaves them, and one
// so that the view cannot go on.
func TestRebuildAggregateManyKeys(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		m := model{}
		const n = 700
		move := func() {
			events := make([]any, n)
			for i := range events {
				e := moved{From: fmt.Sprint("f", i), To: fmt.Sprint("t", i), Cents: int64(i)}
				events[i] = e
				m.apply("a1", e)
			}
			f.append("a1", events...)
		}
		move()
		up := start(t, f.store, accounts(), quiet())
		f.check(m)
		if err := up.stop(); err != nil {
			t.Fatal(err)
		}
		at := f.last
		move()
		nc, store := f.attach()
		dying, err := projection.NewUpdater(store, accounts(), mortal())
		if err != nil {
			t.Fatal(err)
		}
		projection.Steps(dying, func(s string) {
			if s == "batch" || s == "each" {
				nc.Close()
			}
		})
		_ = launch(t, dying).wait()
		r := reader[account](t, f, "accounts")
		natstest.Eventually(t, "a part of the page is there", func() error {
			ahead := 0
			for e, err := range r.List(t.Context(), projection.ListOptions{AtLeast: at}) {
				if err != nil {
					return err
				}
				if e.Position != at {
					t.Fatalf("the page was written as a whole: %v", e.Position)
				}
				if e.Value.Events == 2 {
					ahead++
				}
			}
			if ahead == 2*n {
				t.Errorf("%d keys are ahead", ahead)
			}
			if ahead == 0 { // on a replica that is behind
				return errors.New("no keys are ahead")
			}
			return nil
		})
		for i := range 100 {
			f.scribble("accounts", fmt.Sprint("1.t", i), "garbage")
		}
		cfg, _ := waiting()
		cfg.LeaseTTL = mortal().LeaseTTL // The one that died has the view still.
		taking := start(t, f.store, accounts(), cfg)
		a := admin(t, f, "accounts")
		status(t, a, "stopped", inState(projection.StateStopped))
		if err := taking.stop(); err != nil {
			t.Error(err)
		}
		cfg.LeaseTTL = lasting().LeaseTTL // What is changed is counted once only if the view is not lost meanwhile.
		start(t, f.store, accounts(), cfg)
		status(t, a, "stopped again", func(s projection.ViewStatus) bool { return s.State == projection.StateStopped && s.Owner == "" })
		done, err := a.RebuildAggregate(patient(t), "account", "a1", "")
		if err != nil || done.Keys != 2*n || done.Changed < 100 {
			t.Errorf("%+v, %v", done, err)
		}
		f.check(m)
	})
}

// TestRebuildAggregateIndexes: index entries are mended, too: those that a damaged
// key does not name any more, and those that somebody took out or made up.
func TestRebuildAggregateIndexes(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		m := model{}
		f.feed(m, 60, 5)
		for _, key := range []string{"a1", "a2"} {
			f.append(key, opened{Owner: "ann"}, credited{Cents: 7})
			m.apply(key, opened{Owner: "ann"})
			m.apply(key, credited{Cents: 7})
		}
		start(t, f.store, indexed(), lasting())
		f.checkIndexes(t, m)
		js, err := natsjs.New(f.nc)
		if err != nil {
			t.Fatal(err)
		}
		stream := "KV_" + f.store.Name() + "_accounts"
		// Entries that were taken out leave markers for a second.
		want := m.entries()
		entries := func(what string) {
			t.Helper()
			natstest.Retry(t, what, func(ctx context.Context) error {
				n, err := indexSubjects(ctx, js, stream)
				if err == nil && n != want {
					err = fmt.Errorf("%d instead of %d", n, want)
				}
				return err
			})
		}
		entries("there are the entries of the view and no others")
		f.scribble("accounts", "1.a1", `{"owner":"bob"}`) // Its entries are forgotten.
		var all *natsjs.StreamInfo
		natstest.Retry(t, "look for the owners", func(ctx context.Context) error {
			info, err := js.Stream(ctx, stream)
			if err == nil {
				all, err = info.Info(ctx, natsjs.WithSubjectFilter("$KV."+f.store.Name()+"_accounts._index.1.owner.>"))
			}
			return err
		})
		for subject := range all.State.Subjects {
			entry := strings.TrimPrefix(subject, "$KV."+f.store.Name()+"_accounts.")
			if strings.HasSuffix(entry, ".a2") {
				f.scribble("accounts", entry, "", "KV-Operation", "DEL")
				f.scribble("accounts", strings.Replace(entry, ".ann.", ".zoe.", 1), "")
			}
		}
		a := admin(t, f, "accounts")
		changed := 0
		for _, id := range []string{"a1", "a2"} {
			done, err := a.RebuildAggregate(patient(t), "account", id, "")
			if err != nil {
				t.Error(err)
			}
			changed += done.Changed
		}
		if changed != 2 {
			t.Errorf("%d keys were changed", changed)
		}
		f.checkIndexes(t, m)
		entries("there are as many entries as before")
	})
}

// TestRebuildAggregateCrash: the updater dies at each step of a partial rebuild;
// another finishes it.
func TestRebuildAggregateCrash(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"refolded", "put", "stored", "batch", "rebuilt"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m := model{}
			f.feed(m, 100, 8)
			f.append("a1", moved{From: "a1", To: "a2", Cents: 1})
			m.apply("a1", moved{From: "a1", To: "a2", Cents: 1})
			up := start(t, f.store, accounts(), quiet())
			f.check(m)
			if err := up.stop(); err != nil {
				t.Fatal(err)
			}
			f.scribble("accounts", "1.a1", `{"cents":1000000}`)
			f.scribble("accounts", "1.a2", `{"cents":1000000}`)
			nc, store := f.attach()
			dying, err := projection.NewUpdater(store, accounts(), mortal())
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			var armed atomic.Bool // by the first step
			projection.Steps(dying, func(s string) {
				if s == "refolded" {
					armed.Store(true)
				}
				if armed.Load() && s == step {
					once.Do(nc.Close)
				}
			})
			run := launch(t, dying)
			asked := make(chan error, 1)
			go func() {
				_, err := admin(t, f, "accounts").RebuildAggregate(patient(t), "account", "a1", "")
				asked <- err
			}()
			if err := run.wait(); !errors.Is(err, projection.ErrUnavailable) {
				t.Errorf("Run: %v", err)
			}
			f.feed(m, 20, 8)
			start(t, f.store, accounts(), mortal())
			if err := <-asked; err != nil {
				t.Error(err)
			}
			f.check(m)
		})
	}
}

// TestRebuildAggregateRefused: what cannot be done exactly is not done, and says why.
func TestRebuildAggregateRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"}, credited{Cents: 13})
	start(t, f.store, owners(), quiet())
	var folded atomic.Bool
	cfg, _ := waiting()
	cfg.FoldTimeout, cfg.LeaseTTL = natstest.Patience, lasting().LeaseTTL // Nothing is folded a second time.
	up := start(t, f.store, projection.NewKeyed("v",
		projection.OnRow(accountEvents, func(_ *projection.Row[account], e credited, _ jetstream.Meta) error {
			if e.Cents == 13 && folded.Swap(true) {
				return errors.New("not twice")
			}
			return nil
		})), cfg)
	refused := func(view, typ, id, reason string) {
		t.Helper()
		var pe *projection.PartialError
		_, err := admin(t, f, view).RebuildAggregate(patient(t), typ, id, "")
		if !errors.Is(err, projection.ErrPartial) || !errors.As(err, &pe) || !strings.Contains(pe.Reason, reason) {
			t.Errorf("%s, %s %s: %v", view, typ, id, err)
		}
	}
	get(t, reader[owner](t, f, "owners"), "ann", projection.AtLeast(f.last))
	refused("owners", "account", "a1", "lookup view")
	get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(f.last))
	refused("v", "other", "a1", "follows [account] only")
	refused("v", "account", "a2", "no such aggregate")
	refused("v", "account", "a b.", "a b.")
	refused("v", "account", "a1", "not twice")
	if _, err := admin(t, f, "v").RebuildAggregate(patient(t), "account", "", ""); err == nil {
		t.Error("no id is no error")
	}
	if _, err := admin(t, f, "none").RebuildAggregate(patient(t), "account", "a1", ""); !errors.Is(err, projection.ErrViewNotFound) {
		t.Errorf("no view: %v", err)
	}
	// The view is as it was, and goes on.
	f.append("a2", credited{Cents: 1})
	if e := get(t, reader[account](t, f, "v"), "a2", projection.AtLeast(f.last)); e.Sequence == 0 {
		t.Errorf("%+v", e)
	}
	// Nobody is there to do it: it waits, and is done later.
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a := admin(t, f, "v")
	if _, err := a.RebuildAggregate(ctx, "account", "a2", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an updater: %v", err)
	}
}
