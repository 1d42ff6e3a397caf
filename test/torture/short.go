package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/test/torture/rig"
)

const (
	shortHold = 1500 * time.Millisecond
	shortCalm = 300 * time.Millisecond
	// cellsAtOnce share the machine: most of a cell's time it waits.
	cellsAtOnce = 3
)

// shortCells are the short form: most nemeses against all workloads on three servers
// that sync, and some of them on the others.
func shortCells(seed uint64) []cell {
	kinds := []struct {
		servers int
		fsync   bool
		nemeses string
	}{
		{3, true, "disk-full,power-leader,power-all"},
		{3, true, "kill-leader,kill-any,rolling-restart,kill-all"},
		{3, true, "freeze-leader,split-leader"},
		{3, true, "step-down,cut,hold,delay,lose-acks,lose-requests,slow-routes"},
		{3, true, "kill-modules,freeze-modules,kill-leader+lose-acks"},
		{3, false, "kill-any+cut,kill-all"},
		{1, true, "kill-leader,lose-acks+kill-modules"},
		{1, true, "disk-full-all,power-all"},
		{1, false, "restart,cut,lose-requests"},
	}
	cells := make([]cell, 0, len(kinds))
	for _, c := range kinds {
		cells = append(cells, cell{
			Servers: c.servers, Fsync: c.fsync, Workloads: workloadNames(), Nemeses: strings.Split(c.nemeses, ","),
			Seed: seed + uint64(len(cells)), Hold: shortHold, Calm: shortCalm,
		})
	}
	return cells
}

// short runs the short cells and the mutants.
func short(ctx context.Context, home string, seed uint64) error {
	began := time.Now()
	cells, left := possible(ctx, home, shortCells(seed))
	for _, text := range left {
		fmt.Println("  not done:", text)
	}
	// They share the machine, the cells first: the program with defects is built meanwhile.
	shared := make(turns, cellsAtOnce)
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		failed = runAll(ctx, home, cells, shared, func(r *result) { fmt.Println(r.line()) })
		fmt.Printf("%d cells in %v\n", len(cells), time.Since(began).Round(time.Second))
	})
	found, clean, err := hunt(ctx, home, seed, "", shared)
	done.Wait()
	err = errors.Join(failed, err, reportMutants(found, clean))
	fmt.Printf("all of it in %v\n", time.Since(began).Round(time.Second))
	return err
}

// turns bounds what runs at once.
type turns chan struct{}

// take waits for one's turn, which ends with the returned function.
func (t turns) take() (end func()) {
	t <- struct{}{}
	return func() { <-t }
}

// possible leaves out what this process cannot do, and says so.
func possible(ctx context.Context, home string, cells []cell) (some []cell, left []string) {
	reason := rig.Volumes(ctx, home)
	for _, c := range cells {
		kept := slices.DeleteFunc(slices.Clone(c.Nemeses), func(name string) bool {
			n, err := nemesisOf(name)
			return err == nil && n.images && reason != nil
		})
		if len(kept) < len(c.Nemeses) {
			left = append(left, fmt.Sprintf("R%d %v: no file systems can be made: %v", c.Servers, c.Nemeses, reason))
		}
		if c.Nemeses = kept; len(kept) > 0 {
			some = append(some, c)
		}
	}
	return some, left
}

// runAll runs cells, some at a time. The error tells of every violation, with the
// seed and where the history is kept.
func runAll(ctx context.Context, home string, cells []cell, shared turns, done func(*result)) error {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	for _, c := range cells {
		g.Go(func() error {
			defer shared.take()()
			if ctx.Err() != nil {
				return nil
			}
			r, err := runCell(ctx, c, home, slog.New(slog.DiscardHandler))
			mu.Lock()
			defer mu.Unlock()
			if err == nil && ctx.Err() == nil {
				done(&r)
			}
			switch {
			case ctx.Err() != nil:
				errs = append(errs, os.RemoveAll(r.Dir))
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w (%s)", c.String(), err, r.Dir))
			case len(r.Violations) > 0:
				errs = append(errs, r.failure())
			default:
				errs = append(errs, os.RemoveAll(r.Dir))
			}
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// failure is what a cell found, and how to run it again.
func (r *result) failure() error {
	return fmt.Errorf("%s: %d violations; history in %s; again with %s\n  %s",
		r.Cell.String(), len(r.Violations), r.Dir, r.Cell.again(), strings.Join(r.Violations, "\n  "))
}

// again is the command that runs a cell once more.
func (c *cell) again() string {
	return fmt.Sprintf("go run ./test/torture -servers %d -fsync=%v -workload %s -nemesis %s -hold %v -calm %v -seed %d",
		c.Servers, c.Fsync, strings.Join(c.Workloads, ","), strings.Join(c.Nemeses, ","), c.Hold, c.Calm, c.Seed)
}

// line is a result for people.
func (r *result) line() string {
	sync := "lazy "
	if r.Cell.Fsync {
		sync = "fsync"
	}
	var worst time.Duration
	names := make([]string, 0, len(r.Faults))
	for _, f := range r.Faults {
		worst = max(worst, f.Recovered)
		names = append(names, fmt.Sprintf("%s %.1f-%.1fs", f.Name, f.Leaders.Seconds(), f.Recovered.Seconds()))
	}
	verdict := "ok"
	if r.Lost > 0 {
		verdict = fmt.Sprintf("lost %d, as it may", r.Lost)
	}
	if len(r.Violations) > 0 {
		verdict = fmt.Sprintf("%d VIOLATIONS", len(r.Violations))
	}
	return fmt.Sprintf("  R%d %s seed %-3d %4.0fs %5d operations (%d linearizable, %d left out) "+
		"%5d events %5d deliveries; recovery: %s: %s", r.Cell.Servers, sync, r.Cell.Seed,
		r.Took.Seconds(), r.Operations, r.Checked, r.LeftOut, r.Events,
		r.Handled, strings.Join(names, ", "), verdict)
}
