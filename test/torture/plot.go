package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// rigProcess is the name of this process among the samples.
const rigProcess = "rig"

// sampled are the samples of one process, in the order of time.
type sampled struct {
	process string
	points  []point
}

// point is one sample. What nobody answered is below 0.
type point struct {
	minute float64
	// values are those of soakColumns from the third on.
	values []float64
}

// The columns of a point's values.
const (
	atRSS = iota
	atHeap
	atFiles
	atGoroutines
	atConsumers
	atMessages
	atOperations
	atFaults
)

// readSoak reads what a soak has sampled.
func readSoak(path string) (all []sampled, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 || !slices.Equal(rows[0], soakColumns()) {
		return nil, fmt.Errorf("%s holds no samples of a soak", path)
	}
	for n, row := range rows[1:] {
		p := point{}
		for i, text := range row {
			value := -1.0
			if i != 1 && text != "" {
				if value, err = strconv.ParseFloat(text, 64); err != nil {
					return nil, fmt.Errorf("%s, line %d, %s: %w", path, n+2, rows[0][i], err)
				}
			}
			switch i {
			case 0:
				p.minute = value / 60
			case 1:
			default:
				p.values = append(p.values, value)
			}
		}
		i := slices.IndexFunc(all, func(s sampled) bool { return s.process == row[1] })
		if i < 0 {
			i, all = len(all), append(all, sampled{process: row[1]})
		}
		all[i].points = append(all[i].points, p)
	}
	return all, nil
}

// plotSoak draws the samples, and prints a table of them.
func plotSoak(path, svg string, out io.Writer) error {
	all, err := readSoak(path)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, soakTable(all, 5)); err != nil {
		return err
	}
	// The rig keeps the history, and grows with it.
	all = slices.DeleteFunc(all, func(s sampled) bool { return s.process == rigProcess })
	return os.WriteFile(svg, []byte(draw(all)), 0o644) //nolint:gosec // a picture for everybody
}

// median of a column in the minutes from one to another, below 0 for none. A garbage
// collection or a restart is no trend.
func (s *sampled) median(column int, from, to float64) float64 {
	var values []float64
	for _, p := range s.points {
		if p.minute >= from && p.minute < to && p.values[column] >= 0 {
			values = append(values, p.values[column])
		}
	}
	if len(values) == 0 {
		return -1
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// soakTable has a line for so many minutes, of medians.
func soakTable(all []sampled, every float64) string {
	var b strings.Builder
	b.WriteString("| minutes | operations | commits | disturbances | consumers |")
	for _, s := range all {
		fmt.Fprintf(&b, " %s |", s.process)
	}
	b.WriteString("\n|" + strings.Repeat("---|", 5+len(all)) + "\n")
	first := all[0].points
	end := first[len(first)-1].minute
	for from := 0.0; from < end; from += every {
		to := from + every
		last := func(column int) float64 {
			value := -1.0
			for _, p := range first {
				if p.minute < to {
					value = max(value, p.values[column])
				}
			}
			return value
		}
		fmt.Fprintf(&b, "| %.0f–%.0f | %.0f | %.0f | %.0f | %.0f |", from, min(to, end), last(atOperations), last(atMessages),
			last(atFaults), all[0].median(atConsumers, from, to))
		for _, s := range all {
			if s.median(atRSS, from, to) < 0 {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&b, " %.0f / %.1f / %.0f / %.0f |", s.median(atRSS, from, to)/1024, s.median(atHeap, from, to)/1024,
				s.median(atGoroutines, from, to), s.median(atFiles, from, to))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// A panel of the picture, in pixels.
const (
	panelWide, panelHigh = 420, 170
	plotWide, plotHigh   = 360, 110
	plotLeft, plotTop    = 48, 30
	// plotPoints is how many a line has at most.
	plotPoints = 60
)

// draw makes a picture of four panels, with a line for each process.
func draw(all []sampled) string {
	panels := []struct {
		title  string
		column int
		unit   float64
	}{
		{"memory (RSS), MiB", atRSS, 1024}, {"live heap, MiB", atHeap, 1024}, {"goroutines", atGoroutines, 1},
		{"open files and connections", atFiles, 1},
	}
	colours := []string{"#888888", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7"}
	end := 0.0
	for _, s := range all {
		end = max(end, s.points[len(s.points)-1].minute)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" `+
		`font-family="sans-serif" font-size="11">`+
		"\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", 2*panelWide, 2*panelHigh+24)
	for i, panel := range panels {
		x, y := (i%2)*panelWide+plotLeft, (i/2)*panelHigh+plotTop
		most := 0.0
		for _, s := range all {
			for _, p := range s.points {
				most = max(most, p.values[panel.column]/panel.unit)
			}
		}
		most = max(most, 1)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><path d="M%d %dv%dh%d" fill="none" stroke="#444"/>`+
			`<text x="%d" y="%d" text-anchor="end">%.0f</text><text x="%d" y="%d" text-anchor="end">0</text>`+
			`<text x="%d" y="%d" text-anchor="end">%.0f min</text>`+"\n",
			x, y-8, panel.title, x, y, plotHigh, plotWide, x-4, y+8, most, x-4, y+plotHigh, x+plotWide, y+plotHigh+14, end)
		for k, s := range all {
			fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" points="`, colours[k%len(colours)])
			for n := range plotPoints {
				from, to := end*float64(n)/plotPoints, end*float64(n+1)/plotPoints
				if v := s.median(panel.column, from, to); v >= 0 {
					fmt.Fprintf(&b, "%.0f,%.1f ", float64(x)+(from+to)/2/max(end, 1e-9)*plotWide,
						float64(y)+plotHigh-v/panel.unit/most*plotHigh)
				}
			}
			b.WriteString("\"/>\n")
		}
	}
	for k, s := range all {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n",
			plotLeft+k*80, 2*panelHigh+14, colours[k%len(colours)], s.process)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
