package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// TestOutcomesUnderFireR1 and R3: 5,000 appends through a network that loses
// acknowledgements after the server stored, loses requests, and delivers requests
// after their time-out, on every attempt or on some, while connections break,
// leaders resign, and a quorum is lost and regained: each is stored at most once,
// and no outcome but unknown is ever contradicted. Under -short, as with the race
// detector, they are fewer.
func TestOutcomesUnderFireR1(t *testing.T) {
	t.Parallel()
	newFire(t, r1(t), size(5000), fireWriters, fireAttempt).run((*fire).append)
}

func TestOutcomesUnderFireR3(t *testing.T) {
	t.Parallel()
	newFire(t, r3(t), size(5000), fireWriters, fireAttempt).run((*fire).append)
}

// TestTransactionsUnderFireR1 and R3 are the same for transactions of two
// aggregates, some with a unique key that the aggregates of all writers want.
func TestTransactionsUnderFireR1(t *testing.T) {
	t.Parallel()
	newFire(t, r1(t), size(240), txWriters, fireTxAttempt).run((*fire).transact)
}

func TestTransactionsUnderFireR3(t *testing.T) {
	t.Parallel()
	newFire(t, r3(t), size(240), txWriters, fireTxAttempt).run((*fire).transact)
}

// size is how many of full are made.
func size(full int) int { return unlessShort(full, full/4) }

// unlessShort is full, or under -short the other one.
func unlessShort(full, short int) int {
	if testing.Short() {
		return short
	}
	return full
}

const (
	fireWriters = 64
	txWriters   = 16 // on one server, transactions wait for one another
	fireProxies = 8
	// The attempts are short, so that many run out on their own, too: on one server,
	// a transaction takes a hundred times what an append takes.
	fireAttempt   = 40 * time.Millisecond
	fireTxAttempt = 250 * time.Millisecond
)

// fire is a run of many writers.
type fire struct {
	t *testing.T
	e env
	// total commands are shared out evenly.
	total, writers int
	// attempt bounds each attempt of the writers.
	attempt time.Duration
	// sure is a store whose connection nobody disturbs.
	sure    *jetstream.Store
	proxies []*proxy
	stores  []*jetstream.Store

	begun, undecided atomic.Int64
	mu               sync.Mutex
	outcomes         map[string]outcome // by command id
	heads            map[string]jetstream.Head
}

// outcome is what a writer was told in the end.
type outcome struct {
	err error
	// sequences are those of the commits, when it was told that they are stored.
	sequences []uint64
}

func newFire(t *testing.T, e env, total, writers int, attempt time.Duration) *fire {
	t.Helper()
	f := &fire{
		t: t, e: e, total: total, writers: writers, attempt: attempt, sure: e.store(t, e.connect(t)),
		outcomes: make(map[string]outcome, total), heads: map[string]jetstream.Head{},
	}
	for i := range fireProxies {
		p := newProxy(t, e.backend)
		nc := natstest.Conn(t, p.url(), nats.IgnoreDiscoveredServers())
		f.stores = append(f.stores, open(t, nc, jetstream.Config{
			Name: f.sure.Name(), AttemptTimeout: attempt, AppendTimeout: 2 * time.Second,
		}))
		fates := f.fates(i)
		p.fate.Store(&fates)
		f.proxies = append(f.proxies, p)
	}
	return f
}

// fates are what the i-th proxy does to each attempt.
func (f *fire) fates(i int) func() fate {
	late := 3 * f.attempt / 2
	switch i {
	case 0: // every acknowledgement is lost
		return func() fate { return fate{mute: true} }
	case 1: // every request comes after its time-out
		return func() fate { return fate{delay: late} }
	case 2: // both
		return func() fate { return fate{mute: true, delay: late} }
	case 3: // nothing happens
		return func() fate { return fate{} }
	default: // now and then
		return func() fate {
			return fate{
				lose: rand.N(12) == 0, mute: rand.N(8) == 0,
				delay: []time.Duration{0, 0, 0, 0, 0, 0, f.attempt / 2, late, 3 * late}[rand.N(9)],
			}
		}
	}
}

// context is a writer's patience: some give up in the middle.
func (f *fire) context() (context.Context, context.CancelFunc) {
	switch rand.N(4) {
	case 0:
		return context.WithTimeout(f.t.Context(), rand.N(2*f.attempt))
	case 1:
		return context.WithTimeout(f.t.Context(), 3*time.Second)
	default:
		return context.WithCancel(f.t.Context()) // AppendTimeout
	}
}

// head is the aggregate's as somebody saw it last, perhaps not the newest.
func (f *fire) head(id string) jetstream.Head {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads[id]
}

func (f *fire) seen(id string, h jetstream.Head) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.Sequence > f.heads[id].Sequence {
		f.heads[id] = h
	}
}

// reload asks for the aggregate's head, as a writer does after a conflict.
func (f *fire) reload(ids ...string) {
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
		if last, err := f.sure.Last(ctx, "account", id, jetstream.Leader); err == nil {
			f.seen(id, last.Head)
		}
		cancel()
	}
}

// append is one append of a writer: to an aggregate of its own, or of all.
func (f *fire) append(s *jetstream.Store, writer int, command string) ([]string, []jetstream.Head, error) {
	ctx, cancel := f.context()
	defer cancel()
	id := fmt.Sprint("own", writer)
	if rand.N(2) == 0 {
		id = fmt.Sprint("shared", rand.N(4))
	}
	w := write(id, command, f.head(id))
	if rand.N(8) == 0 {
		w.After, w.Expect = jetstream.Head{}, jetstream.Any()
	}
	head, err := s.Append(ctx, w)
	return []string{id}, []jetstream.Head{head}, err
}

// transact is one transaction of a writer.
func (f *fire) transact(s *jetstream.Store, writer int, command string) ([]string, []jetstream.Head, error) {
	ctx, cancel := f.context()
	defer cancel()
	ids := []string{fmt.Sprint("own", writer), fmt.Sprint("shared", rand.N(32))}
	if rand.N(4) > 0 {
		f.reload(ids...)
	}
	writes := make([]jetstream.Write, 0, len(ids))
	for _, id := range ids {
		w := write(id, command, f.head(id))
		if rand.N(8) == 0 {
			w.After, w.Expect = jetstream.Head{}, jetstream.Any()
		}
		writes = append(writes, w)
	}
	switch rand.N(4) {
	case 0:
		writes[0].Reserve = []jetstream.Key{email(fmt.Sprint("wanted", rand.N(40)))}
	case 1:
		writes[0].Release = []jetstream.Key{email(fmt.Sprint("wanted", rand.N(40)))}
	}
	heads, err := s.AppendAll(ctx, writes...)
	return ids, heads, err
}

type fireOp func(f *fire, s *jetstream.Store, writer int, command string) ([]string, []jetstream.Head, error)

func (f *fire) run(op fireOp) {
	f.t.Helper()
	began := time.Now()
	var writers sync.WaitGroup
	for writer := range f.writers {
		s := f.stores[writer%fireProxies]
		writers.Go(func() {
			for n := writer; n < f.total; n += f.writers {
				f.begun.Add(1)
				f.one(op, s, writer, "c"+strconv.Itoa(n))
			}
		})
	}
	done := make(chan struct{})
	var trouble sync.WaitGroup
	trouble.Go(func() { f.trouble(done) })
	writers.Wait()
	close(done)
	trouble.Wait()
	for _, p := range f.proxies {
		natstest.Eventually(f.t, "what was held back", func() error {
			if n := p.held.Load(); n != 0 {
				return fmt.Errorf("%d appends are on their way", n)
			}
			return nil
		})
		p.heal()
	}
	f.check()
	f.t.Logf("%v", time.Since(began))
}

// one is one command, until its writer is told or gives up.
func (f *fire) one(op fireOp, s *jetstream.Store, writer int, command string) {
	ids, heads, err := op(f, s, writer, command)
	if u, ok := errors.AsType[*jetstream.UnknownError](err); ok {
		f.undecided.Add(1)
		ctx, cancel := context.WithTimeout(f.t.Context(), rand.N(5*time.Second))
		defer cancel()
		switch rand.N(4) {
		case 0:
			heads, err = s.Settle(ctx, u)
		case 1:
			heads, err = f.sure.Settle(ctx, u)
		case 2:
			heads, err = f.sure.Abandon(ctx, u)
		}
	}
	o := outcome{err: err}
	switch {
	case err == nil:
		for i, h := range heads {
			f.seen(ids[i], h)
			o.sequences = append(o.sequences, h.Sequence)
		}
	case is[*jetstream.ConflictError](err), errors.Is(err, jetstream.ErrUnknownOutcome):
		f.reload(ids...)
	case is[*jetstream.KeyTakenError](err):
	case errors.Is(err, jetstream.ErrUnavailable):
		f.undecided.Add(1)
	default:
		f.t.Errorf("%s: %T %v", command, err, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes[command] = o
}

// trouble breaks connections, makes leaders resign, and takes the quorum away
// once, for as long as it takes some writers to notice.
func (f *fire) trouble(done <-chan struct{}) {
	const steps = 16
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for step := int64(1); step < steps; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if f.begun.Load() < step*int64(f.total)/steps {
			continue
		}
		f.proxies[rand.N(fireProxies)].cut()
		switch {
		case f.e.cluster == nil:
		case step == steps/2:
			f.loseQuorum(done)
		default:
			f.e.stepDown(f.t, f.sure.Name())
		}
		step++
	}
}

func (f *fire) loseQuorum(done <-chan struct{}) {
	c := f.e.cluster
	before := f.undecided.Load()
	c.Stop(1)
	c.Stop(2)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for noticed := false; !noticed && f.undecided.Load() < before+int64(f.writers/2); {
		select {
		case <-done:
			noticed = true
		case <-tick.C:
		}
	}
	c.Restart(f.t, 1)
	c.Restart(f.t, 2)
	c.WaitReady(f.t)
}

// check compares what the writers were told with what is stored.
func (f *fire) check() {
	f.t.Helper()
	stored := map[string][]uint64{}
	for _, c := range scan(f.t, f.sure) {
		for _, d := range c.Decisions {
			if d.CommandID != "" {
				stored[d.CommandID] = append(stored[d.CommandID], c.Sequence)
			}
		}
	}
	checkTransactions(f.t, f.sure)
	kinds := map[string]int{}
	for command, o := range f.outcomes {
		got := stored[command]
		delete(stored, command)
		switch {
		case o.err == nil:
			kinds["stored"]++
			if fmt.Sprint(got) != fmt.Sprint(o.sequences) {
				f.t.Errorf("%s was acknowledged at %d, it stands at %d", command, o.sequences, got)
			}
		case errors.Is(o.err, jetstream.ErrUnknownOutcome):
			kinds["unknown"]++
			if len(got) > 2 || len(got) > 1 && got[1] != got[0]+1 {
				f.t.Errorf("%s stands at %d", command, got)
			}
		default:
			kinds[fmt.Sprintf("%T", o.err)]++
			if len(got) > 0 {
				f.t.Errorf("%s stands at %d: %v", command, got, o.err)
			}
		}
	}
	if len(stored) > 0 || len(f.outcomes) != f.total {
		f.t.Errorf("%d outcomes, nobody knows of %v", len(f.outcomes), stored)
	}
	for id := range f.heads {
		if _, err := history(f.t.Context(), f.sure, id, jetstream.Range{}); err != nil { // checks the chain
			f.t.Error(err)
		}
	}
	f.t.Logf("%v, %d were undecided for a time", kinds, f.undecided.Load())
	if kinds["stored"] == 0 || f.undecided.Load() == 0 {
		f.t.Errorf("%v of %d: that is no test", kinds, f.total)
	}
}
