package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestMain is the program where a row starts a process of its own.
func TestMain(m *testing.M) {
	quiet()
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], childPrefix) {
		exit(runChild(os.Args[1:]))
	}
	os.Exit(m.Run())
}

var lineFormat = regexp.MustCompile(
	`^([a-z0-9-]+) ours=([0-9.]+)(ns|us|ms|/s|B|allocs) raw=([0-9.]+)(ns|us|ms|/s|B|allocs) ratio=([0-9.]+) target=([0-9.]+) (ok|short)$`)

// TestRows runs every row with little work. What the rows measure then is noise:
// only that they work and how they print is looked at.
func TestRows(t *testing.T) {
	t.Parallel()
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := run(t.Context(), []string{"-short", "-dir", t.TempDir(), "-row", r.name}, &out); err != nil {
				t.Fatal(err)
			}
			checkLines(t, r, out.String())
		})
	}
}

func checkLines(t *testing.T, r row, text string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	parts := lineFormat.FindStringSubmatch(lines[0])
	if parts == nil {
		t.Fatalf("%q is not <row> ours=<figure> raw=<figure> ratio=<r> target=<t> <ok|short>", lines[0])
	}
	if parts[1] != r.name || parts[3] != parts[5] {
		t.Errorf("%q: another row, or two units", lines[0])
	}
	for _, i := range []int{2, 4, 6, 7} {
		if v, err := strconv.ParseFloat(parts[i], 64); err != nil || v <= 0 {
			t.Errorf("%q: %q is not above 0", lines[0], parts[i])
		}
	}
	if len(lines) < 2 {
		t.Error("nothing about the spread")
	}
	for _, l := range lines[1:] {
		if !strings.HasPrefix(l, "    ") {
			t.Errorf("%q is not indented", l)
		}
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	names := func(o options) string {
		selected, err := selectRows(o)
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, r := range selected {
			all = append(all, r.name)
		}
		return strings.Join(all, " ")
	}
	if got := names(options{rows: "load-1m, append-1"}); got != "load-1m append-1" {
		t.Error(got)
	}
	if got := names(options{rows: "none"}); !strings.Contains(got, `no row "none"`) {
		t.Error(got)
	}
	if got := names(options{}); strings.Contains(got, "load-1m") || !strings.Contains(got, "load-10k") {
		t.Error(got)
	}
	if got := names(options{full: true}); !strings.Contains(got, "load-1m") {
		t.Error(got)
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	samples := func(costs ...float64) []sample {
		out := make([]sample, 0, len(costs))
		for _, c := range costs {
			out = append(out, sample{nanos: c})
		}
		return out
	}
	// One slice met a disturbance: the median does not see it.
	r := result{
		names: []string{"ours", "raw"}, plan: plan{slices: 5, ops: 10},
		samples: [][]sample{samples(1250, 1250, 9000, 1250, 1250), samples(1000, 1000, 1000, 1000, 1000)},
	}
	ours, raw, ratio, low, high := r.figures()
	if ours != 1250 || raw != 1000 || ratio != 0.8 || low > ratio || high != 0.8 {
		t.Error(ours, raw, ratio, low, high)
	}
	if text := r.lines(row{name: "x", target: 0.8}); !strings.HasPrefix(text, "x ours=1.2us raw=1.0us ratio=0.80 target=0.80 ok\n") {
		t.Error(text)
	}
	if text := r.lines(row{name: "x", target: 0.81}); !strings.Contains(text, " short\n") {
		t.Error(text)
	}
	// An interval that spans everything proves nothing.
	r.samples[0] = samples(900, 1300, 2000, 1900, 1200)
	if text := r.lines(row{name: "x", target: 0.95}); !strings.Contains(text, " short\n") {
		t.Error(text)
	}
	// Where less is better, the ratio is ours over raw.
	r = result{unit: "B", ours: 300, raw: 200}
	if text := r.lines(row{name: "x", lower: true, target: 1.5}); text != "x ours=300B raw=200B ratio=1.50 target=1.50 ok\n" {
		t.Error(text)
	}
	if text := r.lines(row{name: "x", lower: true, target: 1.4}); !strings.Contains(text, " short\n") {
		t.Error(text)
	}
}
