package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
)

// A state that is too large for the commits stands in a bucket.
const (
	stateBytes   = 16 << 10
	stateCommits = 24
	stateBucket  = storeName + "__state"
	// neverKept reads the bucket and does not write to it.
	neverKept = 1 << 30
)

func (e *env) statesRepository(every int) (*aggregate.Repository[state], error) {
	return aggregate.NewRepository(e.store, accountType, aggregate.RepositoryConfig{CacheBytes: 1, StateEvery: every})
}

// grow gives the i-th aggregate a large state and so many commits.
func grow(ctx context.Context, repo *aggregate.Repository[state], i, commits int) error {
	id := aggregateID(i)
	if _, err := repo.Create(ctx, id, openAccount{Owner: strings.Repeat("x", stateBytes)}); err != nil {
		return err
	}
	return credits(ctx, repo, i, commits-1)
}

func credits(ctx context.Context, repo *aggregate.Repository[state], i, commits int) error {
	for range commits {
		if _, err := repo.Execute(ctx, aggregateID(i), someCredit); err != nil {
			return err
		}
	}
	return nil
}

// largeState loads aggregates whose states stand in the bucket, that of the last
// commit each.
func largeState(ctx context.Context, e *env) (*result, error) {
	aggregates := e.scaled(1000)
	writer, err := e.statesRepository(1)
	if err != nil {
		return nil, err
	}
	for i := range aggregates {
		if err := grow(ctx, writer, i, stateCommits); err != nil {
			return nil, err
		}
	}
	subjects := e.subjects(storeName, aggregates)
	states := make([]string, aggregates)
	for i := range states {
		states[i] = fmt.Sprintf("$KV.%s.%s.%s.%s", stateBucket, accountType.Name(), accountType.Fingerprint(), aggregateID(i))
		if err := e.kept(ctx, states[i], stateCommits); err != nil {
			return nil, err
		}
	}
	reader, err := e.statesRepository(neverKept)
	if err != nil {
		return nil, err
	}
	order := rand.Perm(aggregates)
	load := func(repo *aggregate.Repository[state], version uint64) func(context.Context, int) error {
		return func(ctx context.Context, i int) error {
			snap, err := repo.Load(ctx, aggregateID(order[i]), aggregate.Follower())
			if err == nil && (snap.Version != version || len(snap.State.Owner) != stateBytes) {
				err = fmt.Errorf("%s is at version %d with %d bytes", snap.ID, snap.Version, len(snap.State.Owner))
			}
			return err
		}
	}
	r, err := measure(ctx, e, e.plan(80, 200),
		contender{"ours", timed(turns(aggregates, load(reader, stateCommits)))},
		contender{"raw", timed(turns(aggregates, func(_ context.Context, i int) error {
			_, err1 := directGet(e.rawNC, storeName, subjects[order[i]])
			_, err2 := directGet(e.rawNC, "KV_"+stateBucket, states[order[i]])
			return errors.Join(err1, err2)
		}))})
	if err != nil || e.only != "" {
		return r, err
	}
	r.notef("raw is two nc.Requests on $JS.API.DIRECT.GET, of the last commit and of the state")

	// Half of what a state lags behind, and the most.
	silent, err := e.statesRepository(-1)
	if err != nil {
		return nil, err
	}
	const half, most = aggregate.StateEveryDefault / 2, aggregate.StateEveryDefault - 1
	behind := 0
	for _, lag := range []int{half, most} {
		for i := range aggregates {
			if err := credits(ctx, silent, i, lag-behind); err != nil {
				return nil, err
			}
		}
		behind = lag
		what := fmt.Sprintf("with %d commits after the state", lag)
		//nolint:gosec // small
		if err := noteLoads(ctx, r, what, aggregates, load(reader, uint64(stateCommits+lag))); err != nil {
			return nil, err
		}
	}
	return r, e.replays(ctx, r, silent, aggregates)
}

// kept waits for a state to stand in the bucket that follows the commit.
func (e *env) kept(ctx context.Context, subject string, ordinal int) error {
	for tick := time.NewTicker(time.Millisecond); ; {
		msg, err := e.rawNC.Request("$JS.API.DIRECT.GET.KV_"+stateBucket+"."+subject, nil, time.Minute)
		if err != nil && !errors.Is(err, nats.ErrNoResponders) {
			return err
		}
		if err == nil {
			if f := strings.Fields(msg.Header.Get("Rossby-Follows")); len(f) == 4 && f[2] == strconv.Itoa(ordinal) {
				tick.Stop()
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: no state of commit %d: %w", subject, ordinal, ctx.Err())
		case <-tick.C:
		}
	}
}

// replays notes what loads cost without the bucket.
func (e *env) replays(ctx context.Context, r *result, repo *aggregate.Repository[state], first int) error {
	for _, commits := range []int{10, 100, 1000} {
		if e.short && commits > 100 {
			break
		}
		// Two in turn, so that neither is in the cache.
		for i := range 2 {
			if err := grow(ctx, repo, first+i, commits); err != nil {
				return err
			}
		}
		begin, version := first, uint64(commits) //nolint:gosec // small
		first += 2
		err := noteLoads(ctx, r, fmt.Sprintf("without the bucket, %d commits applied", commits), 2,
			func(ctx context.Context, i int) error {
				snap, err := repo.Load(ctx, aggregateID(begin+i), aggregate.Follower())
				if err == nil && snap.Version != version {
					err = fmt.Errorf("%s is at version %d", snap.ID, snap.Version)
				}
				return err
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// noteLoads notes the median of a hundred loads or so.
func noteLoads(
	ctx context.Context, r *result, what string, aggregates int, load func(context.Context, int) error,
) error {
	var costs []float64
	for i := range 100 {
		begin := time.Now()
		if err := load(ctx, i%aggregates); err != nil {
			return err
		}
		costs = append(costs, float64(time.Since(begin).Nanoseconds()))
	}
	r.notef("%s: p50 %s, p99 %s", what, r.figure(median(costs)), r.figure(quantile(costs, 0.99)))
	return nil
}
