package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/test/torture/check"
)

// The workloads.
const (
	registers = "registers" // commands and loads on accounts, checked for linearizability
	bank      = "bank"      // payments that a reactor carries out, deadlines, unique names
	set       = "set"       // appends and transactions without a load
	// repeats are commands over the wire whose replies are waited for: for defects that
	// show when many of them are lost. It is no part of the matrix.
	repeats = "repeats"
)

func workloadNames() []string { return []string{registers, bank, set} }

const (
	// A client rests for so long between two operations.
	restMin, restDefault = 4 * time.Millisecond, 28 * time.Millisecond
	// round is how long a set of register accounts is used: short histories are
	// checked quickly, and every round makes accounts.
	round         = 3 * time.Second
	perRound      = 5
	bankAccounts  = 10
	bankOpening   = 1000_00
	elementIDs    = 4
	purses        = 6
	registerCount = 5
	// claimFor is how long one name is wanted.
	claimFor   = 400 * time.Millisecond
	bankCount  = 2
	claimCount = 2
	setCount   = 2
	// repeatCount is many, because most of them wait.
	repeatCount = 12
	// repeatAccounts are few: others commit before a command comes again.
	repeatAccounts = 4
)

// load runs a workload's clients until ctx ends. Operations under way are ended
// with it, or soon after.
func (w *writers) load(ctx context.Context, workload string, seed uint64, rest time.Duration, run func(func() error)) {
	client := func(n int, f func(ctx context.Context, rng *rand.Rand, client int)) {
		for i := range n {
			rng := rand.New(rand.NewPCG(seed, uint64(len(workload)*1000+i)))
			run(func() error {
				for ctx.Err() == nil {
					f(ctx, rng, i)
					pause(ctx, restMin+time.Duration(rng.IntN(int((rest-restMin).Milliseconds())))*time.Millisecond)
				}
				return nil
			})
		}
	}
	switch workload {
	case registers:
		client(registerCount, w.register)
	case bank:
		client(bankCount, w.send)
		client(claimCount, w.claim)
	case set:
		client(setCount, w.add)
		client(setCount, w.move)
	case repeats:
		client(repeatCount, w.repeat)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// register is one operation on a register account. Operations are not cut short by
// the end of the load.
func (w *writers) register(ctx context.Context, rng *rand.Rand, client int) {
	ctx = context.WithoutCancel(ctx)
	o := check.Op{
		Client:  client,
		Account: fmt.Sprintf("r%d-%d", time.Since(w.began)/round, rng.IntN(perRound)),
		Path:    []string{pathA, pathB, pathWire}[rng.IntN(3)],
		Amount:  int64(2 + rng.IntN(60)),
		Exact:   rng.IntN(2) == 0,
	}
	switch n := rng.IntN(100); {
	case n < 20:
		o.Kind, o.Amount = check.Read, 0
		w.op(w.read(ctx, o))
		return
	case n < 42:
		o.Kind = check.Open
	case n < 62:
		o.Kind = check.Deposit
	case n < 70:
		o.Kind = check.Twice
	case n < 95:
		o.Kind = check.Withdraw
	default:
		o.Kind, o.Amount = check.Touch, 0
	}
	switch rng.IntN(3) {
	case 0:
		o.ID = jetstream.NewCommandID()
	case 1:
		o.ID = w.tag("key")
	}
	if o.Kind != check.Open && rng.IntN(10) == 0 {
		w.mu.Lock()
		if v, ok := w.versions[o.Account]; ok {
			o.Expect = &v
		}
		w.mu.Unlock()
	}
	o.Tag = w.tag("op")
	o = w.execute(ctx, rng, o, "")
	w.op(o)
	if o.Outcome == check.OK && rng.IntN(3) == 0 {
		// At once, by somebody else.
		other := pathB
		if o.Path == pathB {
			other = pathA
		}
		w.op(w.read(ctx, check.Op{Client: client, Account: o.Account, Kind: check.Read, Path: other}))
	}
	if o.Outcome == check.OK && times(o.Kind) > 0 && w.reader != nil && rng.IntN(8) == 0 {
		w.look(ctx, &o)
	}
}

// repeat is one command with an id, of either kind, which the client sends again when
// no reply comes.
func (w *writers) repeat(ctx context.Context, rng *rand.Rand, client int) {
	o := check.Op{
		Client: client, Account: fmt.Sprintf("c-%d", rng.IntN(repeatAccounts)), Kind: check.Deposit, Amount: 1,
		Tag: w.tag("repeat"), Path: pathWire, ID: jetstream.NewCommandID(),
	}
	if rng.IntN(2) == 0 {
		o.ID = w.tag("key")
	}
	w.mu.Lock()
	opened := w.versions[o.Account] > 0
	w.mu.Unlock()
	if !opened {
		o.Kind = check.Open
	}
	w.execute(context.WithoutCancel(ctx), rng, o, "")
}

// openBank opens the accounts of the bank.
func (w *writers) openBank(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range bankAccounts {
		o := w.execute(ctx, rng, check.Op{
			Account: bankAccount(i), Kind: check.Open, Amount: bankOpening, Tag: w.tag("bank"), Path: pathA,
			ID: jetstream.NewCommandID(),
		}, "")
		if o.Outcome != check.OK {
			return fmt.Errorf("open %s: %s", o.Account, o.Error)
		}
	}
	return nil
}

func bankAccount(i int) string { return "bank-" + strconv.Itoa(i) }

// send is a payment from one account of the bank to another, or to nobody.
func (w *writers) send(ctx context.Context, rng *rand.Rand, client int) {
	to := bankAccount(rng.IntN(bankAccounts))
	if rng.IntN(10) == 0 {
		to = "nobody"
	}
	o := check.Op{
		Client: client, Account: bankAccount(rng.IntN(bankAccounts)), Kind: check.Withdraw,
		Amount: int64(1 + rng.IntN(30_00)), Tag: w.tag("pay"), Path: []string{pathA, pathB, pathWire}[rng.IntN(3)],
	}
	if rng.IntN(4) > 0 {
		o.ID = jetstream.NewCommandID()
	}
	w.execute(context.WithoutCancel(ctx), rng, o, to)
}

// claim tries to get a name that others want at the same time.
func (w *writers) claim(ctx context.Context, rng *rand.Rand, client int) {
	o := check.Op{
		Client: client, Account: bankAccount(rng.IntN(bankAccounts)), Kind: check.Claim, Tag: w.tag("claim"),
		Path: []string{pathA, pathB, pathWire}[rng.IntN(3)], Exact: rng.IntN(2) == 0,
	}
	if rng.IntN(3) > 0 {
		o.ID = jetstream.NewCommandID()
	}
	w.execute(context.WithoutCancel(ctx), rng, o, fmt.Sprintf("name-%d", time.Since(w.began)/claimFor))
	pause(ctx, claimFor/8)
}

// add appends an element to the set.
func (w *writers) add(ctx context.Context, rng *rand.Rand, _ int) {
	tag := w.tag("element")
	write, err := w.write(elementEvents, "e"+strconv.Itoa(rng.IntN(elementIDs)), added{Tag: tag})
	w.append(ctx, rng, tag, 1, err, write)
}

// move is a transaction: two purses change, or none.
func (w *writers) move(ctx context.Context, rng *rand.Rand, _ int) {
	tag := w.tag("move")
	from := rng.IntN(purses)
	to := (from + 1 + rng.IntN(purses-1)) % purses
	cents := int64(1 + rng.IntN(100))
	a, err := w.write(purseEvents, "p"+strconv.Itoa(from), added{tag, -cents})
	b, err2 := w.write(purseEvents, "p"+strconv.Itoa(to), added{tag, cents})
	w.append(ctx, rng, tag, 2, errors.Join(err, err2), a, b)
}

func (w *writers) write(schema *jetstream.Schema, id string, event any) (jetstream.Write, error) {
	data, err := schema.Encode(event, w.stores[pathA].Codec())
	return jetstream.Write{
		Type: schema.Type(), ID: id, Expect: jetstream.Any(),
		Decisions: []jetstream.Decision{{Time: jetstream.MicroTime(time.Now()), Events: []jetstream.EventData{data}}},
	}, err
}

// append appends, and settles or abandons what stayed unknown.
func (w *writers) append(
	ctx context.Context, rng *rand.Rand, tag string, times int, err error, writes ...jetstream.Write,
) {
	if err != nil {
		w.alarm(err.Error())
		return
	}
	ctx = context.WithoutCancel(ctx)
	store := w.stores[[]string{pathA, pathB}[rng.IntN(2)]]
	once, cancel := context.WithTimeout(ctx, attemptFor)
	heads, err := store.AppendAll(once, writes...)
	cancel()
	if unknown, ok := errors.AsType[*jetstream.UnknownError](err); ok {
		again, cancel := context.WithTimeout(ctx, patience)
		if rng.IntN(2) == 0 {
			heads, err = store.Settle(again, unknown)
		} else {
			heads, err = store.Abandon(again, unknown)
		}
		cancel()
	}
	if alarming(err) {
		w.alarm("append: " + err.Error())
	}
	e := check.Element{Tag: tag, Times: times}
	_, conflict := errors.AsType[*jetstream.ConflictError](err)
	switch {
	case err == nil:
		e.Outcome, e.Sequence = check.OK, heads[0].Sequence
	case conflict:
		e.Outcome = check.Conflict
	default:
		e.Outcome = outcomeOf(err)
	}
	w.element(e)
}
