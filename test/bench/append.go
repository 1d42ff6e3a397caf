package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// writers is the number of aggregates that sequential rows write to in turn.
const writers = 256

// writer appends with Store.Append what a repository would.
type writer struct {
	store  *jetstream.Store
	state  *jetstream.State
	events int
	ids    []string
	heads  []jetstream.Head
}

// newWriter takes the state from a commit that a repository has written. That
// aggregate stands after those that the writer uses.
func (e *env) newWriter(ctx context.Context, aggregates, events int) (*writer, error) {
	id := aggregateID(aggregates)
	repo, err := e.repository(0)
	if err != nil {
		return nil, err
	}
	if _, err := repo.Create(ctx, id, someOpen); err != nil {
		return nil, err
	}
	if _, err := repo.Execute(ctx, id, someCredit); err != nil {
		return nil, err
	}
	commit, err := e.store.Last(ctx, accountEvents.Type(), id, jetstream.Leader)
	if err != nil {
		return nil, err
	}
	if commit.State == nil {
		return nil, fmt.Errorf("%s: no state in its commit", id)
	}
	w := &writer{store: e.store, state: commit.State, events: events, heads: make([]jetstream.Head, aggregates)}
	for i := range aggregates {
		w.ids = append(w.ids, aggregateID(i))
	}
	return w, nil
}

// append encodes the events and appends them to the i-th aggregate.
func (w *writer) append(ctx context.Context, i int) error {
	d := jetstream.Decision{Time: jetstream.MicroTime(time.Now()), Events: make([]jetstream.EventData, w.events)}
	for n := range d.Events {
		var err error
		if d.Events[n], err = accountEvents.Encode(credited(someCredit), w.store.Codec()); err != nil {
			return err
		}
	}
	head, err := w.store.Append(ctx, jetstream.Write{
		Type: accountEvents.Type(), ID: w.ids[i], After: w.heads[i], Decisions: []jetstream.Decision{d}, State: w.state,
	})
	if err != nil {
		return err
	}
	w.heads[i] = head
	return nil
}

func (e *env) repository(cache int) (*aggregate.Repository[state], error) {
	return aggregate.NewRepository(e.store, accountType, aggregate.RepositoryConfig{CacheBytes: cache})
}

// turns counts through n aggregates.
func turns(n int, op func(ctx context.Context, i int) error) func(context.Context) error {
	i := -1
	return func(ctx context.Context) error {
		i = (i + 1) % n
		return op(ctx, i)
	}
}

func appendRow(events int) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		w, raw, err := e.bothWriters(ctx, writers, events)
		if err != nil {
			return nil, err
		}
		return measure(ctx, e, e.plan(80, 200),
			contender{"ours", timed(turns(writers, w.append))}, contender{"raw", timed(turns(writers, raw.publish))})
	}
}

func (e *env) bothWriters(ctx context.Context, aggregates, events int) (*writer, *rawWriter, error) {
	w, err := e.newWriter(ctx, aggregates, events)
	if err != nil {
		return nil, nil, err
	}
	// The second commit has all headers a commit usually has.
	for range 2 {
		if err := w.append(ctx, 0); err != nil {
			return nil, nil, err
		}
	}
	msg, err := e.capture(w.ids[0])
	if err != nil {
		return nil, nil, err
	}
	return w, e.rawWriter(msg, aggregates), nil
}

func append64(ctx context.Context, e *env) (*result, error) {
	const parallel, each = 64, 8
	w, raw, err := e.bothWriters(ctx, parallel*each, 1)
	if err != nil {
		return nil, err
	}
	// Each writer has aggregates of its own, which it writes to in turn.
	slice := func(op func(context.Context, int) error) func(context.Context, int) (time.Duration, error) {
		return func(ctx context.Context, n int) (time.Duration, error) {
			var wg sync.WaitGroup
			errs := make(chan error, parallel)
			begin := time.Now()
			for p := range parallel {
				wg.Go(func() {
					for k := p; k < n; k += parallel {
						if err := op(ctx, p*each+k/parallel%each); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			wg.Wait()
			d := time.Since(begin)
			select {
			case err := <-errs:
				return 0, err
			default:
				return d, nil
			}
		}
	}
	p := e.plan(80, 64*40)
	p.ops = max(p.ops, 64*2)
	return measure(ctx, e, p, contender{"ours", slice(w.append)}, contender{"raw", slice(raw.publish)})
}
