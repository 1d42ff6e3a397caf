package projection_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// model folds what a fixture appended as the accounts view must have it.
type model map[string]*account

func (m model) at(id string) *account {
	if m[id] == nil {
		m[id] = &account{}
	}
	return m[id]
}

func (m model) apply(id string, event any) {
	switch e := event.(type) {
	case opened:
		a := m.at(id)
		a.Owner, a.Events = e.Owner, a.Events+1
	case credited:
		a := m.at(id)
		a.Cents, a.Events = a.Cents+e.Cents, a.Events+1
		a.History = append(a.History, e.Cents)
		if len(a.History) > 10 {
			a.History = a.History[1:]
		}
	case moved:
		m.at(e.From).Cents -= e.Cents
		m.at(e.From).Events++
		if e.To != e.From {
			m.at(e.To).Cents += e.Cents
			m.at(e.To).Events++
		}
	case closed:
		delete(m, id)
	}
}

// feed appends random commits and returns what the view must be.
func (f *fixture) feed(m model, commits, ids int) {
	f.t.Helper()
	for range commits {
		key := id(rand.IntN(ids))
		n := 1 + rand.IntN(3)
		events := make([]any, 0, n)
		for range n {
			var e any = credited{Cents: rand.Int64N(100)}
			switch rand.IntN(12) {
			case 0:
				e = opened{Owner: fmt.Sprint("o", rand.IntN(9))}
			case 1:
				e = closed{}
			case 2, 3:
				e = moved{From: id(rand.IntN(ids)), To: id(rand.IntN(ids)), Cents: rand.Int64N(9)}
			}
			events = append(events, e)
			m.apply(key, e)
		}
		f.append(key, events...)
	}
}

// check compares the view with the model.
func (f *fixture) check(m model) {
	f.t.Helper()
	r := reader[account](f.t, f, "accounts")
	got := model{}
	for e, err := range r.List(f.t.Context(), projection.ListOptions{AtLeast: f.last}) {
		if err != nil {
			f.t.Fatal(err)
		}
		got[e.Key] = &e.Value
	}
	for key, want := range m {
		if have := got[key]; have == nil || !reflect.DeepEqual(*have, *want) {
			f.t.Errorf("%s is %+v, wanted %+v", key, have, want)
		}
	}
	for key := range got {
		if m[key] == nil {
			f.t.Errorf("%s is in the view: %+v", key, got[key])
		}
	}
}

// TestExactlyOnceUnderKills: updaters lose their connection at random moments,
// others go on; in the end the view is what one fold of all events gives.
func TestExactlyOnceUnderKills(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var cluster *natstest.Cluster
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				cluster = natstest.RunCluster(t)
				url = strings.Join(cluster.URLs(), ",")
			}
			f := fixtureAt(t, url, replicas)
			m := model{}
			var stop atomic.Bool
			killed := make(chan int, 1)
			go func() {
				n := 0
				defer func() { killed <- n }()
				for !stop.Load() {
					nc, store := f.attach()
					cfg := mortal()
					cfg.PageEvents, cfg.CacheBytes = 1+rand.IntN(60), 1+rand.IntN(5000)
					up := start(t, store, accounts(), cfg)
					begin := rand.IntN(150)
					for i := 0; !stop.Load() && (up.Status().State != projection.StateRunning || i < begin); i++ {
						if _, err := store.LastSequence(t.Context()); err != nil {
							break
						}
					}
					nc.Close() // as a kill: whatever is under way is cut off
					_ = up.wait()
					n++
				}
			}()
			feeds := 12
			if testing.Short() {
				feeds = 6 // as with the race detector
			}
			for i := range feeds {
				f.feed(m, 100, 40)
				if cluster != nil && i%3 == 1 {
					cluster.StepDown(t, "KV_"+f.store.Name()+"_accounts")
				}
				if cluster != nil && i%3 == 2 {
					cluster.StepDown(t, f.store.Name())
				}
			}
			stop.Store(true)
			t.Logf("%d kills", <-killed)
			_, store := f.attach()
			start(t, store, accounts(), mortal())
			f.check(m)
		})
	}
}

func TestCatchUpManyKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 4000, 2500)
	up := start(t, f.store, accounts(), quiet())
	f.check(m)
	natstest.Eventually(t, "caught up", func() error {
		if s := up.Status(); !s.CaughtUp || s.Position != f.last {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	// The consumer shows place and lag.
	js, err := natsjs.New(f.nc)
	if err != nil {
		t.Fatal(err)
	}
	var c natsjs.Consumer
	// Where the machine stands still it is made anew meanwhile.
	natstest.Eventually(t, "the consumer is at the end", func() (err error) {
		if c, err = js.Consumer(t.Context(), f.store.Name(), "accounts"); err != nil {
			return err
		}
		if info := c.CachedInfo(); info.NumPending != 0 || info.Config.AckPolicy != natsjs.AckNonePolicy {
			err = fmt.Errorf("consumer %+v", info)
		}
		return err
	})
	// Somebody disturbs the cursor: nothing is lost or doubled.
	for range 5 {
		f.feed(m, 20, 2500)
		if _, err := c.Fetch(10, natsjs.FetchMaxWait(1)); err != nil {
			t.Log(err)
		}
		if rand.IntN(2) == 0 {
			if err := js.DeleteConsumer(t.Context(), f.store.Name(), "accounts"); err != nil {
				t.Log(err)
			}
		}
	}
	f.check(m)
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	first := start(t, f.store, accounts(), lasting())
	f.feed(m, 20, 5)
	f.check(m)
	_, store := f.attach()
	second := start(t, store, accounts(), lasting())
	state := func(r *running, want projection.State) {
		t.Helper()
		natstest.Eventually(t, string(want), func() error {
			if s := r.Status(); s.State != want {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
	}
	state(second, projection.StateStandby)
	if first.Status().State != projection.StateRunning || second.Status().Owner != first.Status().Owner {
		t.Errorf("first %+v, second %+v", first.Status(), second.Status())
	}
	if err := first.stop(); err != nil {
		t.Error(err)
	}
	state(second, projection.StateRunning)
	f.feed(m, 20, 5)
	f.check(m)
	st := readStatus(t, f, "accounts")
	if !st.CaughtUp() || st.Owner != second.Status().Owner || st.Epoch != 2 || st.State != projection.StateRunning {
		t.Errorf("status %+v", st)
	}
	if _, err := projection.ReadStatus(patient(t), f.nc, f.store.Name(), "nothing"); !errors.Is(err, projection.ErrViewNotFound) {
		t.Error(err)
	}
}

// readStatus is a view's status, once it can be read.
func readStatus(t testing.TB, f *fixture, view string) (s projection.ViewStatus) {
	t.Helper()
	natstest.Eventually(t, "read the status of "+view, func() (err error) {
		s, err = projection.ReadStatus(t.Context(), f.nc, f.store.Name(), view)
		return err
	})
	return s
}

// TestZombieIsFenced: an owner is cut off, another takes over, the first one's
// writes come through later.
func TestZombieIsFenced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := newProxy(t, f.url)
	store := f.attachOn(natstest.Conn(t, p.url))
	m := model{}
	zombie := start(t, store, accounts(), mortal())
	f.feed(m, 30, 5)
	f.check(m)
	for range 3 {
		owned := zombie.Status()
		p.hold(true, false) // what it sends is held back, what it reads comes
		f.feed(m, 60, 5)
		up := start(t, f.store, accounts(), mortal())
		f.check(m)
		f.feed(m, 60, 5)
		p.hold(false, false)
		// Where the machine stands still it may have taken the view back already.
		natstest.Eventually(t, "the zombie knows of the other owner", func() error {
			if s := zombie.Status(); s.Epoch <= owned.Epoch {
				return fmt.Errorf("status %+v, it was %+v", s, owned)
			}
			return nil
		})
		f.check(m)
		if err := up.stop(); err != nil {
			t.Error(err)
		}
		f.feed(m, 20, 5)
		f.check(m) // by the former zombie
	}
}

// recreate deletes the store's stream and makes it anew as a restore would:
// with the first n messages of the old one.
func (f *fixture) recreate(n uint64) {
	f.t.Helper()
	ctx := f.t.Context()
	js, err := natsjs.New(f.nc)
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := js.Stream(ctx, f.store.Name())
	if err != nil {
		f.t.Fatal(err)
	}
	page, err := wire.Batch(ctx, f.nc, f.store.Name(), f.store.Name()+".event.>", 1, int(n), 0)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := js.DeleteStream(ctx, f.store.Name()); err != nil {
		f.t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, s.CachedInfo().Config); err != nil {
		f.t.Fatal(err)
	}
	for _, m := range page.Messages {
		msg := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{}}
		for k, v := range m.Header {
			if !strings.HasPrefix(k, "Nats-") || k == nats.ExpectedLastSubjSeqHdr {
				msg.Header[k] = v
			}
		}
		if _, err := wire.Publish(ctx, f.nc, msg); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestRestoredStore(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]func(f *fixture){
		"Shorter": func(f *fixture) { f.recreate(3) },
		"Another": func(f *fixture) {
			f.recreate(3)
			_, f.store = f.attach()
			f.heads = map[string]jetstream.Head{}
			// A program that was started after the restore.
			var err error
			if f.store, err = jetstream.Open(f.t.Context(), f.nc, jetstream.Config{Name: f.store.Name()}); err != nil {
				f.t.Fatal(err)
			}
			for i := range 6 {
				f.append(fmt.Sprint("b", i), opened{})
			}
		},
		"New": func(f *fixture) {
			natstest.Recreate(f.t, f.nc, f.store.Name())
			store, err := jetstream.Open(f.t.Context(), f.nc, jetstream.Config{Name: f.store.Name()})
			if err != nil {
				f.t.Fatal(err)
			}
			f.store = store
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			for i := range 5 {
				f.append(id(i), opened{})
			}
			up := start(t, f.store, accounts(), quiet())
			r := reader[account](t, f, "accounts")
			get(t, r, "a4", projection.AtLeast(f.last))
			if err := up.stop(); err != nil {
				t.Fatal(err)
			}
			after(f)
			up = start(t, f.store, accounts(), quiet())
			err := up.wait()
			var stopped *projection.StoppedError
			if !errors.Is(err, projection.ErrStoreRestored) || !errors.As(err, &stopped) {
				t.Errorf("Run: %v", err)
			}
			if s := up.Status(); s.State != projection.StateStopped || s.Err == nil {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestFoldFails(t *testing.T) {
	t.Parallel()
	servers(t, foldFails)
}

func foldFails(t *testing.T, url string, replicas int) {
	boom := errors.New("boom")
	def := func(fail func(try int) error) (*projection.Definition[account], *atomic.Int64) {
		tries := new(atomic.Int64)
		return projection.NewKeyed("v",
			projection.OnRow(accountEvents, func(r *projection.Row[account], _ opened, _ jetstream.Meta) error {
				r.Value.Events++
				return nil
			}),
			projection.OnRow(accountEvents, func(r *projection.Row[account], e credited, _ jetstream.Meta) error {
				r.Value.Cents += e.Cents
				if e.Cents == 13 {
					return fail(int(tries.Add(1)))
				}
				return nil
			}),
		), tries
	}
	setup := func(t *testing.T) *fixture {
		t.Helper()
		f := fixtureAt(t, url, replicas)
		f.append("a1", opened{}, credited{Cents: 1})
		f.append("a2", opened{})
		f.append("a1", credited{Cents: 2}, credited{Cents: 13}, credited{Cents: 4})
		f.append("a2", credited{Cents: 5})
		return f
	}
	for name, fail := range map[string]func(int) error{
		"Error": func(int) error { return boom },
		"Panic": func(int) error { panic(boom) },
	} {
		t.Run("Stops/"+name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			d, tries := def(fail)
			up := start(t, f.store, d, lasting())
			err := up.wait()
			var fold *projection.FoldError
			if !errors.As(err, &fold) || fold.Event != "credited" || fold.ID != "a1" || fold.Key != "a1" || fold.Sequence != 4 {
				t.Fatalf("Run: %v", err)
			}
			if tries.Load() < 4 {
				t.Errorf("%d tries", tries.Load())
			}
			st := readStatus(t, f, "v")
			if st.State != projection.StateStopped || !strings.Contains(st.Error, "credited") || st.Position != f.store.Position(3) {
				t.Errorf("status %+v", st)
			}
			// What stands before the event is in the view; a mended definition goes on.
			if e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(st.Position)); e.Value.Cents != 1 {
				t.Errorf("a1 is %+v", e)
			}
			d, _ = def(func(int) error { return nil })
			start(t, f.store, d, quiet())
			if e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(f.last)); e.Value.Cents != 20 {
				t.Errorf("a1 is %+v", e)
			}
		})
		t.Run("Skips/"+name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			d, _ := def(fail)
			cfg := quiet()
			cfg.OnError = projection.SkipOnError
			start(t, f.store, d, cfg)
			r := reader[account](t, f, "v")
			if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Cents != 7 {
				t.Errorf("a1 is %+v", e)
			}
			if st := readStatus(t, f, "v"); st.Skipped != 1 {
				t.Errorf("status %+v", st)
			}
		})
	}
	t.Run("Passes", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		d, _ := def(func(try int) error {
			if try < 3 {
				return boom
			}
			return nil
		})
		start(t, f.store, d, quiet())
		if e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(f.last)); e.Value.Cents != 20 || e.Value.Events != 1 {
			t.Errorf("a1 is %+v", e)
		}
	})
}
