package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// hotChain is by how much fewer commits the raw side makes: one writer that waits
// for each would take minutes for as many.
const hotChain = 32

// hotAggregate lets many clients command one aggregate, against one writer that
// appends to one subject, each time expecting what it wrote before: what one
// aggregate can do without grouping.
func hotAggregate(clients int) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		repo, raw, err := e.commandSide(ctx, 0, 1)
		if err != nil {
			return nil, err
		}
		done := 0
		p := e.plan(24, 20*clients)
		p.ops = max(p.ops, 2*clients, 2*hotChain)
		r, err := measure(ctx, e, p,
			contender{"ours", func(ctx context.Context, n int) (time.Duration, error) {
				done += n
				d, _, err := hot(ctx, repo, clients, n, false)
				return d, err
			}},
			contender{"raw", func(ctx context.Context, n int) (time.Duration, error) {
				d, err := timed(func(ctx context.Context) error { return raw.publish(ctx, 0) })(ctx, n/hotChain)
				return d * time.Duration(n) / time.Duration(n/hotChain), err
			}})
		if err != nil {
			return nil, err
		}
		r.rate = true
		if e.only == "" {
			for _, c := range []int{1, 16, clients} {
				for _, ids := range []bool{false, true} {
					if err := noteHot(ctx, r, e, repo, c, ids, &done); err != nil {
						return nil, err
					}
				}
			}
		}
		return r, checkHot(ctx, repo, done+1)
	}
}

// hot executes n commands on one aggregate by so many clients, and returns how
// long each waited.
func hot(
	ctx context.Context, repo *aggregate.Repository[state], clients, n int, ids bool,
) (time.Duration, []float64, error) {
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	errs := make([]error, clients)
	waits := make([]float64, n)
	begin := time.Now()
	for c := range clients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				asked := time.Now()
				var opts []aggregate.CallOption
				if ids {
					opts = append(opts, aggregate.CommandID(jetstream.NewCommandID()))
				}
				if _, err := repo.Execute(ctx, aggregateID(0), someCredit, opts...); err != nil {
					errs[c] = err
					return
				}
				waits[i] = float64(time.Since(asked).Nanoseconds())
			}
		})
	}
	wg.Wait()
	return time.Since(begin), waits, errors.Join(errs...)
}

// noteHot notes the rate of so many clients, how long they wait, and how many
// commands were stored together.
func noteHot(
	ctx context.Context, r *result, e *env, repo *aggregate.Repository[state], clients int, ids bool, done *int,
) error {
	n := e.scaled(100*clients + 900)
	before := repo.Stats()
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	d, waits, err := hot(ctx, repo, clients, n, ids)
	runtime.ReadMemStats(&end)
	if err != nil {
		return err
	}
	*done += n
	s := repo.Stats()
	with := ""
	if ids {
		with = " with command ids"
	}
	r.notef("%d clients%s: %.0f commands/s, %.1f a commit; "+
		"waited p50 %.1f ms, p99 %.1f ms, most %.1f ms; %.0f allocs each",
		clients, with, float64(n)/d.Seconds(), float64(s.Decisions-before.Decisions)/float64(s.Commits-before.Commits),
		median(waits)/1e6, quantile(waits, 0.99)/1e6, quantile(waits, 1)/1e6, float64(end.Mallocs-start.Mallocs)/float64(n))
	return nil
}

// checkHot wants every command to have happened once.
func checkHot(ctx context.Context, repo *aggregate.Repository[state], credits int) error {
	snap, err := repo.Load(ctx, aggregateID(0))
	if err != nil {
		return err
	}
	want := 1000 + int64(credits)*someCredit.Cents
	if snap.State.Cents != want || snap.Version != uint64(credits)+1 { //nolint:gosec // a count
		return fmt.Errorf("%d cents at version %d after %d credits, want %d", snap.State.Cents, snap.Version, credits, want)
	}
	return nil
}

// spread is 64 clients that command many aggregates, in turn or a few of them most
// of the time. The raw side loads and publishes as executeUncached's does, or only
// publishes; it gives each aggregate to one writer, since it could not share one.
func spread(zipf bool) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		aggregates := e.scaled(100_000)
		repo, err := e.repository(0)
		if err != nil {
			return nil, err
		}
		err = parallel(ctx, aggregates, func(ctx context.Context, _, i int) error {
			_, err := repo.Create(ctx, aggregateID(i), someOpen)
			return err
		})
		if err != nil {
			return nil, err
		}
		if _, err := repo.Execute(ctx, aggregateID(0), someCredit); err != nil {
			return nil, err
		}
		msg, err := e.capture(aggregateID(0))
		if err != nil {
			return nil, err
		}
		raw := e.rawWriter(msg, aggregates)
		if err := parallel(ctx, aggregates, func(ctx context.Context, _, i int) error {
			return raw.publish(ctx, i)
		}); err != nil {
			return nil, err
		}
		pick := inTurn(aggregates)
		if zipf {
			pick = byZipf(aggregates)
		}
		before := repo.Stats()
		p := e.plan(40, spreadClients*60)
		p.ops = max(p.ops, 2*spreadClients)
		r, err := measure(ctx, e, p,
			contender{"ours", func(ctx context.Context, n int) (time.Duration, error) {
				order := pick(n)
				begin := time.Now()
				err := parallel(ctx, n, func(ctx context.Context, _, i int) error {
					_, err := repo.Execute(ctx, aggregateID(order[i]), someCredit)
					return err
				})
				return time.Since(begin), err
			}},
			contender{"raw", func(ctx context.Context, n int) (time.Duration, error) {
				shares := make([][]int, spreadClients)
				for _, i := range pick(n) {
					shares[i%spreadClients] = append(shares[i%spreadClients], i)
				}
				begin := time.Now()
				err := parallel(ctx, spreadClients, func(ctx context.Context, _, share int) error {
					for _, i := range shares[share] {
						if !zipf { // ours has to load, too
							if _, err := directGet(e.rawNC, rawName, raw.messages[i].Subject); err != nil {
								return err
							}
						}
						if err := raw.publish(ctx, i); err != nil {
							return err
						}
					}
					return nil
				})
				return time.Since(begin), err
			}})
		if err != nil {
			return nil, err
		}
		s := repo.Stats()
		hits, misses := s.CacheHits-before.CacheHits, s.CacheMisses-before.CacheMisses
		r.notef("%d aggregates; cache: %d entries, %.1f MB, %.0f %% hits; %.2f decisions a commit, %d conflicts",
			aggregates, s.CacheEntries, float64(s.CacheBytes)/1e6, 100*float64(hits)/float64(max(1, hits+misses)),
			float64(s.Decisions-before.Decisions)/float64(max(1, s.Commits-before.Commits)), s.Conflicts-before.Conflicts)
		return r, nil
	}
}

// spreadClients is the number of clients of spread.
const spreadClients = 64

// parallel does n operations by them.
func parallel(ctx context.Context, n int, op func(ctx context.Context, client, i int) error) error {
	var (
		wg   sync.WaitGroup
		next atomic.Int64
	)
	errs := make([]error, spreadClients)
	for c := range spreadClients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[c] == nil; i = int(next.Add(1)) - 1 {
				errs[c] = op(ctx, c, i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// inTurn picks one aggregate after the other.
func inTurn(aggregates int) func(n int) []int {
	last := 0
	return func(n int) []int {
		out := make([]int, n)
		for i := range out {
			last = (last + 1) % aggregates
			out[i] = last
		}
		return out
	}
}

// byZipf picks few aggregates often and most of them rarely.
func byZipf(aggregates int) func(n int) []int {
	const exponent = 1.1
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), exponent, 1, uint64(aggregates-1)) //nolint:gosec // for a benchmark
	return func(n int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = int(z.Uint64()) //nolint:gosec // below aggregates
		}
		return out
	}
}
