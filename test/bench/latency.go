package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// latencies are those of one phase.
type latencies struct {
	rate     float64 // per second
	p50, p99 time.Duration
}

func (l latencies) String() string {
	return fmt.Sprintf("%.0f/s p50 %v p99 %v", l.rate, l.p50.Round(time.Microsecond), l.p99.Round(time.Microsecond))
}

// commandLatency measures how long commands take while as many are sent as are
// answered, and at half of that rate. At half load they are sent by the clock, and
// each counts from when it was due: a slow answer does not make those behind it
// look fast.
func commandLatency(ctx context.Context, e *env) (*result, error) {
	const clients, rounds = 64, 5
	return e.commanding(ctx, func(ctx context.Context, c *commanding) (*result, error) {
		n := e.scaled(20_000)
		var full, half, fullRaw, halfRaw []latencies
		for range rounds {
			ours, err := saturate(ctx, clients, n, c.ours)
			if err != nil {
				return nil, err
			}
			raw, err := saturate(ctx, clients, n, c.raw)
			if err != nil {
				return nil, err
			}
			full, fullRaw = append(full, ours), append(fullRaw, raw)
			// Both get what is half a load for us.
			ours, err = pace(ctx, n/2, ours.rate/2, c.ours)
			if err != nil {
				return nil, err
			}
			raw, err = pace(ctx, n/2, ours.rate, c.raw)
			if err != nil {
				return nil, err
			}
			half, halfRaw = append(half, ours), append(halfRaw, raw)
		}
		h, hr := middle(half), middle(halfRaw)
		r := &result{unit: "us", ours: micros(h.p99), raw: micros(hr.p99)}
		r.notef("p99 at half load; ours at half load %v, at full load %v", h, middle(full))
		r.notef("raw at the same load as ours at half %v, at full load %v", hr, middle(fullRaw))
		return r, nil
	})
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// middle takes the median of each figure.
func middle(all []latencies) latencies {
	get := func(f func(latencies) float64) float64 {
		values := make([]float64, len(all))
		for i, l := range all {
			values[i] = f(l)
		}
		return median(values)
	}
	return latencies{
		rate: get(func(l latencies) float64 { return l.rate }),
		p50:  time.Duration(get(func(l latencies) float64 { return float64(l.p50) })),
		p99:  time.Duration(get(func(l latencies) float64 { return float64(l.p99) })),
	}
}

// saturate lets clients send one command after the other.
func saturate(
	ctx context.Context, clients, n int, op func(context.Context, int) error,
) (latencies, error) {
	due := make(chan time.Time)
	return clock(ctx, clients, n, due, op, func() error {
		defer close(due)
		for range n {
			select {
			case due <- time.Time{}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

// pace sends commands by the clock, each for another aggregate than those under
// way.
func pace(ctx context.Context, n int, rate float64, op func(context.Context, int) error) (latencies, error) {
	due := make(chan time.Time, n) // nobody is held up by those before
	return clock(ctx, writers, n, due, op, func() error {
		defer close(due)
		begin, each := time.Now(), time.Duration(float64(time.Second)/rate)
		t := time.NewTimer(0)
		defer t.Stop()
		for i := range n {
			at := begin.Add(time.Duration(i) * each)
			t.Reset(time.Until(at))
			select {
			case <-t.C:
				due <- at
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

// clock runs what is due and takes the time.
func clock(
	ctx context.Context, clients, n int, due <-chan time.Time, op func(context.Context, int) error, send func() error,
) (latencies, error) {
	took := make([][]time.Duration, clients)
	errs := make(chan error, clients)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range clients {
		wg.Go(func() {
			for at := range due {
				if at.IsZero() {
					at = time.Now()
				}
				if err := op(ctx, i); err != nil {
					errs <- err
					for range due { // let the sender finish
					}
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	err := send()
	wg.Wait()
	elapsed := time.Since(begin)
	select {
	case err = <-errs:
	default:
	}
	if err != nil {
		return latencies{}, err
	}
	all := slices.Concat(took...)
	if len(all) != n {
		return latencies{}, fmt.Errorf("%d of %d commands were answered", len(all), n)
	}
	slices.Sort(all)
	return latencies{rate: float64(n) / elapsed.Seconds(), p50: all[n/2], p99: all[n*99/100]}, nil
}
