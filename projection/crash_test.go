package projection_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// past is what a key was after each commit that touched it.
type past struct {
	sequence uint64
	value    *account // nil: not there
}

// recorder keeps the past of every key beside the model.
type recorder struct {
	f    *fixture
	rand *rand.Rand
	m    model
	past map[string][]past
}

func (r *recorder) append(key string, events ...any) {
	touched := map[string]bool{key: true}
	for _, e := range events {
		if e, ok := e.(moved); ok {
			touched[e.From], touched[e.To] = true, true
		}
		r.m.apply(key, e)
	}
	seq, _ := r.f.store.Sequence(r.f.append(key, events...))
	for key := range touched {
		var copied *account
		if a := r.m[key]; a != nil {
			c := *a
			c.History = slices.Clone(a.History)
			copied = &c
		}
		r.past[key] = append(r.past[key], past{sequence: seq, value: copied})
	}
}

// feed appends random commits, large ones over many keys.
func (r *recorder) feed(commits, ids, large int) {
	for range commits {
		n := 1 + r.rand.IntN(3)
		if large > 0 {
			n = large
		}
		events := make([]any, 0, n)
		for range n {
			var e any = credited{Cents: r.rand.Int64N(100)}
			switch k := r.rand.IntN(12); {
			case large > 0 || k == 2:
				e = moved{From: id(r.rand.IntN(ids)), To: id(r.rand.IntN(ids)), Cents: r.rand.Int64N(9)}
			case k == 0:
				e = opened{Owner: fmt.Sprint("o", r.rand.IntN(9))}
			case k == 1:
				e = closed{}
			}
			events = append(events, e)
		}
		r.append(id(r.rand.IntN(ids)), events...)
	}
}

// consistent checks that the position is not ahead of the view: each key is as it
// was after the commit that its header names, or after the position, whichever is
// later.
func (r *recorder) consistent(t *testing.T) {
	t.Helper()
	view := reader[account](t, r.f, "accounts")
	position, err := view.Position(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	at, _ := r.f.store.Sequence(position)
	for some := range slices.Chunk(slices.Collect(maps.Keys(r.past)), 500) {
		entries, err := view.GetMany(t.Context(), some)
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range entries {
			reached := max(at, e.Sequence)
			var want *account
			for _, p := range r.past[e.Key] {
				if p.sequence <= reached {
					want = p.value
				}
			}
			if want == nil || !reflect.DeepEqual(e.Value, *want) {
				// A later commit may have come meanwhile. (A deletion is not read with its header.)
				now, _ := view.Position(t.Context())
				if later, _ := r.f.store.Sequence(now); later > at {
					continue
				}
				t.Errorf("%s at position %d, key's sequence %d: %+v, wanted %+v", e.Key, at, e.Sequence, e.Value, want)
			}
		}
	}
}

// prod appends what lets an updater that has caught up come to a step. It tells
// whether there is such a thing.
func (r *recorder) prod(step string, large int) bool {
	switch {
	case step == "each" && large > 0: // a page of more keys than a batch holds
		r.feed(1, 3000, 900)
	case step == "each":
		return false
	case step == "batch": // which holds two keys
		r.append(id(0), moved{From: id(0), To: id(1), Cents: 1})
	default:
		r.append(id(0), credited{Cents: 1})
	}
	return true
}

// steps are where an updater is killed or frozen.
var steps = []string{"read", "folded", "key", "each", "batch", "put", "stored"}

// TestCrashAtEveryStep: updaters die, or freeze until others own the view, at
// every step, in 50 histories (12 under -short, as with the race detector); the
// position is never ahead of the view, and in the end the view is what a fold of all
// events gives.
func TestCrashAtEveryStep(t *testing.T) { //nolint:tparallel // they are started elsewhere
	t.Parallel()
	crashAtEveryStep(t, crashing{accounts, steps, 4, true})
}

// TestCrashAtEveryStepOfLookups does it to lookup views.
func TestCrashAtEveryStepOfLookups(t *testing.T) { //nolint:tparallel // they are started elsewhere
	t.Parallel()
	crashAtEveryStep(t, crashing{plainLookup, []string{"read", "folded", "batch", "put", "stored"}, 2, false})
}

// crashing is what dies, where, and how often in each history; large ones have
// pages that no batch can hold.
type crashing struct {
	def    func() *projection.Definition[account]
	steps  []string
	rounds int
	large  bool
}

func crashAtEveryStep(t *testing.T, what crashing) {
	t.Helper()
	seeds := 50
	if testing.Short() {
		seeds = 12
	}
	crashed := map[string]*atomic.Int64{}
	for _, s := range what.steps {
		crashed[s] = new(atomic.Int64)
	}
	t.Run("seeds", func(t *testing.T) {
		single := natstest.Run(t).URL()
		cluster := natstest.RunCluster(t)
		slots := make(chan struct{}, 12)
		for seed := range seeds {
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				if seed%5 == 4 {
					crashes(t, what, seed, strings.Join(cluster.URLs(), ","), 3, cluster, crashed)
					return
				}
				crashes(t, what, seed, single, 1, nil, crashed)
			})
		}
	})
	for _, s := range what.steps {
		if crashed[s].Load() == 0 {
			t.Errorf("nothing was ended at step %q", s)
		}
	}
}

func crashes(
	t *testing.T, what crashing, seed int, url string, replicas int, cluster *natstest.Cluster,
	crashed map[string]*atomic.Int64,
) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(seed), 5))
	f := fixtureAt(t, url, replicas)
	r := &recorder{f: f, rand: rnd, m: model{}, past: map[string][]past{}}
	large, ids := 0, 12
	// With the race detector, which has fewer histories, one is enough: that where "each" comes.
	if what.large && seed%5 == 0 && (!testing.Short() || seed == 10) {
		large, ids = 60, 3000
	}
	r.feed(20, ids, large)
	for round := range what.rounds {
		nc, store := f.attach()
		cfg := mortal()
		cfg.LeaseTTL = 200 * time.Millisecond
		cfg.PageEvents, cfg.CacheBytes = 1+rnd.IntN(30), 1+rnd.IntN(5000)
		step := what.steps[(seed+round)%len(what.steps)]
		// Where the lease is renewed nothing is frozen: a process stops as a whole.
		count, freeze := rnd.IntN(3), rnd.IntN(3) == 0 && step != "read" && step != "folded"
		switch {
		case large > 0:
			cfg.PageEvents += 20 // pages that no batch can hold
		case step == "key":
			cfg.PageEvents = 1 // pages of one key
		}
		up, err := projection.NewUpdater(store, what.def(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if step == "each" {
			count = 0
			r.feed(2*large/5, ids, large)
		}
		reached, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var n atomic.Int64
		projection.Steps(up, func(s string) {
			if s != step || n.Add(1) <= int64(count) {
				return
			}
			once.Do(func() {
				crashed[step].Add(1)
				close(reached)
				if freeze {
					<-release
					return
				}
				nc.Close()
			})
		})
		run := launch(t, up)
		r.feed(5, ids, large)
		natstest.Eventually(t, "the step", func() error {
			select {
			case <-reached:
				return nil
			default:
			}
			// All that was appended may have come at once, or bit by bit. Not every step is
			// on every path: a view that has caught up is ended, too.
			if s := up.Status(); s.Position == f.last && s.CaughtUp && !r.prod(step, large) {
				return nil
			}
			return fmt.Errorf("%+v", up.Status())
		})
		if freeze {
			_, store := f.attach()
			other := start(t, store, what.def(), cfg)
			r.feed(5, ids, large)
			get(t, reader[account](t, f, "accounts"), firstKey(r.m), projection.AtLeast(f.last))
			close(release)
			r.feed(3, ids, large)
			r.consistent(t)
			if err := other.stop(); err != nil {
				t.Error(err)
			}
		}
		if cluster != nil && round%2 == 1 {
			cluster.StepDown(t, "KV_"+f.store.Name()+"_accounts")
		}
		nc.Close()
		_ = run.wait()
		if !freeze {
			close(release)
		}
		if round > 0 {
			r.consistent(t)
		}
	}
	_, store := f.attach()
	start(t, store, what.def(), mortal())
	f.check(r.m)
}

func firstKey(m model) string {
	for key := range m {
		return key
	}
	return "none"
}

// TestCursorMovedByOthers: somebody, such as an owner that was, resets the
// consumer right after the owner did: its deliveries are counted anew, and what
// was jumped over must not be lost.
func TestCursorMovedByOthers(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]int{"Within": 12, "BeyondTheEnd": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m := model{}
			f.feed(m, 20, 3)
			up, err := projection.NewUpdater(f.store, accounts(), quiet())
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			projection.Steps(up, func(step string) {
				if step != "opened" {
					return
				}
				once.Do(func() {
					subject := "$JS.API.CONSUMER.RESET." + f.store.Name() + ".accounts"
					if m, err := f.nc.Request(subject, fmt.Appendf(nil, `{"seq":%d}`, to), natstest.Patience); err != nil || strings.Contains(string(m.Data), "error") {
						t.Errorf("reset: %v, %v", m, err)
					}
				})
			})
			launch(t, up)
			natstest.Eventually(t, "the view is there", func() error {
				if up.Status().Position != f.last {
					return fmt.Errorf("%+v", up.Status())
				}
				return nil
			})
			f.check(m)
		})
	}
}

// TestUpdaterProcess is not a test but the process that TestKilledProcesses kills.
func TestUpdaterProcess(t *testing.T) {
	t.Parallel()
	url, name, ok := strings.Cut(os.Getenv("ROSSBY_TEST_UPDATER"), " ")
	if !ok {
		return
	}
	nc := natstest.Conn(t, url)
	store, err := jetstream.Attach(t.Context(), nc, name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := mortal()
	cfg.PageEvents = 7
	_ = start(t, store, accounts(), cfg).wait()
}

// TestKilledProcesses: processes that run the updater get kill -9 while events
// keep coming.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := &recorder{f: f, rand: rand.New(rand.NewPCG(1, 2)), m: model{}, past: map[string][]past{}}
	r.feed(20, 12, 0)
	run := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUpdaterProcess$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "ROSSBY_TEST_UPDATER="+f.url+" "+f.store.Name())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	a := admin(t, f, "accounts")
	epoch := uint64(0)
	for range 8 {
		cmd := run()
		status(t, a, "owned by the process", func(s projection.ViewStatus) bool { return s.Epoch > epoch })
		r.feed(1+r.rand.IntN(60), 12, 0)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		epoch = status(t, a, "there", func(projection.ViewStatus) bool { return true }).Epoch
		r.consistent(t)
	}
	start(t, f.store, accounts(), mortal())
	f.check(r.m)
}
