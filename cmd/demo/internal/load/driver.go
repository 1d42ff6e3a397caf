package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/jetstream"
)

const (
	// pollEvery is the time between questions for states, pollMost how many
	// transfers one is about: the oldest.
	pollEvery = 10 * time.Millisecond
	pollMost  = 64
	// checkFor is how long the money of transfers that timed out may take back.
	checkFor = 30 * time.Second
)

// driver is one run.
type driver struct {
	cfg      Config
	bank     bank
	accounts []string

	mu       sync.Mutex
	pending  []*made // oldest first
	moved    time.Time
	accepted int
	retries  int
	lastErr  error
	done     bool
	states   map[transfer.State]int
	// expected is what each account must hold when all has ended.
	expected map[string]int64

	accepts, ends []time.Duration
	begin, last   time.Time
	acceptedAt    time.Time
}

// made is a transfer that was accepted.
type made struct {
	order

	id    string
	begin time.Time
}

func newDriver(cfg Config, b bank) *driver {
	return &driver{cfg: cfg, bank: b, states: map[transfer.State]int{}, expected: map[string]int64{}}
}

func (d *driver) run(ctx context.Context) error {
	if err := d.openAccounts(ctx); err != nil {
		return fmt.Errorf("open accounts: %w", err)
	}
	d.begin = time.Now()
	d.moved = d.begin
	g, gctx := errgroup.WithContext(ctx)
	over := make(chan struct{})
	g.Go(func() error { return d.drive(gctx) })
	g.Go(func() error {
		defer close(over)
		return d.follow(gctx)
	})
	var printer sync.WaitGroup
	printer.Go(func() { d.progress(over) })
	err := g.Wait()
	printer.Wait()
	if err != nil {
		return err
	}
	d.report()
	return d.check(ctx)
}

// openAccounts opens them, a few at a time.
func (d *driver) openAccounts(ctx context.Context) error {
	d.accounts = make([]string, d.cfg.Accounts)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.cfg.Clients)
	for i := range d.accounts {
		key, title := jetstream.NewCommandID(), fmt.Sprintf("load %d", i+1)
		g.Go(func() (err error) {
			d.accounts[i], err = persist(ctx, d.cfg.Patience, d.retried, func(ctx context.Context) (string, error) {
				return d.bank.open(ctx, key, title, d.cfg.InitialCents)
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, id := range d.accounts {
		d.expected[id] = d.cfg.InitialCents
	}
	return nil
}

// drive makes the transfers.
func (d *driver) drive(ctx context.Context) error {
	todo := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	for range d.cfg.Clients {
		g.Go(func() error {
			for range todo {
				if err := d.one(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(todo)
		for range d.cfg.Transfers {
			select {
			case todo <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	err := g.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
	d.acceptedAt = time.Now()
	return err
}

// one makes a transfer between two random accounts, now and then of more than
// there is.
func (d *driver) one(ctx context.Context) error {
	from, to := rand.IntN(len(d.accounts)), rand.IntN(len(d.accounts)-1)
	if to >= from {
		to++
	}
	o := order{
		FromAccountID: d.accounts[from], ToAccountID: d.accounts[to],
		Cents: 1 + rand.Int64N(d.cfg.InitialCents/10+1), Description: "load",
	}
	if rand.IntN(50) == 0 {
		o.Cents = d.cfg.InitialCents * int64(len(d.accounts))
	}
	m := &made{order: o, begin: time.Now()}
	key := jetstream.NewCommandID()
	var err error
	m.id, err = persist(ctx, d.cfg.Patience, d.retried, func(ctx context.Context) (string, error) {
		return d.bank.transfer(ctx, key, o)
	})
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accepted++
	d.accepts = append(d.accepts, time.Since(m.begin))
	d.pending = append(d.pending, m)
	d.moved = time.Now()
	return nil
}

// retried notes an attempt that failed.
func (d *driver) retried(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retries++
	d.lastErr = err
}

// follow waits until every transfer has ended.
func (d *driver) follow(ctx context.Context) error {
	for {
		ids, done := d.oldest()
		if done {
			return nil
		}
		if len(ids) > 0 {
			states, err := d.bank.states(ctx, ids)
			if err != nil && !errors.Is(err, errAgain) {
				return err
			}
			if err != nil && ctx.Err() == nil {
				d.retried(err)
			}
			d.end(states)
		}
		if err := d.stuck(); err != nil {
			return err
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// oldest are the transfers under way to ask for next, and whether there will be
// none any more.
func (d *driver) oldest() ([]string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldest := d.pending[:min(len(d.pending), pollMost)]
	ids := make([]string, 0, len(oldest))
	for _, m := range oldest {
		ids = append(ids, m.id)
	}
	return ids, d.done && len(ids) == 0
}

// end takes the transfers that have ended out of those under way.
func (d *driver) end(states map[string]transfer.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	kept := d.pending[:0]
	for _, m := range d.pending {
		s, ok := states[m.id]
		if !ok || !s.Final() {
			kept = append(kept, m)
			continue
		}
		d.states[s]++
		d.ends = append(d.ends, now.Sub(m.begin))
		if s == transfer.Completed {
			d.expected[m.FromAccountID] -= m.Cents
			d.expected[m.ToAccountID] += m.Cents
		}
		d.moved, d.last = now, now
	}
	clear(d.pending[len(kept):])
	d.pending = kept
}

// stuck says what is not moving for too long.
func (d *driver) stuck() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.moved) < d.cfg.Patience || len(d.pending) == 0 {
		return nil
	}
	return errors.Join(fmt.Errorf("%d transfers did not end, the first is %s; nothing happened for %v",
		len(d.pending), d.pending[0].id, d.cfg.Patience), d.lastErr)
}

// check compares every account with what its transfers left of it.
func (d *driver) check(ctx context.Context) error {
	until := time.Now()
	if d.states[transfer.FailedTimeout] > 0 {
		until = until.Add(checkFor)
	}
	for {
		sum, wrong, err := d.balances(ctx)
		if err != nil {
			return fmt.Errorf("read balances: %w", err)
		}
		deposited := d.cfg.InitialCents * int64(len(d.accounts))
		if len(wrong) > 0 && time.Now().Before(until) {
			if err := sleep(ctx, backoffMax); err != nil {
				return err
			}
			continue
		}
		b, err := persist(ctx, d.cfg.Patience, d.retried, d.bank.books)
		if err != nil {
			return fmt.Errorf("read the books: %w", err)
		}
		d.reportBooks(sum, deposited, len(wrong), b)
		if len(wrong) > 0 || sum != deposited || !b.holds {
			return errors.Join(append([]error{ErrInvariant}, wrong[:min(len(wrong), 10)]...)...)
		}
		return nil
	}
}

// balances reads every account as of now.
func (d *driver) balances(ctx context.Context) (sum int64, wrong []error, err error) {
	head, err := persist(ctx, d.cfg.Patience, d.retried, d.bank.head)
	if err != nil {
		return 0, nil, err
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.cfg.Clients)
	for _, id := range d.accounts {
		g.Go(func() error {
			cents, err := persist(ctx, d.cfg.Patience, d.retried, func(ctx context.Context) (int64, error) {
				return d.bank.balance(ctx, id, head)
			})
			mu.Lock()
			defer mu.Unlock()
			if want := d.expected[id]; err == nil && cents != want {
				wrong = append(wrong, fmt.Errorf("account %s has %d cents, its transfers leave %d", id, cents, want))
			}
			sum += cents
			return err
		})
	}
	return sum, wrong, g.Wait()
}
