package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// loadRow loads aggregates that are not in the repository's cache, which holds
// one, from a server that has read them before.
func loadRow(commits, aggregates int) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		commits, aggregates := e.scaled(commits), e.scaled(aggregates)
		begin := time.Now()
		if _, err := e.fill(ctx, commits, aggregates); err != nil {
			return nil, err
		}
		filled := time.Since(begin)
		repo, err := e.repository(1)
		if err != nil {
			return nil, err
		}
		subjects := e.subjects(storeName, aggregates)
		for _, s := range subjects { // warm the server
			if _, err := directGet(e.rawNC, storeName, s); err != nil {
				return nil, err
			}
		}
		stream, err := e.js.Stream(ctx, storeName)
		if err != nil {
			return nil, err
		}
		// Aggregates that stand together in no order are asked for, the same by all.
		order := rand.Perm(aggregates)
		pick := func(op func(ctx context.Context, i int) error) func(context.Context) error {
			return turns(aggregates, func(ctx context.Context, i int) error { return op(ctx, order[i]) })
		}
		r, err := measure(ctx, e, e.plan(80, 200),
			contender{"ours", timed(pick(func(ctx context.Context, i int) error {
				_, err := repo.Load(ctx, aggregateID(i), aggregate.Follower())
				return err
			}))},
			contender{"raw", timed(pick(func(_ context.Context, i int) error {
				_, err := directGet(e.rawNC, storeName, subjects[i])
				return err
			}))},
			contender{"GetLastMsgForSubject", timed(pick(func(ctx context.Context, i int) error {
				_, err := stream.GetLastMsgForSubject(ctx, subjects[i])
				return err
			}))},
			contender{"leader", timed(pick(func(ctx context.Context, i int) error {
				_, err := repo.Load(ctx, aggregateID(i))
				return err
			}))})
		if err != nil || e.only != "" {
			return r, err
		}
		r.notef("raw is nc.Request on $JS.API.DIRECT.GET; " +
			"GetLastMsgForSubject is nats.go's call; leader is Load without Follower()")
		r.notef("filled %d commits of %d aggregates in %.1f s", commits, aggregates, filled.Seconds())
		return r, e.coldLoads(ctx, r, aggregates)
	}
}

// coldLoads notes what the first loads cost after the server was started again,
// and what reading a history of 100 commits costs instead.
func (e *env) coldLoads(ctx context.Context, r *result, aggregates int) error {
	if err := e.stopServer(); err != nil {
		return err
	}
	begin := time.Now()
	if err := e.startServer(ctx); err != nil {
		return err
	}
	started := time.Since(begin)
	repo, err := e.repository(1)
	if err != nil {
		return err
	}
	var costs []float64
	for _, i := range rand.Perm(aggregates)[:min(aggregates, 200)] {
		begin := time.Now()
		if _, err := repo.Load(ctx, aggregateID(i), aggregate.Follower()); err != nil {
			return err
		}
		costs = append(costs, float64(time.Since(begin).Nanoseconds()))
	}
	r.notef("%d first loads after a restart of the server (%.1f s): p50 %s, p99 %s",
		len(costs), started.Seconds(), r.figure(median(costs)), r.figure(quantile(costs, 0.99)))
	return e.replay(ctx, r, aggregates+1)
}

// replay appends 100 commits to one aggregate among those of others, and reads
// its history.
func (e *env) replay(ctx context.Context, r *result, i int) error {
	w, err := e.newWriter(ctx, i+1, 1)
	if err != nil {
		return err
	}
	for range 100 {
		if err := w.append(ctx, i); err != nil {
			return err
		}
	}
	var costs []float64
	for range 9 {
		begin := time.Now()
		n := 0
		for _, err := range e.store.History(ctx, accountEvents.Type(), aggregateID(i), jetstream.Range{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 100 {
			return fmt.Errorf("a history of 100 commits has %d", n)
		}
		costs = append(costs, float64(time.Since(begin).Nanoseconds()))
	}
	r.notef("the history of an aggregate of 100 commits: %s", strings.TrimSpace(r.figure(median(costs))))
	return nil
}
