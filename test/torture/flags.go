package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// commandLine is what was asked for.
type commandLine struct {
	cell

	// given tells that nemeses were named.
	given bool
	// dir is where histories are kept, "" for a new temporary directory.
	dir string
	// short, mutant, limit, report and oneCell choose what is done instead of one cell.
	short         bool
	mutant        string
	limit         time.Duration
	report        string
	oneCell       string
	plot          string
	keep, verbose bool
}

// everyMutant is -mutant's value for all of them.
const everyMutant = "all"

// parse reads the command line and reports every mistake in it.
func parse(args []string, out io.Writer) (commandLine, error) {
	var o commandLine
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.SetOutput(out)
	f.IntVar(&o.Servers, "servers", 3, "number of servers: 1 or 3")
	f.BoolVar(&o.Fsync, "fsync", true, "servers sync every write")
	workloads := f.String("workload", "all", "registers, bank, set, or all, comma separated")
	nemesis := f.String("nemesis", "kill-leader", "disturbances one after the other, comma separated; a+b at once")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the schedule and of the load")
	f.DurationVar(&o.Hold, "hold", 2*time.Second, "how long a disturbance lasts")
	f.DurationVar(&o.Calm, "calm", 500*time.Millisecond, "time between disturbances")
	f.DurationVar(&o.Rest, "rest", restDefault, "the longest time that a client rests between two operations")
	f.BoolVar(&o.Compress, "compress", false, "let the servers compress the store: 2.15.2 does not survive that")
	f.StringVar(&o.dir, "dir", "", "where histories are kept (default: a new temporary directory)")
	f.BoolVar(&o.short, "short", false, "run the short matrix and every mutant")
	f.DurationVar(&o.limit, "for", 0, "run the whole matrix, again and again, for so long")
	f.DurationVar(&o.Soak, "soak", 0, "go on for so long, and sample what the processes use into soak.csv")
	f.StringVar(&o.plot, "plot", "", "with -dir: draw the soak.csv there into this SVG, and print its table")
	f.BoolVar(&o.keep, "keep", false, "keep the history of a run that found nothing, too")
	f.StringVar(&o.report, "report", "", "with -dir: write the results there into this document")
	f.StringVar(&o.oneCell, "cell", "", "a cell as JSON: run it and print its result as JSON")
	f.StringVar(&o.mutant, "mutant", "", "hunt deliberate defects only: all, or one's name")
	f.BoolVar(&o.verbose, "v", false, "say what happens")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q: there are only flags", f.Arg(0))
	}
	o.Workloads, o.Nemeses = strings.Split(*workloads, ","), strings.Split(*nemesis, ",")
	if *workloads == "all" {
		o.Workloads = workloadNames()
	}
	f.Visit(func(f *flag.Flag) { o.given = o.given || f.Name == "nemesis" })
	return o, o.validate()
}

func (o *commandLine) validate() error {
	errs := []error{o.cell.validate()}
	bad := func(field string, value any, why string) { errs = append(errs, badFlag(field, value, why)) }
	if o.limit < 0 {
		bad("for", o.limit, "is negative")
	}
	if o.mutant != "" && o.mutant != everyMutant && !slices.ContainsFunc(mutants(), func(m mutant) bool {
		return string(m.defect) == o.mutant
	}) {
		bad("mutant", o.mutant, `is no defect's name, and not "`+everyMutant+`"`)
	}
	for field, value := range map[string]string{"report": o.report, "plot": o.plot} {
		if value != "" && o.dir == "" && o.limit == 0 {
			bad(field, value, "needs -dir, where the results are")
		}
	}
	modes := 0
	for _, chosen := range []bool{o.short, o.mutant != "", o.limit > 0, o.oneCell != "", o.Soak > 0, o.plot != ""} {
		if chosen {
			modes++
		}
	}
	if modes > 1 {
		errs = append(errs, errors.New("only one of -short, -mutant, -for, -soak, -plot and -cell can be done"))
	}
	return errors.Join(errs...)
}

// validate reports every field that cannot be run.
func (c *cell) validate() error {
	var errs []error
	bad := func(field string, value any, why string) { errs = append(errs, badFlag(field, value, why)) }
	if c.Servers != 1 && c.Servers != 3 {
		bad("servers", c.Servers, "is neither 1 nor 3")
	}
	for _, w := range c.Workloads {
		if w != repeats && !slices.Contains(workloadNames(), w) {
			bad("workload", w, "is none of "+strings.Join(workloadNames(), ", ")+", all")
		}
	}
	for _, name := range c.Nemeses {
		n, err := nemesisOf(name)
		switch {
		case err != nil:
			bad("nemesis", name, err.Error())
		case n.cluster && c.Servers == 1:
			bad("nemesis", name, "needs three servers")
		}
	}
	for field, d := range map[string]time.Duration{"hold": c.Hold, "calm": c.Calm, "soak": c.Soak} {
		if d < 0 {
			bad(field, d, "is negative")
		}
	}
	if c.Rest != 0 && c.Rest <= restMin {
		bad("rest", c.Rest, "is not more than "+restMin.String())
	}
	return errors.Join(errs...)
}

func badFlag(field string, value any, why string) error {
	if s, ok := value.(string); ok {
		value = fmt.Sprintf("%q", s)
	}
	return fmt.Errorf("-%s %v: %s", field, value, why)
}
