package projection_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

func admin(t testing.TB, f *fixture, view string) *projection.Admin {
	t.Helper()
	a, err := projection.NewAdmin(f.nc, f.store.Name(), view)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// generation waits until a generation is as wanted.
func generation(t testing.TB, a *projection.Admin, number int, what string, is func(projection.Generation) bool) projection.Generation {
	t.Helper()
	var found projection.Generation
	natstest.Eventually(t, fmt.Sprint("generation ", number, " is ", what), func() error {
		gens, err := a.Generations(t.Context())
		for _, g := range gens {
			if found = g; g.Number == number && is(g) {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%+v", gens))
	})
	return found
}

// remove takes a generation out of the view: that may be repeated until it succeeds.
func remove(t testing.TB, a *projection.Admin, number int) {
	t.Helper()
	natstest.Eventually(t, fmt.Sprint("generation ", number, " is removed"), func() error {
		return a.Remove(t.Context(), number)
	})
}

func caughtUp(g projection.Generation) bool { return g.CaughtUp() }

func live(g projection.Generation) bool { return g.Live }

// differences are the keys that differ between the first two generations, and how
// many were compared.
func differences(t testing.TB, a *projection.Admin, opts projection.CompareOptions) ([]projection.Difference, int) {
	t.Helper()
	opts.Wait = natstest.Patience
	var out []projection.Difference
	var counts projection.Compared
	for d, err := range a.Compare(patient(t), 1, 2, opts, &counts) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	if counts.Differences != len(out) {
		t.Errorf("counted %d differences of %d", counts.Differences, len(out))
	}
	return out, counts.Keys
}

// paced waits a moment, and tells whether to go on: what is done all the time leaves
// the machine to what it looks at.
func paced(ctx context.Context, moment time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(moment):
		return true
	}
}

// watchful reads a view all the time: no read may fail, and none may give an
// older answer than one before.
type watchful struct {
	reads atomic.Int64
	stop  func()
}

func readAllTheTime(t *testing.T, f *fixture, keys []string) *watchful {
	t.Helper()
	r := reader[account](t, f, "accounts")
	w := &watchful{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var floor uint64
			events := map[string]int{}
			for paced(ctx, 2*time.Millisecond) {
				key := keys[rand.IntN(len(keys))]
				e, err := r.Get(ctx, key)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("get %s: %v", key, err)
					return
				}
				at, _ := f.store.Sequence(e.Position)
				if at < floor || e.Value.Events < events[key] {
					t.Errorf("%s: position %d after %d, %d events after %d", key, at, floor, e.Value.Events, events[key])
					return
				}
				floor, events[key] = at, e.Value.Events
				w.reads.Add(1)
			}
		})
	}
	w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(w.stop)
	return w
}

// TestRebuild builds a view anew, with builders killed, while commands and reads
// go on, compares, switches, rolls back and removes.
func TestRebuild(t *testing.T) {
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
			const ids = 30
			keys := make([]string, ids)
			for i := range keys {
				keys[i] = id(i)
				f.append(keys[i], opened{Owner: "o"})
			}
			cfg := quiet()
			cfg.PageEvents = 500
			_, store := f.attach()
			ups := []*running{start(t, f.store, accounts(), cfg), start(t, store, accounts(), cfg)}
			get(t, reader[account](t, f, "accounts"), keys[0], projection.AtLeast(f.last))
			watch := readAllTheTime(t, f, keys)

			// Commands go on until the end.
			m := model{}
			for _, key := range keys {
				m.apply(key, opened{Owner: "o"})
			}
			done := make(chan struct{})
			stop := make(chan struct{})
			var written atomic.Int64
			endCommands := sync.OnceFunc(func() { close(stop); <-done })
			defer endCommands()
			go func() {
				defer close(done)
				rate := time.NewTicker(time.Second / 500)
				defer rate.Stop()
				for {
					select {
					case <-stop:
						return
					case <-rate.C:
					}
					key, e := keys[rand.IntN(ids)], credited{Cents: rand.Int64N(100)}
					m.apply(key, e)
					f.append(key, e)
					written.Add(1)
				}
			}()
			some := int64(500)
			if testing.Short() {
				some = 200 // as with the race detector
			}
			natstest.Eventually(t, "commands", func() error {
				if written.Load() < some {
					return fmt.Errorf("%d written", written.Load())
				}
				return nil
			})

			a := admin(t, f, "accounts")
			n, err := a.Rebuild(patient(t), projection.RebuildOptions{})
			if err != nil || n != 2 {
				t.Fatalf("rebuild: %d, %v", n, err)
			}
			if _, err := a.Rebuild(patient(t), projection.RebuildOptions{}); !errors.Is(err, projection.ErrBuilding) {
				t.Errorf("a second rebuild: %v", err)
			}
			// The instance that builds dies: another goes on.
			g := generation(t, a, n, "begun", func(g projection.Generation) bool { return g.Owner != "" })
			for i, up := range ups {
				if s := up.Status(); s.Building != nil && s.Building.Owner == g.Owner {
					if err := up.stop(); err != nil {
						t.Error(err)
					}
					_, store := f.attach()
					ups[i] = start(t, store, accounts(), cfg)
				}
			}
			g = generation(t, a, n, "caught up", func(g projection.Generation) bool { return g.CaughtUp() && g.Done >= 0.5 })
			if g.Live || !g.Building {
				t.Errorf("generation %+v", g)
			}
			if d, n := differences(t, a, projection.CompareOptions{}); len(d) > 0 || n != ids {
				t.Errorf("%d keys compared, they differ: %v", n, d)
			}
			if err := a.Switch(patient(t), n); err != nil {
				t.Fatal(err)
			}
			before := written.Load()
			natstest.Eventually(t, "commands after the switch", func() error {
				if written.Load() < before+some/5 {
					return errors.New("not yet")
				}
				return nil
			})
			generation(t, a, n, "live", live)
			back, err := a.Rollback(patient(t))
			if err != nil || back != 1 {
				t.Fatalf("rollback: %d, %v", back, err)
			}
			if err := a.Remove(patient(t), 1); !errors.Is(err, projection.ErrGeneration) {
				t.Errorf("remove the live one: %v", err)
			}
			remove(t, a, 2)
			remove(t, a, 2) // again
			if err := a.Remove(patient(t), 7); !errors.Is(err, projection.ErrGeneration) {
				t.Errorf("remove another: %v", err)
			}
			// Any replica may answer, one that is behind, too.
			natstest.Retry(t, "generation 2 has left no keys", func(ctx context.Context) error {
				page, err := wire.Batch(ctx, f.nc, "KV_"+f.store.Name()+"_accounts", "$KV."+f.store.Name()+"_accounts.2.>", 1, 10, 0)
				if err == nil && len(page.Messages) > 0 {
					err = fmt.Errorf("%d keys", len(page.Messages))
				}
				return err
			})
			endCommands()
			watch.stop()
			t.Logf("%d commands, %d reads", written.Load(), watch.reads.Load())
			f.check(m)
			if next, err := a.Rebuild(patient(t), projection.RebuildOptions{Switch: true}); err != nil || next != 3 {
				t.Errorf("rebuild again: %d, %v", next, err)
			}
			generation(t, a, 3, "live", live)
			f.check(m)
		})
	}
}

// TestCompareFindsDifferences: somebody writes into a generation's keys.
func TestCompareFindsDifferences(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 300, 1200)
	start(t, f.store, accounts(), quiet())
	f.check(m)
	a := admin(t, f, "accounts")
	if _, err := a.Rebuild(patient(t), projection.RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	generation(t, a, 2, "caught up", caughtUp)
	if d, n := differences(t, a, projection.CompareOptions{}); len(d) > 0 || n < len(m) {
		t.Fatalf("%d keys, %+v", n, d)
	}
	var one string
	for one = range m {
		break
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := f.nc.Request("$KV."+f.store.Name()+"_accounts."+key, []byte(value), natstest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	put("2."+one, `{"owner":"somebody"}`)
	put("2.new", `{}`)
	put("1.old", `{}`)
	d, _ := differences(t, a, projection.CompareOptions{})
	found := map[string]projection.Difference{}
	for _, d := range d {
		found[d.Key] = d
	}
	if len(d) != 3 || string(found[one].B) != `{"owner":"somebody"}` || found["new"].A != nil || found["old"].B != nil || found["new"].B == nil {
		t.Errorf("%+v", d)
	}
	if d, n := differences(t, a, projection.CompareOptions{Keys: []string{one, "nothing"}}); len(d) != 1 || n != 2 {
		t.Errorf("%d keys, %+v", n, d)
	}
	if _, n := differences(t, a, projection.CompareOptions{OneIn: 10}); n == 0 || n > len(m)/2 {
		t.Errorf("%d keys of %d", n, len(m))
	}
	for _, err := range a.Compare(patient(t), 1, 9, projection.CompareOptions{}, nil) {
		if !errors.Is(err, projection.ErrGeneration) {
			t.Error(err)
		}
	}
}

// TestNewVersionHeld: a new definition version is built beside the old one, which
// is kept up to date until the switch; then back to the old program.
func TestNewVersionHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	def := func(version int, add int64) projection.AnyDefinition {
		return projection.NewKeyed("v", projection.On(accountEvents, func(a *account, e credited, _ jetstream.Meta) {
			a.Cents, a.Events = a.Cents+e.Cents+add, a.Events+1
		})).Version(version)
	}
	cfg := quiet()
	cfg.OnStop, cfg.HoldSwitch = projection.WaitWhenStopped, true
	old := start(t, f.store, def(1, 0), cfg)
	f.append("a1", credited{Cents: 1})
	r := reader[account](t, f, "v")
	get(t, r, "a1", projection.AtLeast(f.last))
	_, store := f.attach()
	start(t, store, def(2, 1000), cfg)
	a := admin(t, f, "v")
	generation(t, a, 2, "caught up", caughtUp)
	f.append("a1", credited{Cents: 1})
	if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Cents != 2 || e.Generation != 1 {
		t.Errorf("before the switch: %+v", e)
	}
	if err := a.Switch(patient(t), 2); err != nil {
		t.Fatal(err)
	}
	f.append("a1", credited{Cents: 1})
	if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Cents != 3003 || e.Generation != 2 {
		t.Errorf("after the switch: %+v", e)
	}
	natstest.Eventually(t, "the old updater stands back", func() error {
		if s := old.Status(); s.State != projection.StateSealed {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if n, err := a.Rollback(patient(t)); err != nil || n != 1 {
		t.Fatalf("rollback: %d, %v", n, err)
	}
	f.append("a1", credited{Cents: 1})
	if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Cents != 4 || e.Generation != 1 {
		t.Errorf("after the rollback: %+v", e)
	}
	// A third version takes the place of one that is still being built.
	_, store3 := f.attach()
	start(t, store3, def(3, 2000), cfg)
	generation(t, a, 3, "caught up", caughtUp)
	_, store4 := f.attach()
	start(t, store4, def(4, 4000), cfg)
	generation(t, a, 4, "caught up", caughtUp)
	if g := generation(t, a, 3, "sealed", func(g projection.Generation) bool { return g.State == projection.StateSealed }); g.Building {
		t.Errorf("%+v", g)
	}
	remove(t, a, 3)
}
