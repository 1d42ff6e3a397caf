package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/torture/check"
	"github.com/rossby-go/rossby/test/torture/rig"
)

const (
	storeName = "bank"
	// patienceDefault is long: how long things took is measured, and not decided by it.
	patienceDefault = time.Minute
	moduleTTL       = 1500 * time.Millisecond
	// blindFor is how long an ex-leader may not know that it is one.
	blindFor = 10 * time.Second
)

// cell is one run: servers, workloads, and disturbances one after the other.
type cell struct {
	Servers   int           `json:"servers"`
	Fsync     bool          `json:"fsync"`
	Workloads []string      `json:"workloads"`
	Nemeses   []string      `json:"nemeses"`
	Seed      uint64        `json:"seed"`
	Hold      time.Duration `json:"hold"`
	// Calm is the time between two disturbances, when everything works again.
	Calm time.Duration `json:"calm"`
	// Rest is the longest time that a client rests between two operations.
	Rest time.Duration `json:"rest,omitempty"`
	// Patience bounds waits for what must come: recovery, followers that catch up.
	Patience time.Duration `json:"patience"`
	// Compress makes the servers compress the store, as Rossby does not.
	Compress bool `json:"compress,omitempty"`
	// Soak goes on for so long with the disturbances, again and again, and samples what
	// the processes use.
	Soak time.Duration `json:"soak,omitempty"`
}

func (c *cell) String() string {
	sync := "lazy"
	if c.Fsync {
		sync = "fsync"
	}
	return fmt.Sprintf("R%d %s, %v, %v, seed %d", c.Servers, sync, c.Workloads, c.Nemeses, c.Seed)
}

// result is what came of a cell.
type result struct {
	Cell       cell          `json:"cell"`
	Took       time.Duration `json:"took"`
	Operations int           `json:"operations"`
	// Checked are the operations on registers that were checked for linearizability,
	// LeftOut those that were not.
	Checked    int            `json:"checked"`
	LeftOut    int            `json:"leftOut"`
	Outcomes   map[string]int `json:"outcomes"`
	Events     int            `json:"events"`
	Messages   uint64         `json:"messages"`
	Handled    int            `json:"handled"`
	Repeats    int            `json:"repeats"`
	Views      int            `json:"views"`
	Faults     []fault        `json:"faults"`
	Violations []string       `json:"violations"`
	// Lost are the acknowledged events that are gone, where they may be.
	Lost int    `json:"lost"`
	Dir  string `json:"dir"`
}

// env is what a cell works with.
type env struct {
	cell
	*writers

	dir      string
	log      *slog.Logger
	cluster  *rig.Cluster
	receiver *receiver
	modules  [2]*rig.Process
	// starting guards modules, which a soak looks at while a disturbance starts them.
	starting sync.Mutex
	probes   int
	// ownerKills are kills of the process that delivered.
	ownerKills int
}

// runCell runs a cell. What it finds are violations; an error is a rig that does
// not work.
func runCell(ctx context.Context, c cell, home string, log *slog.Logger) (r result, err error) {
	if c.Patience == 0 {
		c.Patience = patienceDefault
	}
	if c.Rest == 0 {
		c.Rest = restDefault
	}
	e := &env{cell: c, log: log}
	began := time.Now()
	r = result{Cell: c}
	if e.dir, err = os.MkdirTemp(home, "cell-"+strconv.FormatUint(c.Seed, 10)+"-"); err != nil {
		return r, err
	}
	r.Dir = e.dir
	h := &history{began: began}
	e.receiver = newReceiver(began)
	defer e.receiver.Close()
	images := false
	for _, name := range c.Nemeses {
		n, err := nemesisOf(name)
		if err != nil {
			return r, err
		}
		images = images || n.images
	}
	e.cluster, err = rig.Up(ctx, rig.Config{Dir: e.dir, Servers: c.Servers, Fsync: c.Fsync, Images: images})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, e.cluster.Down(context.WithoutCancel(ctx))) }()
	if e.writers, err = newWriters(ctx, h, e.cluster.Writers, storeName, c.Servers); err != nil {
		return r, err
	}
	defer e.close()
	defer func() {
		for _, m := range e.modules {
			if m != nil {
				m.Thaw()
				m.Kill()
			}
		}
	}()
	for i := range e.modules {
		if err := e.startModules(ctx, i); err != nil {
			return r, err
		}
	}
	if c.Compress {
		if err := e.compress(ctx); err != nil {
			return r, err
		}
	}
	if err := errors.Join(e.openReader(ctx, storeName), e.openBank(ctx)); err != nil {
		return r, err
	}
	if images {
		// What is lost is what came after.
		if err := e.cluster.SyncDisks(ctx); err != nil {
			return r, err
		}
	}
	if err := e.disturb(ctx); err != nil {
		return r, err
	}
	return r, e.judge(ctx, &r, time.Since(began))
}

// compress switches compression on, which counts from the servers' next start on.
func (e *env) compress(ctx context.Context) error {
	var info struct {
		Config map[string]any `json:"config"`
	}
	var updated struct{}
	if err := e.cluster.API(ctx, "STREAM.INFO."+storeName, nil, &info); err != nil {
		return err
	}
	info.Config["compression"] = "s2"
	if err := e.cluster.API(ctx, "STREAM.UPDATE."+storeName, info.Config, &updated); err != nil {
		return err
	}
	_, err := rolling(ctx, e, nil, 0)
	return err
}

// startModules starts a process of modules that does not run.
func (e *env) startModules(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	name := moduleNames[i]
	p, err := rig.Start(ctx, modulesKind, moduleConfig{
		Name: name, URL: rig.URL(e.cluster.Modules, i+1), Store: storeName, Receiver: e.receiver.URL, TTL: moduleTTL,
		Cache: e.cacheBytes(),
	}, "running", filepath.Join(e.dir, name+".log"))
	if err != nil {
		return err
	}
	e.starting.Lock()
	defer e.starting.Unlock()
	e.modules[i] = p
	return nil
}

// cacheBytes are small in a soak, so that caches are full soon and what grows is no
// cache. Otherwise they are as they are.
func (e *env) cacheBytes() int {
	if e.Soak > 0 {
		return 128 << 10
	}
	return 0
}

// disturb runs the load and the disturbances, and ends with everything mended.
func (e *env) disturb(ctx context.Context) error {
	loaded, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	for _, w := range e.Workloads {
		e.load(loaded, w, e.Seed, e.Rest, g.Go)
	}
	rng := rand.New(rand.NewPCG(e.Seed, 0))
	names := slices.Values(e.Nemeses)
	if e.Soak > 0 {
		g.Go(func() error { return e.soak(loaded, e.Soak) })
		names = e.forever(e.Soak)
	}
	var failed error
	for name := range names {
		n, err := nemesisOf(name)
		if err != nil {
			return err
		}
		pause(ctx, e.Calm)
		if failed = e.inflict(ctx, n, rng); failed != nil || ctx.Err() != nil {
			break
		}
	}
	pause(ctx, e.Calm)
	stop()
	mended := e.cluster.Mend(ctx)
	return errors.Join(failed, mended, g.Wait(), ctx.Err())
}

// forever yields the disturbances in turn until the time is over.
func (e *env) forever(limit time.Duration) iter.Seq[string] {
	end := time.Now().Add(limit)
	return func(yield func(string) bool) {
		for i := 0; time.Now().Before(end); i++ {
			if !yield(e.Nemeses[i%len(e.Nemeses)]) {
				return
			}
		}
	}
}

// inflict makes one disturbance and measures how long it takes until everything
// works again.
func (e *env) inflict(ctx context.Context, n nemesis, rng *rand.Rand) error {
	f := fault{Name: n.name, From: e.now()}
	e.log.DebugContext(ctx, "fault", "name", n.name)
	var err error
	f.Count, err = n.run(ctx, e, rng, e.Hold)
	f.To = e.now()
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	if n.name != nemNone {
		var late error
		s := &steps{began: time.Now(), made: map[string]time.Duration{}}
		elected := make(chan time.Duration, 1)
		go func() { elected <- e.elected(ctx, s) }()
		f.Recovered, late = e.recovered(ctx, s)
		f.Leaders, f.Steps = <-elected, s.made
		if late != nil {
			f.Error = late.Error()
			e.alarm(fmt.Sprintf("after %s: not everything works again: %v", n.name, late))
		}
	}
	e.log.DebugContext(ctx, "recovered", "name", n.name, "after", f.Recovered)
	e.history.mu.Lock()
	defer e.history.mu.Unlock()
	e.faults = append(e.faults, f)
	if n.blind {
		e.windows = append(e.windows, check.Window{From: f.From, To: f.To + blindFor.Nanoseconds()})
	}
	return nil
}

// elected measures how long it takes until JetStream, the streams that a payment
// needs and the consumers of the followers have leaders that answer the clients of
// every server: the servers' part of a recovery.
func (e *env) elected(ctx context.Context, s *steps) time.Duration {
	var all sync.WaitGroup
	for node := range e.cluster.Nodes {
		all.Go(func() { e.electedAt(ctx, node, s) })
	}
	all.Wait()
	return time.Since(s.began)
}

func (e *env) electedAt(ctx context.Context, node int, s *steps) {
	answers := func(subject string, request any) {
		_ = rig.Until(ctx, e.Patience, subject, func(ctx context.Context) error {
			// Who is asked while there is no leader never answers.
			once, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			var answer struct{}
			err := e.cluster.APIAt(once, node, subject, request, &answer)
			if api, ok := errors.AsType[*rig.APIError](err); ok && api.Code == streamNotFound {
				return nil // lost, as some configurations may lose it
			}
			return err
		})
		s.done(fmt.Sprintf("n%d %s", node, subject))
	}
	answers("INFO", nil)
	for _, stream := range e.streams() {
		answers("STREAM.MSG.GET."+stream, map[string]string{"last_by_subj": ">"})
	}
	for _, name := range []string{reactorName, gatewayName, accountsView, totalsView} {
		answers("CONSUMER.INFO."+storeName+"."+name, nil)
	}
}

// streamNotFound is JetStream's code of a stream that is not there.
const streamNotFound = 10059

// steps are those of a recovery.
type steps struct {
	began time.Time

	mu   sync.Mutex
	made map[string]time.Duration
}

// done notes a step, when it is made for the first time.
func (s *steps) done(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.made[name]; !ok {
		s.made[name] = time.Since(s.began)
	}
}

// streams are those that a payment needs.
func (e *env) streams() []string {
	return []string{
		storeName, "KV_" + storeName + "__followers", "KV_" + storeName + "__deliveries",
		"KV_" + storeName + "_" + accountsView, "KV_" + storeName + "_" + totalsView,
	}
}

// recovered measures how long it takes until a payment goes all the way: by the
// wire, to the reactor, both views and the gateway.
func (e *env) recovered(ctx context.Context, s *steps) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Patience)
	defer cancel()
	e.probes++
	account := fmt.Sprintf("probe-%d", e.probes)
	rng := rand.New(rand.NewPCG(0, 0))
	for _, id := range []string{account, account + "-to"} {
		o := check.Op{Account: id, Kind: check.Open, Amount: 10, Tag: e.tag("probe")}
		if err := e.persist(ctx, rng, o, ""); err != nil {
			return time.Since(s.began), err
		}
		s.done("first command")
	}
	o := check.Op{Account: account, Kind: check.Withdraw, Amount: 1, Tag: e.tag("probe")}
	if err := e.persist(ctx, rng, o, account+"-to"); err != nil {
		return time.Since(s.began), err
	}
	s.done("commands")
	err := rig.Until(ctx, e.Patience, "the payment did not arrive", func(ctx context.Context) error {
		var errs []error
		for _, follower := range []string{reactorName, gatewayName} {
			if e.receiver.has(follower, account+"-to", 2) {
				s.done(follower)
			} else {
				errs = append(errs, fmt.Errorf("%s has not handled it", follower))
			}
		}
		v, err := e.reader.Get(ctx, account+"-to")
		switch {
		case err != nil:
			errs = append(errs, err)
		case v.Value.Events < 2:
			errs = append(errs, errors.New("the view does not show it"))
		default:
			s.done(accountsView)
		}
		return errors.Join(errs...)
	})
	return time.Since(s.began), err
}

// persist repeats an operation over the wire until it is done.
func (e *env) persist(ctx context.Context, rng *rand.Rand, o check.Op, to string) error {
	o.Path, o.ID = pathWire, jetstream.NewCommandID()
	for {
		done := e.execute(ctx, rng, o, to)
		if done.Outcome == check.OK {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s: %s", o.Kind, o.Account, done.Error)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// caughtUp waits until the followers and views have seen everything.
func (e *env) caughtUp(ctx context.Context) error {
	store := e.stores[pathB]
	return rig.Until(ctx, e.Patience, "followers do not catch up", func(ctx context.Context) error {
		head, err := store.LastPosition(ctx)
		if err != nil {
			return err
		}
		seq, err := store.Sequence(head)
		if err != nil {
			return err
		}
		for _, name := range []string{reactorName, gatewayName} {
			if err := e.follows(ctx, store, name, seq); err != nil {
				return err
			}
		}
		for _, view := range []string{accountsView, totalsView} {
			s, err := projection.ReadStatus(ctx, e.conns[1], storeName, view)
			if err != nil {
				return err
			}
			if at, err := store.Sequence(s.Position); err != nil || at < seq {
				return fmt.Errorf("view %s is %s at %d of %d: %s", view, s.State, at, seq, s.Error)
			}
		}
		again, err := store.LastPosition(ctx)
		if err == nil && again != head {
			err = errors.New("the store still grows")
		}
		return err
	})
}
