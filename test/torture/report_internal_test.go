package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReport: the tables stand between their marks, as often as they are written.
func TestReport(t *testing.T) {
	t.Parallel()
	cut := func(recovered time.Duration) []fault {
		return []fault{{Name: nemCut, Recovered: recovered, Leaders: time.Second, Count: 3}}
	}
	var lines strings.Builder
	for _, r := range []result{
		{
			Cell: cell{Servers: 3, Fsync: true, Workloads: []string{bank}, Nemeses: []string{nemCut}, Seed: 4},
			Took: time.Minute, Operations: 10, Checked: 5, LeftOut: 2, Events: 9, Handled: 8, Faults: cut(3 * time.Second),
		},
		{
			Cell: cell{Servers: 3, Fsync: true, Workloads: []string{bank}, Nemeses: []string{nemCut}, Seed: 9},
			Took: time.Minute, Operations: 1, Faults: cut(1500 * time.Millisecond), Violations: []string{"twice"},
		},
		{
			Cell:       cell{Servers: 1, Workloads: []string{set}, Nemeses: []string{"power-all"}, Seed: 2},
			Operations: 7, Lost: 3, Faults: []fault{{Name: "power-all", Count: 1, Error: "late"}},
		},
	} {
		if err := json.NewEncoder(&lines).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	results := write(t, resultsFile, lines.String())
	document := write(t, "doc.md", "before\n"+reportBegins+"old\n"+reportEnds+"after\n")
	var first string
	for range 2 {
		if err := writeReport(document, results); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(text)
		}
		if string(text) != first {
			t.Error("written again it is another")
		}
	}
	for _, want := range []string{
		"before\n" + reportBegins, reportEnds + "after\n", "3 runs with the seeds 2 to 9, 2m0s of running",
		"18 operations, 5 of them checked for linearizability and 2 left out", "1 runs found something",
		"| R3 fsync | 2 | 11 | 5 | 2 | 9 | 1 | 0 | 0 |", "| R1 lazy | 1 | 7 | 0 | 0 | 0 | 0 | 1 | 3 |",
		"| cut | R3 fsync | 2 | 6 | 3.0 / 3.0 | 2.0 / 2.0 | 1 | 0 |", "| power-all | R1 lazy | 1 | 1 | – | – | 0 | 1 |",
		"| bank | R3 fsync | 2 | 11 | 9 | 1 |",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("lacks %q:\n%s", want, first)
		}
	}
	if strings.Contains(first, "old\n") {
		t.Error("what stood there still does")
	}
	for name, path := range map[string]string{
		"no marks": write(t, "none.md", "text\n"), "no document": filepath.Join(t.TempDir(), "none.md"),
	} {
		if err := writeReport(path, results); err == nil {
			t.Error(name)
		}
	}
	if err := writeReport(document, write(t, "bad.jsonl", "{")); err == nil {
		t.Error("half a result")
	}
}

// TestSoakPlot: the samples become a table of medians, and a picture.
func TestSoakPlot(t *testing.T) {
	t.Parallel()
	rows := []string{
		strings.Join(soakColumns(), ","),
		"0,m0,10240,1024,10,100,5,0,0,0", "0,n0,20480,2048,20,50,5,0,0,0",
		"100,m0,10240,2048,10,100,5,50,60,0",
		"200,m0,10240,3072,11,100,,,90,1", "200,n0,40960,2048,20,50,,,90,1",
		"400,m0,30720,1024,12,90,6,200,220,2",
	}
	text := strings.Join(rows, "\n") + "\n"
	var out strings.Builder
	svg := filepath.Join(t.TempDir(), "soak.svg")
	if err := plotSoak(write(t, soakFile, text), svg, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| minutes | operations | commits | disturbances | consumers | m0 | n0 |",
		"| 0–5 | 90 | 50 | 1 | 5 | 10 / 2.0 / 100 / 10 | 40 / 2.0 / 50 / 20 |",
		"| 5–7 | 220 | 200 | 2 | 6 | 30 / 1.0 / 90 / 12 | – |", // n0 was down
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
	picture, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(picture), "<polyline"); n != 8 || !strings.HasSuffix(string(picture), "</svg>\n") {
		t.Errorf("%d lines in %d bytes", n, len(picture))
	}
	for name, bad := range map[string]string{
		"line 3, goroutines": rows[0] + "\n" + rows[1] + "\n0,m0,1,1,1,many,1,1,1,1\n", "no samples": "a,b\n1,2\n",
	} {
		if err := plotSoak(write(t, soakFile, bad), svg, &out); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
