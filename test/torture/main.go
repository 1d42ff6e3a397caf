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
	"time"

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
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	servers := flags.Int("servers", 3, "number of servers: 1 or 3")
	fsync := flags.Bool("fsync", true, "servers sync every write")
	workloads := flags.String("workload", "all", "registers, bank, set, or all, comma separated")
	nemesis := flags.String("nemesis", "kill-leader", "disturbances one after the other, comma separated; a+b at once")
	seed := flags.Uint64("seed", 1, "seed of the schedule and of the load")
	hold := flags.Duration("hold", 2*time.Second, "how long a disturbance lasts")
	calm := flags.Duration("calm", 500*time.Millisecond, "time between disturbances")
	rest := flags.Duration("rest", restDefault, "the longest time that a client rests between two operations")
	compress := flags.Bool("compress", false, "let the servers compress the store, which nats-server 2.15.2 does not survive")
	dir := flags.String("dir", "", "where histories are kept (default: a new temporary directory)")
	isShort := flags.Bool("short", false, "run the short matrix and every mutant")
	limit := flags.Duration("for", 0, "run the whole matrix, again and again, for so long")
	soak := flags.Duration("soak", 0, "go on for so long, and sample what the processes use into soak.csv")
	keep := flags.Bool("keep", false, "keep the history of a run that found nothing, too")
	report := flags.String("report", "", "with -dir: write the results there into this document")
	oneCell := flags.String("cell", "", "a cell as JSON: run it and print its result as JSON")
	huntOnly := flags.String("mutant", "", "hunt deliberate defects only: all, or one's name")
	verbose := flags.Bool("v", false, "say what happens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	home := *dir
	if home == "" {
		var err error
		if home, err = os.MkdirTemp("", "torture-"); err != nil {
			return err
		}
	}
	if *oneCell != "" {
		return runOne(ctx, *oneCell, home, log)
	}
	c := cell{
		Servers: *servers, Fsync: *fsync, Workloads: strings.Split(*workloads, ","), Nemeses: strings.Split(*nemesis, ","),
		Seed: *seed, Hold: *hold, Calm: *calm, Rest: *rest, Soak: *soak, Compress: *compress,
	}
	if *workloads == "all" {
		c.Workloads = workloadNames()
	}
	if *limit > 0 {
		var names []string
		flags.Visit(func(f *flag.Flag) {
			if f.Name == "nemesis" {
				names = c.Nemeses
			}
		})
		err := long(ctx, home, *seed, *limit, log, names)
		if *report != "" {
			err = errors.Join(err, writeReport(*report, filepath.Join(home, resultsFile)))
		}
		return err
	}
	if *report != "" {
		return writeReport(*report, filepath.Join(home, resultsFile))
	}
	if *isShort {
		return short(ctx, home, *seed)
	}
	if *huntOnly != "" {
		found, clean, err := hunt(ctx, home, *seed, strings.TrimPrefix(*huntOnly, "all"))
		return errors.Join(err, reportMutants(found, clean))
	}
	r, err := runCell(ctx, c, home, log)
	if err != nil {
		return err
	}
	fmt.Println(r.line())
	if len(r.Violations) > 0 {
		return r.failure()
	}
	if *keep || *soak > 0 {
		fmt.Println("history in", r.Dir)
		return nil
	}
	return os.RemoveAll(r.Dir)
}

// runOne runs a cell for another process.
func runOne(ctx context.Context, config, home string, log *slog.Logger) error {
	var c cell
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	r, err := runCell(ctx, c, home, log)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
