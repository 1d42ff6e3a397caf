package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// visibleWriters is how many aggregates are written to, each by one goroutine.
const visibleWriters = 64

// visible measures the time from the acknowledgement of an append until a reader
// sees it in the view: at rest, and while events come at several rates.
func visible(bound time.Duration) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		w, err := e.newWriter(ctx, visibleWriters, 1)
		if err != nil {
			return nil, err
		}
		updater, err := projection.NewUpdater(e.store, definition("visible"), projection.UpdaterConfig{
			OnStop: projection.ReturnWhenStopped,
		})
		if err != nil {
			return nil, err
		}
		uctx, stop := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- updater.Run(uctx) }()
		r, err := e.visibles(ctx, w, bound)
		stop()
		return r, errors.Join(err, <-ran)
	}
}

func (e *env) visibles(ctx context.Context, w *writer, bound time.Duration) (*result, error) {
	reader, err := projection.NewReader[accountView](ctx, e.nc, storeName, "visible",
		projection.ReaderConfig{OpenWait: time.Minute, Wait: time.Minute})
	if err != nil {
		return nil, err
	}
	see := func(ctx context.Context, i int) (float64, error) {
		if err := w.append(ctx, i); err != nil {
			return 0, err
		}
		begin := time.Now()
		_, err := reader.Get(ctx, w.ids[i], projection.AtLeast(w.position(i)))
		return float64(time.Since(begin).Microseconds()) / 1000, err
	}
	var rest []float64
	for n := range e.scaled(500) {
		took, err := see(ctx, n%visibleWriters)
		if err != nil {
			return nil, err
		}
		if n >= 10 {
			rest = append(rest, took)
		}
	}
	r := &result{ours: median(rest), raw: float64(bound.Microseconds()) / 1000, unit: "ms"}
	r.notef("at rest: p50 %.2f ms, p90 %.2f ms, p99 %.2f ms", median(rest), quantile(rest, 0.9), quantile(rest, 0.99))
	for _, rate := range []int{10, 1000, 10_000} {
		count := e.scaled(min(5*rate, 30_000))
		if e.short {
			count = min(count, rate) // no more than a second's
		}
		took, reached, err := paced(ctx, rate, count, see)
		if err != nil {
			return nil, err
		}
		r.notef("at %d events a second (%.0f were reached): p50 %.2f ms, p90 %.2f ms, p99 %.2f ms",
			rate, reached, median(took), quantile(took, 0.9), quantile(took, 0.99))
	}
	return r, nil
}

// position is that of the writer's last commit of the i-th aggregate.
func (w *writer) position(i int) jetstream.Position { return w.store.Position(w.heads[i].Sequence) }

// paced calls an operation so many times at a rate, each aggregate's one after the
// other, and returns what they returned and the rate that was reached.
func paced(
	ctx context.Context, rate, count int, op func(context.Context, int) (float64, error),
) (took []float64, reached float64, err error) {
	took = make([]float64, count)
	errs := make([]error, visibleWriters)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range visibleWriters {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < count; n = int(next.Add(1)) - 1 {
				timer := time.NewTimer(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
				select {
				case <-ctx.Done():
					timer.Stop()
					errs[i] = context.Cause(ctx)
					return
				case <-timer.C:
				}
				if took[n], errs[i] = op(ctx, i); errs[i] != nil {
					errs[i] = fmt.Errorf("event %d: %w", n, errs[i])
					return
				}
			}
		})
	}
	wg.Wait()
	return took, float64(count) / time.Since(begin).Seconds(), errors.Join(errs...)
}
