package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// contender is one of the sides that are compared. The first is ours, the second
// raw, others are only reported.
type contender struct {
	name string
	// slice does n operations and returns how long they took.
	slice func(ctx context.Context, n int) (time.Duration, error)
}

// timed makes a slice of n calls of one operation.
func timed(op func(ctx context.Context) error) func(context.Context, int) (time.Duration, error) {
	return func(ctx context.Context, n int) (time.Duration, error) {
		begin := time.Now()
		for range n {
			if err := op(ctx); err != nil {
				return 0, err
			}
		}
		return time.Since(begin), nil
	}
}

// plan says how much is measured.
type plan struct {
	// slices is the number of slices of each side, ops that of the operations in
	// each.
	slices, ops int
	// cold leaves out the slices that warm up.
	cold bool
}

// sample is one slice's cost of one operation.
type sample struct {
	nanos, allocs, bytes float64
}

// result is what a row printed.
type result struct {
	names   []string
	samples [][]sample
	plan    plan
	// rate prints operations per second instead of the time of one.
	rate bool
	// ours, raw and unit replace the samples of rows that count once.
	ours, raw float64
	unit      string
	notes     []string
}

func (r *result) notef(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// measure runs the sides in turns, in small slices, so that whatever else the
// machine does meets all of them. The order within a turn is drawn anew each time.
func measure(ctx context.Context, e *env, p plan, sides ...contender) (*result, error) {
	if e.slices > 0 {
		p.slices = e.slices
	}
	if e.only != "" {
		sides = slices.DeleteFunc(sides, func(c contender) bool { return c.name != e.only })
	}
	r := &result{plan: p, samples: make([][]sample, len(sides))}
	for _, c := range sides {
		r.names = append(r.names, c.name)
	}
	warm := 2
	if p.cold {
		warm = 0
	}
	for turn := -warm; turn < p.slices || turn < mostTimes*p.slices && e.unclear(r); turn++ {
		for _, i := range rand.Perm(len(sides)) {
			s, err := measureSlice(ctx, sides[i], p.ops)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if turn >= 0 {
				r.samples[i] = append(r.samples[i], s)
			}
		}
	}
	return r, nil
}

// mostTimes is how many times as many turns as planned are taken where those do
// not tell whether the target is reached.
const mostTimes = 3

// unclear tells a result whose interval holds the target and is too wide to say
// that it is reached.
func (e *env) unclear(r *result) bool {
	if e.short || e.only != "" || e.slices > 0 {
		return false
	}
	_, _, ratio, low, high := r.figures()
	return low < e.row.target && e.row.target < high && high-low > widest*ratio
}

// widest is how wide an interval may be, as a part of the ratio, for its upper end
// to count.
const widest = 0.1

// reached tells whether a target is reached: by the ratio itself, or by an
// interval that is narrow enough to mean something.
func reached(target, ratio, low, high float64) bool {
	return ratio >= target || high >= target && high-low <= widest*ratio
}

func measureSlice(ctx context.Context, c contender, ops int) (s sample, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var d time.Duration
	pprof.Do(ctx, pprof.Labels("side", c.name), func(ctx context.Context) { d, err = c.slice(ctx, ops) })
	runtime.ReadMemStats(&after)
	n := float64(ops)
	return sample{
		nanos:  float64(d.Nanoseconds()) / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n,
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / n,
	}, err
}

// lines are the row's line and, indented, what belongs to it.
func (r *result) lines(w row) string {
	ours, raw, ratio, low, high := r.figures()
	verdict := "short"
	if w.lower && 1/ratio <= w.target || !w.lower && reached(w.target, ratio, low, high) {
		verdict = "ok"
	}
	if w.lower {
		ratio = 1 / ratio
	}
	var b strings.Builder
	digits := 2
	if ratio < 0.01 { // 0.00 would say nothing
		digits = 4
	}
	fmt.Fprintf(&b, "%s ours=%s raw=%s ratio=%.*f target=%.2f %s\n",
		w.name, r.figure(ours), r.figure(raw), digits, ratio, w.target, verdict)
	if r.unit == "" {
		fmt.Fprintf(&b, "    ratio %.3f..%.3f (95 %%), %d slices of %d each", low, high, len(r.samples[0]), r.plan.ops)
		for i, name := range r.names {
			s := r.samples[i]
			q1, q3 := quantile(field(s, nanos), 0.25), quantile(field(s, nanos), 0.75)
			fmt.Fprintf(&b, "; %s %s..%s", name, r.figure(q1), r.figure(q3))
			if !r.plan.cold {
				fmt.Fprintf(&b, " %.0f allocs %.1f kB", median(field(s, allocs)), median(field(s, size))/1000)
			}
		}
		b.WriteByte('\n')
	}
	for _, n := range r.notes {
		fmt.Fprintf(&b, "    %s\n", n)
	}
	return b.String()
}

// figures are the medians, and the median of the turns' ratios with the bounds
// that it keeps in 95 of 100 draws of the turns.
func (r *result) figures() (ours, raw, ratio, low, high float64) {
	if r.unit != "" {
		return r.ours, r.raw, r.raw / r.ours, r.raw / r.ours, r.raw / r.ours
	}
	a, b := field(r.samples[0], nanos), field(r.samples[1], nanos)
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = b[i] / a[i]
	}
	drawn := make([]float64, len(ratios))
	medians := make([]float64, 2000)
	for i := range medians {
		for j := range drawn {
			drawn[j] = ratios[rand.IntN(len(ratios))]
		}
		medians[i] = median(drawn)
	}
	return median(a), median(b), median(ratios), quantile(medians, 0.025), quantile(medians, 0.975)
}

// figure shows a cost with its unit.
func (r *result) figure(v float64) string {
	switch {
	case r.unit != "":
		return fmt.Sprintf("%.0f%s", v, r.unit)
	case r.rate:
		return fmt.Sprintf("%.0f/s", 1e9/v)
	}
	return fmt.Sprintf("%.1fus", v/1e3)
}

func nanos(s sample) float64  { return s.nanos }
func allocs(s sample) float64 { return s.allocs }
func size(s sample) float64   { return s.bytes }

func field(samples []sample, get func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = get(s)
	}
	return out
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile interpolates between the two values next to it.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	place := q * float64(len(sorted)-1)
	i := int(place)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	part := place - float64(i)
	return sorted[i]*(1-part) + sorted[i+1]*part
}
