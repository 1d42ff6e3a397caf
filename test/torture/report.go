package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The document's tables stand between these lines.
const (
	reportBegins = "<!-- torture: begin -->\n"
	reportEnds   = "<!-- torture: end -->\n"
)

// writeReport writes the results into a document that has a place for them.
func writeReport(path, results string) error {
	all, err := readResults(results)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(text, []byte(reportBegins))
	_, after, foundEnd := bytes.Cut(rest, []byte(reportEnds))
	if !found || !foundEnd {
		return fmt.Errorf("%s has no lines %q and %q", path, strings.TrimSpace(reportBegins), strings.TrimSpace(reportEnds))
	}
	text = slices.Concat(before, []byte(reportBegins), []byte(tables(all)), []byte(reportEnds), after)
	return os.WriteFile(path, text, 0o644) //nolint:gosec // a document for everybody
}

// sums adds cells up.
type sums struct {
	runs, violated, operations, checked, leftOut, events, handled, repeats, lost, losing, faults int
	took                                                                                         time.Duration
	recovered, own                                                                               []time.Duration
}

func (s *sums) add(r *result) {
	s.runs++
	if len(r.Violations) > 0 {
		s.violated++
	}
	s.operations, s.checked, s.leftOut = s.operations+r.Operations, s.checked+r.Checked, s.leftOut+r.LeftOut
	s.events, s.handled, s.repeats = s.events+r.Events, s.handled+r.Handled, s.repeats+r.Repeats
	s.took += r.Took
	if s.lost += r.Lost; r.Lost > 0 {
		s.losing++
	}
	for _, f := range r.Faults {
		s.faults += f.Count
		if f.Error == "" && f.Name != nemNone {
			s.recovered = append(s.recovered, f.Recovered)
			s.own = append(s.own, max(f.Recovered-f.Leaders, 0))
		}
	}
}

// recovery is the median and the worst of some times.
func recovery(times []time.Duration) string {
	if len(times) == 0 {
		return "–"
	}
	slices.Sort(times)
	return fmt.Sprintf("%.1f / %.1f", times[len(times)/2].Seconds(), times[len(times)-1].Seconds())
}

// group adds results up by a key, and returns the keys sorted.
func group[K cmp.Ordered](all []result, key func(*result) K) ([]K, map[K]*sums) {
	groups := map[K]*sums{}
	var keys []K
	for i := range all {
		k := key(&all[i])
		if groups[k] == nil {
			groups[k] = &sums{}
			keys = append(keys, k)
		}
		groups[k].add(&all[i])
	}
	slices.Sort(keys)
	return keys, groups
}

func configuration(r *result) string {
	if r.Cell.Fsync {
		return fmt.Sprintf("R%d fsync", r.Cell.Servers)
	}
	return fmt.Sprintf("R%d lazy", r.Cell.Servers)
}

func tables(all []result) string {
	var b strings.Builder
	total := &sums{}
	first, last := uint64(1<<63), uint64(0)
	for i := range all {
		total.add(&all[i])
		first, last = min(first, all[i].Cell.Seed), max(last, all[i].Cell.Seed)
	}
	fmt.Fprintf(&b, "%s\n\n", versions())
	fmt.Fprintf(&b, "%d runs with the seeds %d to %d, %s of running in all: %d operations, %d of them checked for "+
		"linearizability and %d left out, %d events, %d deliveries. %d runs found something that must not be.\n\n",
		total.runs, first, last, total.took.Round(time.Minute), total.operations, total.checked, total.leftOut, total.events,
		total.handled, total.violated)

	b.WriteString("By configuration. *Losing* are the runs that lost acknowledged events, as the configuration may.\n\n" +
		"| configuration | runs | operations | linearizable | left out | events | violated | losing | lost |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	keys, sum := group(all, configuration)
	for _, k := range keys {
		s := sum[k]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %d |\n",
			k, s.runs, s.operations, s.checked, s.leftOut, s.events, s.violated, s.losing, s.lost)
	}
	b.WriteString("\nBy nemesis and configuration. *Faults* counts kills, cuts, messages lost and so on; *recovery* is " +
		"the median and the longest time, in seconds, from the end of the disturbance until a payment went all the way; " +
		"*after elections* the part of it after the servers had leaders.\n\n" +
		"| nemesis | configuration | runs | faults | recovery | after elections | violated | losing |\n" +
		"|---|---|---|---|---|---|---|---|\n")
	keys, sum = group(all, func(r *result) string {
		return strings.Join(r.Cell.Nemeses, ", ") + " | " + configuration(r)
	})
	for _, k := range keys {
		s := sum[k]
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %d | %d |\n",
			k, s.runs, s.faults, recovery(s.recovered), recovery(s.own), s.violated, s.losing)
	}
	b.WriteString("\nBy workload.\n\n" +
		"| workload | configuration | runs | operations | events | violated |\n|---|---|---|---|---|---|\n")
	keys, sum = group(all, func(r *result) string {
		return strings.Join(r.Cell.Workloads, " + ") + " | " + configuration(r)
	})
	for _, k := range keys {
		s := sum[k]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", k, s.runs, s.operations, s.events, s.violated)
	}
	b.WriteString("\n")
	return b.String()
}

// versions are those of what was run.
func versions() string {
	text := "Versions: " + strings.Replace(runtime.Version(), "go", "Go ", 1)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return text + "."
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go", "github.com/anishathalye/porcupine":
			text += ", " + strings.TrimPrefix(d.Path, "github.com/") + " " + d.Version
		}
	}
	return fmt.Sprintf("%s; %s/%s, %d processors.", text, runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
