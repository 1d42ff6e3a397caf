package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/sinktest"
)

func TestMemorySink(t *testing.T) {
	t.Parallel()
	m := newMemory()
	sinktest.Run(t, sinktest.Backend[*memoryTx]{
		Open: func(*testing.T) projection.Sink[*memoryTx] { return m },
		Put: func(_ context.Context, tx *memoryTx, key, value string) error {
			tx.rows[key] = account{Owner: value}
			return nil
		},
		Get: func(_ context.Context, key string) (string, error) {
			rows, _ := m.snapshot("")
			return rows[key].Owner, nil
		},
	})
}

// quietSink is [quiet] for sinks.
func quietSink() projection.SinkConfig {
	c := quiet()
	return projection.SinkConfig{Logger: c.Logger, OnStop: c.OnStop}
}

// mortalSink is [mortal] for sinks.
func mortalSink() projection.SinkConfig {
	c := quietSink()
	c.LeaseTTL = mortal().LeaseTTL
	return c
}

// lastingSink is [lasting] for sinks.
func lastingSink() projection.SinkConfig {
	c := quietSink()
	c.LeaseTTL = lasting().LeaseTTL
	return c
}

// sinkRunning is a sink's updater that runs.
type sinkRunning struct {
	*projection.SinkUpdater

	cancel context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

func startSink(
	t testing.TB, store *jetstream.Store, def *projection.SinkDefinition[*memoryTx], m *memory, cfg projection.SinkConfig,
) *sinkRunning {
	t.Helper()
	up, err := projection.NewSinkUpdater(store, def, m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return launchSink(t, up)
}

func launchSink(t testing.TB, up *projection.SinkUpdater) *sinkRunning {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &sinkRunning{SinkUpdater: up, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- up.Run(ctx) }()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *sinkRunning) wait() error {
	r.once.Do(func() {
		select {
		case r.err = <-r.done:
		case <-time.After(natstest.Patience):
			r.err = errors.New("the updater did not end")
		}
	})
	return r.err
}

func (r *sinkRunning) stop() error {
	r.cancel()
	return r.wait()
}

// until waits until the rows reach the last event that was appended.
func (f *fixture) until(m *memory) {
	f.t.Helper()
	natstest.Eventually(f.t, "the rows are there", func() error {
		_, rec := m.snapshot(projection.SinkName(f.store.Name(), "accounts"))
		reached, err := rec.Reached(f.last)
		if err == nil && !reached {
			err = fmt.Errorf("%+v", string(rec.Data))
		}
		return err
	})
}

func (f *fixture) checkSink(m *memory, want model) {
	f.t.Helper()
	f.until(m)
	rows, _ := m.snapshot("")
	if len(rows) != len(want) {
		f.t.Errorf("%d rows, wanted %d", len(rows), len(want))
	}
	for key, w := range want {
		if got := rows[key]; !reflect.DeepEqual(got, *w) {
			f.t.Errorf("%s: %+v, wanted %+v", key, got, *w)
		}
	}
}

// positionOf is how far a record is.
func positionOf(t testing.TB, r projection.SinkRecord) uint64 {
	t.Helper()
	var cp struct {
		Position uint64 `json:"position"`
	}
	if err := json.Unmarshal(r.Data, &cp); err != nil {
		t.Error(err)
	}
	return cp.Position
}

// epochOf is the epoch of a record's owner.
func epochOf(t testing.TB, r projection.SinkRecord) uint64 {
	t.Helper()
	var cp struct {
		Epoch uint64 `json:"epoch"`
	}
	if err := json.Unmarshal(r.Data, &cp); err != nil {
		t.Error(err)
	}
	return cp.Epoch
}

// pastOf is the rows that a fold of the events up to a position gives.
func (r *recorder) pastOf(position uint64) map[string]account {
	rows := map[string]account{}
	for key, history := range r.past {
		for _, p := range history {
			if p.sequence > position {
				break
			}
			delete(rows, key)
			if p.value != nil {
				rows[key] = *p.value
			}
		}
	}
	return rows
}

// TestSinkCrashes: updaters die, freeze until others own the view, or lose the
// database before or after a commit, in 50 histories (20 under -short, as with the
// race detector). Whatever was ever committed is what a fold of the events up to the
// record's position gives.
func TestSinkCrashes(t *testing.T) {
	t.Parallel()
	seeds := 50
	if testing.Short() {
		seeds = 20
	}
	single, cluster := natstest.Run(t).URL(), natstest.RunCluster(t)
	var counts [6]atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, 12)
	for seed := range seeds { // Mostly they wait for leases: more at once than processors.
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			url, replicas := single, 1
			if seed%10 == 9 {
				url, replicas = strings.Join(cluster.URLs(), ","), 3
			}
			sinkCrashes(t, fixtureAt(t, url, replicas), seed, &counts)
		})
	}
	wg.Wait()
	for i := range counts {
		if counts[i].Load() == 0 {
			t.Errorf("fault %q never came", sinkSteps[i])
		}
	}
}

// The faults of sinkCrashes.
var sinkSteps = []string{"read", "put", "applied", "stored", "before", "after"}

func sinkCrashes(t *testing.T, f *fixture, seed int, counts *[6]atomic.Int64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(seed), 6))
	r := &recorder{f: f, rand: rnd, m: model{}, past: map[string][]past{}}
	m := newMemory()
	type commit struct {
		rows   map[string]account
		record projection.SinkRecord
	}
	name := projection.SinkName(f.store.Name(), "accounts")
	var mu sync.Mutex
	var commits []commit
	var fault func(committed bool) error
	m.fault = func(committed bool) error {
		mu.Lock()
		defer mu.Unlock()
		if rows, record := m.snapshot(name); committed {
			commits = append(commits, commit{rows, record})
		}
		if fault == nil {
			return nil
		}
		return fault(committed)
	}
	r.feed(20, 12, 0)
	for round := range 4 {
		nc, store := f.attach()
		cfg := mortalSink()
		cfg.LeaseTTL, cfg.PageEvents = 200*time.Millisecond, 1+rnd.IntN(30)
		g := newGate(m)
		up, err := projection.NewSinkUpdater(store, sinkAccounts(), g, cfg)
		if err != nil {
			t.Fatal(err)
		}
		open := func() {}
		which := (seed + round) % len(sinkSteps)
		step, freeze := sinkSteps[which], which == 1 && rnd.IntN(2) == 0
		reached, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var n atomic.Int64
		count := rnd.Int64N(4)
		projection.SinkSteps(up, func(s string) {
			if s != step || n.Add(1) <= count {
				return
			}
			once.Do(func() {
				counts[which].Add(1)
				if freeze {
					open = g.shut() // It does not see either that it has lost the view.
					close(reached)
					<-release
					return
				}
				close(reached)
				nc.Close()
			})
		})
		mu.Lock()
		fault = func(committed bool) error {
			if committed != (step == "after") || step != "before" && step != "after" || n.Add(1) <= count {
				return nil
			}
			if n.Load() == count+3 {
				counts[which].Add(1)
				close(reached)
			}
			if n.Load() > count+3 {
				return nil
			}
			return fmt.Errorf("%w: %s", errMemory, step)
		}
		mu.Unlock()
		run := launchSink(t, up)
		r.feed(5, 12, 0)
		natstest.Eventually(t, "the step", func() error {
			select {
			case <-reached:
				return nil
			default:
			}
			if s := up.Status(); s.Position == f.last && s.CaughtUp {
				// All that was appended may have come at once.
				r.append(id(0), credited{Cents: 1})
			}
			return fmt.Errorf("%+v", up.Status())
		})
		if freeze {
			_, store := f.attach()
			other := startSink(t, store, sinkAccounts(), m, cfg)
			r.feed(5, 12, 0)
			f.until(m)
			close(release)
			open()
			r.feed(3, 12, 0)
			f.until(m)
			if err := other.stop(); err != nil {
				t.Error(err)
			}
		}
		nc.Close()
		_ = run.wait()
		if !freeze {
			close(release)
		}
	}
	startSink(t, f.store, sinkAccounts(), m, mortalSink())
	f.checkSink(m, r.m)
	mu.Lock()
	defer mu.Unlock()
	var last uint64
	for _, c := range commits {
		position := positionOf(t, c.record)
		// What is frozen before its page is sent has lost the view when it goes on.
		epoch := epochOf(t, c.record)
		if epoch < last {
			t.Errorf("seed %d: the owner of epoch %d has committed after that of epoch %d", seed, epoch, last)
			return
		}
		last = epoch
		if want := r.pastOf(position); !maps.EqualFunc(c.rows, want, func(a, b account) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("seed %d: the rows at position %d are %+v, wanted %+v", seed, position, c.rows, want)
			return
		}
	}
	if len(commits) < 6 {
		t.Errorf("seed %d: only %d commits", seed, len(commits))
	}
}

// TestSinkTransactions: no commit of the database ever holds a part of a
// transaction of the store, in rows or position, however large the pages.
func TestSinkTransactions(t *testing.T) {
	t.Parallel()
	for _, pages := range []int{1, 7, 1000} {
		t.Run(strconv.Itoa(pages), func(t *testing.T) {
			t.Parallel()
			testSinkTransactions(t, newFixture(t), pages)
		})
	}
}

func testSinkTransactions(t *testing.T, f *fixture, pages int) {
	t.Helper()
	m := newMemory()
	name := projection.SinkName(f.store.Name(), "accounts")
	var mu sync.Mutex
	positions := map[uint64]bool{}
	m.fault = func(committed bool) error {
		if rows, rec := m.snapshot(name); committed {
			mu.Lock()
			defer mu.Unlock()
			at := positionOf(t, rec)
			positions[at] = true
			if x, y := rows["x"], rows["y"]; x.Cents+y.Cents != 0 || x.Events != y.Events {
				t.Errorf("at position %d x is %+v, y is %+v", at, x, y)
			}
		}
		return nil
	}
	cfg := quietSink()
	cfg.PageEvents = pages
	const transactions = 60
	feed := func() {
		for i := range int64(transactions) {
			writes := make([]jetstream.Write, 0, 7)
			writes = append(writes, writing("account", "x", encode(t, accountEvents, credited{Cents: -i})))
			for k := range 5 {
				typ := []string{"account", "other"}[k%2]
				writes = append(writes, writing(typ, fmt.Sprint("o", k), encode(t, accountEvents, credited{Cents: 1})))
			}
			f.transact(append(writes, writing("account", "y", encode(t, accountEvents, credited{Cents: i})))...)
		}
	}
	feed() // What is read at once ends within some of them.
	startSink(t, f.store, sinkAccounts(), m, cfg)
	f.until(m)
	feed()
	f.until(m)
	rows, _ := m.snapshot("")
	if rows["x"].Events != 2*transactions || rows["y"].Cents != transactions*(transactions-1) {
		t.Errorf("x is %+v, y is %+v", rows["x"], rows["y"])
	}
	mu.Lock()
	defer mu.Unlock()
	if pages == 1 && len(positions) < 2*transactions {
		t.Errorf("%d positions were written, wanted one a transaction", len(positions))
	}
	for msg, err := range f.store.Messages(t.Context(), "", "", jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		if index, count := wire.TxPlace(msg.Header); index < count && positions[msg.Sequence] {
			t.Errorf("a record stands at %d, within a transaction", msg.Sequence)
		}
	}
}

// TestSinkStandby: of two updaters one owns the view; when it ends the other takes
// over, in order at once, and each event counts once.
func TestSinkStandby(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	cfg := lastingSink()
	first := startSink(t, f.store, sinkAccounts(), m, cfg)
	f.feed(want, 10, 3)
	f.checkSink(m, want)
	second := startSink(t, f.store, sinkAccounts(), m, cfg)
	natstest.Eventually(t, "the second stands by", func() error {
		if s := second.Status(); s.State != projection.StateStandby || s.Owner != first.Status().Owner {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.feed(want, 10, 3)
	f.checkSink(m, want)
	if err := first.stop(); err != nil {
		t.Error(err)
	}
	f.feed(want, 10, 3)
	f.checkSink(m, want)
	s := second.Status()
	if first.Status().State != projection.StateFree || s.State != projection.StateRunning || s.Epoch != 2 {
		t.Errorf("first is %+v, second %+v", first.Status(), s)
	}
	natstest.Eventually(t, "the status says caught up", func() error {
		if s := second.Status(); !s.CaughtUp || s.Position != f.last || s.Lag != 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := second.Run(t.Context()); !errors.Is(err, projection.ErrRunning) {
		t.Errorf("Run again: %v", err)
	}
}

// gate is a memory that can be shut for one of its users.
type gate struct {
	*memory

	mu      sync.Mutex
	opened  chan struct{} // closed while the gate is open
	waiting atomic.Int64  // transactions that wait
}

func newGate(m *memory) *gate {
	g := &gate{memory: m, opened: make(chan struct{})}
	close(g.opened)
	return g
}

// shut shuts the gate until the result is called.
func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = make(chan struct{})
	return sync.OnceFunc(func() { close(g.opened) })
}

func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) Load(ctx context.Context, name string) (projection.SinkRecord, error) {
	if err := g.wait(ctx); err != nil {
		return projection.SinkRecord{}, err
	}
	return g.memory.Load(ctx, name)
}

func (g *gate) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *memoryTx) error,
) error {
	g.waiting.Add(1)
	err := g.wait(ctx)
	g.waiting.Add(-1)
	if err != nil {
		return err
	}
	return g.memory.Transact(ctx, name, expected, data, apply)
}

// TestSinkZombie: an owner whose page is on its way to the database while another
// takes the view over, which it cannot see: the page is refused.
func TestSinkZombie(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := newMemory()
	g := newGate(m)
	want := model{}
	var mu sync.Mutex
	var epochs []uint64 // of what was committed
	m.fault = func(committed bool) error {
		if _, rec := m.snapshot(projection.SinkName(f.store.Name(), "accounts")); committed {
			mu.Lock()
			defer mu.Unlock()
			epochs = append(epochs, epochOf(t, rec))
		}
		return nil
	}
	intruded := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !slices.IsSorted(epochs)
	}
	credit := func() {
		f.append("a", credited{Cents: 1})
		want.apply("a", credited{Cents: 1})
	}
	// It stands by as long as the other one lives, however slow that is.
	zombie, err := projection.NewSinkUpdater(f.store, sinkAccounts(), g, lastingSink())
	if err != nil {
		t.Fatal(err)
	}
	launchSink(t, zombie)
	credit()
	f.checkSink(m, want)
	open := g.shut()
	credit()
	natstest.Eventually(t, "the page is on its way", func() error {
		if g.waiting.Load() == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	other := startSink(t, f.store, sinkAccounts(), m, mortalSink())
	f.checkSink(m, want)
	open()
	natstest.Eventually(t, "the zombie stands by", func() error {
		if intruded() {
			return nil
		}
		if s := zombie.Status(); s.State != projection.StateStandby || s.Epoch != 2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if intruded() {
		t.Fatalf("the owner of an earlier epoch has committed: %v", epochs)
	}
	credit()
	f.checkSink(m, want)
	if s := other.Status(); s.State != projection.StateRunning || s.Epoch != 2 {
		t.Errorf("%+v", s)
	}
}

// TestSinkAway: a database that does not answer for a while is waited out; no
// event is blamed, even if those that fail are to be left out.
func TestSinkAway(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"Commit", "Handler"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m, want := newMemory(), model{}
			var away atomic.Bool
			var asked atomic.Int64
			fail := func() error {
				if !away.Load() {
					return nil
				}
				asked.Add(1)
				return fmt.Errorf("beside: %w", errMemory)
			}
			def := sinkAccounts()
			if where == "Commit" {
				m.fault = func(committed bool) error {
					if committed {
						return nil
					}
					return fail()
				}
			} else {
				def = sinkFailing(func(credited) error { return fail() })
			}
			cfg := quietSink()
			cfg.OnError, cfg.FoldRetries = projection.SkipOnError, 1
			up := startSink(t, f.store, def, m, cfg)
			f.append("a", credited{Cents: 1})
			want.apply("a", credited{Cents: 1})
			f.checkSink(m, want)
			away.Store(true)
			f.append("a", credited{Cents: 2})
			want.apply("a", credited{Cents: 2})
			natstest.Eventually(t, "the status says why", func() error {
				if s := up.Status(); asked.Load() < 8 || !errors.Is(s.Err, errMemory) {
					return fmt.Errorf("asked %d times: %+v", asked.Load(), s)
				}
				return nil
			})
			away.Store(false)
			f.checkSink(m, want)
			natstest.Eventually(t, "the status is well again", func() error {
				if s := up.Status(); s.Err != nil || s.State != projection.StateRunning {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			if s := sinkStatus(t, f, m); s.Skipped != 0 || s.Lag != 0 || !s.CaughtUp() {
				t.Errorf("%+v", s)
			}
		})
	}
}

func sinkAdmin(t testing.TB, f *fixture, m *memory) *projection.SinkAdmin {
	t.Helper()
	a, err := projection.NewSinkAdmin(f.store, m, "accounts")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sinkStatus is the view's status, once it can be read.
func sinkStatus(t testing.TB, f *fixture, m *memory) (s projection.ViewStatus) {
	t.Helper()
	a := sinkAdmin(t, f, m)
	natstest.Eventually(t, "read the status", func() (err error) {
		s, err = a.Status(t.Context())
		return err
	})
	return s
}

// sinkFailing is a view of credited whose handler fails as told, after it wrote.
func sinkFailing(fail func(credited) error) *projection.SinkDefinition[*memoryTx] {
	return projection.NewSinkDefinition("accounts",
		func(_ context.Context, tx *memoryTx) error {
			clear(tx.rows)
			return nil
		},
		projection.OnSink(accountEvents, func(_ context.Context, tx *memoryTx, e credited, m jetstream.Meta) error {
			tx.credit(m.ID, e.Cents)
			return fail(e)
		}))
}
