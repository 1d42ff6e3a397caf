package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/internal/mutate"
)

// mutant is a deliberate defect, what to run for it to show, and what must be found.
type mutant struct {
	defect    mutate.Defect
	what      string
	servers   int
	workloads []string
	nemesis   string
	// finds is a part of the finding: being caught by chance for something else does
	// not count.
	finds string
}

func mutants() []mutant {
	regs, pay, sets := []string{registers}, []string{bank}, []string{set}
	some, again := []string{registers, bank}, []string{registers, repeats}
	return []mutant{
		{
			mutate.Unguarded, "appends carry no expectation",
			1, regs, nemNone, "not linearizable",
		},
		{
			mutate.BlindRetry, "a conflict is answered by appending behind the other commit",
			1, regs, nemNone, "not linearizable",
		},
		{
			mutate.AckBeforeCommit, "an attempt without an answer counts as stored",
			1, again, "lose-requests", "was acknowledged at",
		},
		{
			mutate.TimeoutIsFailure, "an attempt without an answer counts as not stored",
			1, sets, nemLoseAcks, "did not happen",
		},
		{
			mutate.NoResolver, "a conflict with the own first attempt counts as another writer's",
			1, sets, nemLoseAcks, "want 1",
		},
		{
			mutate.SplitTransaction, "a transaction's commits are sent one by one",
			1, sets, nemNone, "want 2",
		},
		{
			mutate.NoKeys, "the unique keys are left out of the transaction that takes them",
			1, pay, nemNone, "has the owners",
		},
		{
			mutate.NoCommandDedupe, "a repeated command is not looked for",
			1, again, nemLoseAcks, "want 1",
		},
		{
			mutate.NoTriggerDedupe, "a repeated effect is not looked for",
			1, pay, nemNone, "want 1",
		},
		{
			mutate.NoReceipt, "a repeated command whose id bears no time is not looked for",
			1, again, nemLoseAcks + "+" + nemKillModules, "want 1",
		},
		{
			mutate.Unconfirmed, "a refusal upon a cached state is not confirmed",
			1, regs, nemNone, "not linearizable",
		},
		{
			mutate.StaleLoad, "any replica answers loads",
			3, regs, "slow-routes,slow-routes", "not linearizable",
		},
		{
			mutate.NakInsteadOfHold, "later events of an aggregate pass one that failed",
			1, some, nemKillModules, "handled event",
		},
		{
			mutate.NoLanes, "events of one aggregate are handled at once",
			1, some, nemKillModules, "handled event",
		},
		{
			mutate.AckBeforeEffect, "an event is done when its handler begins",
			1, pay, nemNone, "has not handled",
		},
		{
			mutate.ForgetLanes, "the position is recorded without what is unfinished before it",
			1, some, nemKillModules, "has not handled",
		},
		{
			mutate.IgnoreGaps, "a follower does not notice that deliveries are missing",
			1, some, nemCut, "has not handled",
		},
		{
			mutate.KeyPerAttempt, "each attempt has an idempotency key of its own",
			1, pay, nemNone, "under the keys",
		},
		{
			mutate.NoLedger, "deliveries that were made are not looked for",
			1, some, nemKillModules, "deliveries were repeated",
		},
		{
			mutate.ViewIgnoresGaps, "a view does not notice that deliveries are missing",
			1, some, nemCut, "its log says",
		},
		{
			mutate.CheckpointFirst, "a view's checkpoint is written before its values",
			1, some, nemCut, "view ",
		},
		{
			mutate.NoPositionWait, "reads do not wait for the position asked for",
			1, regs, nemNone, "the command made version",
		},
	}
}

const (
	mutantHold     = 2 * time.Second
	mutantPatience = 6 * time.Second
	// mutantSeeds is how many seeds a mutant is tried with until it is caught, nearly always
	// by the first: in a few seconds, not every one of them meets what it needs to show.
	mutantSeeds = 12
)

func (m *mutant) cell(seed uint64) cell {
	patience := mutantPatience
	if m.defect == "" {
		patience = patienceDefault // nothing is decided by how fast it is
	}
	return cell{
		Servers: m.servers, Workloads: m.workloads, Nemeses: strings.Split(m.nemesis, ","), Seed: seed, Hold: mutantHold,
		Calm: 200 * time.Millisecond, Patience: patience,
	}
}

// caught is what came of a mutant.
type caught struct {
	mutant

	by  string // the finding, "" for none
	all []string
	err error
	// seeds is how many were tried.
	seeds uint64
}

// hunt builds this program with its defects and runs each mutant, and each scenario
// without a defect, which must find nothing.
func hunt(ctx context.Context, home string, seed uint64, only string, shared turns) (
	found []caught, clean int, err error,
) {
	binary := filepath.Join(home, "torture-mutated")
	//nolint:gosec // in a directory of our own
	build := exec.CommandContext(ctx, "go", "build", "-tags", "rossby_mutate", "-o", binary, "./test/torture")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, 0, fmt.Errorf("build with defects: %w: %s", err, out)
	}
	defer func() { _ = os.Remove(binary) }()
	var g errgroup.Group
	var controls []caught
	for _, m := range mutants() {
		if only != "" && only != string(m.defect) {
			continue
		}
		found = append(found, caught{mutant: m})
		same := func(c caught) bool {
			return c.servers == m.servers && c.nemesis == m.nemesis && slices.Equal(c.workloads, m.workloads)
		}
		if only == "" && !slices.ContainsFunc(controls, same) {
			control := m
			control.defect = ""
			controls = append(controls, caught{mutant: control})
		}
	}
	for i := range controls {
		g.Go(func() error {
			defer shared.take()()
			controls[i].run(ctx, binary, home, seed)
			return nil
		})
	}
	for i := range found {
		g.Go(func() error {
			defer shared.take()()
			c := &found[i]
			for c.seeds < mutantSeeds && c.by == "" {
				c.run(ctx, binary, home, seed+c.seeds)
				c.seeds++
			}
			return nil
		})
	}
	_ = g.Wait()
	for i := range controls {
		if c := &controls[i]; c.err != nil || len(c.all) > 0 {
			return found, clean, errors.Join(c.err,
				fmt.Errorf("%s and %v without a defect: %s", c.nemesis, c.workloads, strings.Join(c.all, "\n")))
		}
		clean++
	}
	return found, clean, ctx.Err()
}

// run runs the mutant in a process of its own.
func (c *caught) run(ctx context.Context, binary, home string, seed uint64) {
	c.err = nil
	config, err := json.Marshal(c.cell(seed))
	if err != nil {
		c.err = err
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-dir", home, "-cell", string(config)) //nolint:gosec // built just now
	cmd.Env = append(os.Environ(), mutate.Variable+"="+string(c.defect))
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	ended := cmd.Run()
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		c.err = fmt.Errorf("%w: %s", ended, text.String())
		return
	}
	c.all = r.Violations
	for _, v := range r.Violations {
		if strings.Contains(v, c.finds) {
			c.by = v
			break
		}
	}
	if c.by != "" || len(c.all) == 0 {
		_ = os.RemoveAll(r.Dir)
	}
}

// reportMutants prints what was caught, and tells what was not.
func reportMutants(found []caught, clean int) error {
	n := 0
	for i := range found {
		c := &found[i]
		switch {
		case c.by != "":
			n++
			fmt.Printf("  caught  %-20s by seed %d: %s\n", c.defect, c.seeds, c.by)
		case c.err != nil:
			fmt.Printf("  BROKEN  %-20s %v\n", c.defect, c.err)
		default:
			fmt.Printf("  MISSED  %-20s want %q, found %q\n", c.defect, c.finds, c.all)
		}
	}
	fmt.Printf("%d scenarios without a defect: nothing found\ncaught %d of %d\n", clean, n, len(found))
	if n < len(found) {
		return fmt.Errorf("caught %d of %d defects", n, len(found))
	}
	return nil
}
