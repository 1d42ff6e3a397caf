package main

import (
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMistakesOnTheCommandLine: each is told by its flag and its value, all at once.
func TestMistakesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args string
		want []string
	}{
		"Servers":  {"-servers 2", []string{`-servers 2: is neither 1 nor 3`}},
		"Workload": {"-workload bank,banks", []string{`-workload "banks": is none of registers, bank, set, all`}},
		"Nemesis":  {"-nemesis kill-any+cut,nap", []string{`-nemesis "nap": no nemesis "nap"`}},
		"Pair":     {"-nemesis cut+nap", []string{`-nemesis "cut+nap": no nemesis "nap"`}},
		"Alone":    {"-servers 1 -nemesis cut,split-any", []string{`-nemesis "split-any": needs three servers`}},
		"Hold":     {"-hold -1s", []string{`-hold -1s: is negative`}},
		"Calm":     {"-calm -1ms", []string{`-calm -1ms: is negative`}},
		"Rest":     {"-rest 4ms", []string{`-rest 4ms: is not more than 4ms`}},
		"For":      {"-for -1h", []string{`-for -1h0m0s: is negative`}},
		"Soak":     {"-soak -1h", []string{`-soak -1h0m0s: is negative`}},
		"Mutant":   {"-mutant no-brain", []string{`-mutant "no-brain": is no defect's name`}},
		"Report":   {"-report a.md", []string{`-report "a.md": needs -dir`}},
		"Plot":     {"-plot a.svg", []string{`-plot "a.svg": needs -dir`}},
		"Modes":    {"-short -for 1h", []string{"only one of -short"}},
		"Argument": {"kill-any", []string{`argument "kill-any"`}},
		"NoFlag":   {"-server 3", []string{"-server"}},
		"Number":   {"-seed x", []string{`"x"`, "-seed"}},
		"All": {"-servers 0 -workload x -nemesis y -hold -1s", []string{
			"-servers 0", `-workload "x"`, `-nemesis "y"`, "-hold -1s",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(strings.Fields(c.args), io.Discard)
			if err == nil {
				t.Fatal("taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
}

// TestAgain: the command that a failure prints is the cell that failed.
func TestAgain(t *testing.T) {
	t.Parallel()
	cells := slices.Concat(shortCells(7), longCells(7, nil), longCells(7, []string{"cut+hold"}))
	for i := range cells {
		c := &cells[i]
		args, ok := strings.CutPrefix(c.again(), "go run ./test/torture ")
		if !ok {
			t.Fatal(c.again())
		}
		o, err := parse(strings.Fields(args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		// Those come with what a run is, not with the command line.
		got, want := o.cell, *c
		got.Patience, got.Rest, want.Patience, want.Rest = 0, 0, 0, 0
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\n got %+v\nwant %+v", c.again(), got, want)
		}
	}
}

// TestCommandLine: what is not said has its default.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	o, err := parse(nil, io.Discard)
	if err != nil || o.Servers != 3 || !o.Fsync || !slices.Equal(o.Workloads, workloadNames()) || o.given ||
		!slices.Equal(o.Nemeses, []string{"kill-leader"}) || o.Rest != restDefault {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parse(strings.Fields("-for 1h -nemesis cut -report x.md -v"), io.Discard)
	if err != nil || o.limit != time.Hour || !o.given || !slices.Equal(o.Nemeses, []string{"cut"}) {
		t.Errorf("%+v, %v", o, err)
	}
}
