package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	longHold = 3 * time.Second
	longCalm = time.Second
	// losingPatience bounds the waits of cells that may lose everything.
	losingPatience = 10 * time.Second
	resultsFile    = "results.jsonl"
)

// pairs are disturbances that come together.
func pairs() []string {
	return []string{
		"kill-leader+lose-acks", "kill-any+kill-modules", "step-down+cut", "freeze-leader+kill-modules",
		"split-leader+lose-requests", "rolling-restart+lose-acks", "power-leader+kill-modules", "slow-routes+step-down",
	}
}

// longCells are the whole matrix, or that of the named disturbances: every nemesis, and some pairs, with every workload
// alone and all together, on one server and on three, that sync and that do not.
func longCells(seed uint64, names []string) []cell {
	if len(names) == 0 {
		names = pairs()
		for _, n := range nemeses() {
			names = append(names, n.name)
		}
	}
	var cells []cell
	for _, servers := range []int{3, 1} {
		for _, fsync := range []bool{true, false} {
			for _, name := range names {
				n, err := nemesisOf(name)
				if err != nil || n.cluster && servers == 1 {
					continue
				}
				for _, workloads := range [][]string{workloadNames(), {registers}, {bank}, {set}} {
					cells = append(cells, cell{
						Servers: servers, Fsync: fsync, Workloads: workloads, Nemeses: []string{name}, Hold: longHold, Calm: longCalm,
					})
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	rng.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	// Three servers first: a time that is too short leaves out the others.
	slices.SortStableFunc(cells, func(a, b cell) int { return b.Servers - a.Servers })
	for i := range cells {
		cells[i].Seed = seed + uint64(i)
		if cells[i].mayLose() {
			cells[i].Patience = losingPatience
		}
	}
	return cells
}

// mayLose tells a configuration that loses acknowledged commits: power fails, and
// the servers do not sync.
func (c *cell) mayLose() bool {
	return !c.Fsync && strings.Contains(strings.Join(c.Nemeses, ","), "power")
}

// long runs the matrix, again and again with other seeds, until the time is over.
// Names, if there are any, are the only disturbances.
func long(
	ctx context.Context, home string, seed uint64, limit time.Duration, log *slog.Logger, names []string,
) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := os.OpenFile(filepath.Join(home, resultsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	var errs []error
	for ; ctx.Err() == nil; seed += 10_000 {
		cells, left := possible(ctx, home, longCells(seed, names))
		if len(left) > 0 {
			log.WarnContext(ctx, "cells are left out", "cells", len(left), "first", left[0])
		}
		err := runAll(ctx, home, cells, make(turns, cellsAtOnce), func(r *result) {
			fmt.Println(r.line())
			if err := json.NewEncoder(out).Encode(r); err != nil {
				log.ErrorContext(ctx, "result not kept", "error", err)
			}
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readResults reads what runs have found.
func readResults(path string) (results []result, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for d := json.NewDecoder(bufio.NewReader(f)); ; {
		var r result
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return results, nil
		} else if err != nil {
			return results, err
		}
		results = append(results, r)
	}
}
