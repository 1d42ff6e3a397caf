// Command torture runs the toolkit against servers, a network and processes that
// fail, and checks what clients, followers and the outside world saw.
//
//	go run ./test/torture -short                        most nemeses, every defect
//	go run ./test/torture -for 8h -report docs/reliability.md
//	go run ./test/torture -servers 3 -fsync -nemesis kill-leader,lose-acks -seed 7
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rossby-go/rossby/test/torture/rig"
)

func main() {
	if kind, config, use := rig.Child(os.Args[1:]); kind != "" {
		stop := rig.ReportUse(use)
		err := runChild(kind, config)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func runChild(kind, config string) error {
	switch kind {
	case rig.NodeKind:
		return rig.RunNode(config)
	case modulesKind:
		return runModules(config)
	}
	return fmt.Errorf("no child %q", kind)
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	home := o.dir
	if home == "" {
		if home, err = os.MkdirTemp("", "torture-"); err != nil {
			return err
		}
	}
	results := filepath.Join(home, resultsFile)
	switch {
	case o.oneCell != "":
		return runOne(ctx, o.oneCell, home, log)
	case o.limit > 0:
		var names []string
		if o.given {
			names = o.Nemeses
		}
		err := long(ctx, home, o.Seed, o.limit, log, names)
		if o.report != "" {
			err = errors.Join(err, writeReport(o.report, results))
		}
		return err
	case o.report != "":
		return writeReport(o.report, results)
	case o.plot != "":
		return plotSoak(filepath.Join(home, soakFile), o.plot, os.Stdout)
	case o.short:
		return short(ctx, home, o.Seed)
	case o.mutant != "":
		found, clean, err := hunt(ctx, home, o.Seed, strings.TrimPrefix(o.mutant, everyMutant), make(turns, cellsAtOnce))
		return errors.Join(err, reportMutants(found, clean))
	}
	r, err := runCell(ctx, o.cell, home, log)
	if err != nil {
		return err
	}
	fmt.Println(r.line())
	if len(r.Violations) > 0 {
		return r.failure()
	}
	if o.keep || o.Soak > 0 {
		fmt.Println("history in", r.Dir)
		return nil
	}
	return os.RemoveAll(r.Dir)
}

// runOne runs a cell for another process.
func runOne(ctx context.Context, config, home string, log *slog.Logger) error {
	var c cell
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return fmt.Errorf("-cell: %w", err)
	}
	if err := c.validate(); err != nil {
		return fmt.Errorf("-cell: %w", err)
	}
	r, err := runCell(ctx, c, home, log)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
