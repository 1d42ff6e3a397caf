package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

func sortBy[T any, K cmp.Ordered](list []T, key func(T) K) {
	slices.SortFunc(list, func(x, y T) int { return cmp.Compare(key(x), key(y)) })
}

// uniqueBy sorts a list and leaves out all but the first of those with the same key.
func uniqueBy[T any, K cmp.Ordered](list []T, key func(T) K) []T {
	slices.SortStableFunc(list, func(x, y T) int { return cmp.Compare(key(x), key(y)) })
	return slices.CompactFunc(list, func(x, y T) bool { return key(x) == key(y) })
}

// show prints a value: as JSON, or as human writes it.
func (a *app) show(v any, human func(w io.Writer)) error {
	if a.json {
		enc := json.NewEncoder(a.env.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	w := bufio.NewWriter(a.env.Out)
	human(w)
	return w.Flush()
}

// line prints one of many values, each on a line: as JSON, or as human writes it.
func (a *app) line(v any, human func(w io.Writer)) error {
	if a.json {
		enc := json.NewEncoder(a.env.Out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	w := bufio.NewWriter(a.env.Out)
	human(w)
	return w.Flush()
}

// list prints rows: as a JSON array, never null, or as a table.
func list[T any](a *app, rows []T, none string, header []string, cells func(T) []string) error {
	if rows == nil {
		rows = []T{}
	}
	return a.show(rows, func(w io.Writer) {
		if len(rows) == 0 {
			_, _ = fmt.Fprintln(w, none)
			return
		}
		table(w, header, rows, cells)
	})
}

func table[T any](w io.Writer, header []string, rows []T, cells func(T) []string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, r := range rows {
		all := cells(r)
		for i := range all {
			all[i] = cmp.Or(oneLine(all[i]), "-")
		}
		_, _ = fmt.Fprintln(tw, strings.Join(all, "\t"))
	}
	_ = tw.Flush()
}

const labelPosition = "Position"

// field is a line of a description.
type field struct{ name, value string }

func fields(w io.Writer, all ...field) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range all {
		if f.value != "" {
			_, _ = fmt.Fprintf(tw, "%s:\t%s\n", f.name, oneLine(f.value))
		}
	}
	_ = tw.Flush()
}

// oneLine keeps what others wrote from moving the terminal's cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

func number[N int | int64 | uint64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return strconv.FormatUint(bytes, 10) + " B"
	}
	value, prefix := float64(bytes), ""
	for _, prefix = range []string{"Ki", "Mi", "Gi", "Ti", "Pi"} {
		if value /= unit; value < unit {
			break
		}
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + prefix + "B"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000Z")
}

func stampOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// confirm asks before something that cannot be undone.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.yes {
		return nil
	}
	if !a.env.InTerminal {
		return &usageError{question + " Nobody can be asked here: pass --yes if that is meant", nil}
	}
	_, _ = fmt.Fprintf(a.env.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		// It ends with the input; after an interrupt, with the program.
		line, err := bufio.NewReader(a.env.In).ReadString('\n')
		if err != nil && line == "" {
			_, _ = fmt.Fprintln(a.env.Err)
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.env.Err)
		return context.Cause(ctx)
	case text := <-answer:
		if text == "y" || text == "yes" {
			return nil
		}
		return errDeclined
	}
}

// shared is a writer of several goroutines: a connection has news at any time.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// notef tells a person something beside the result.
func (a *app) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(a.env.Err, format+"\n", args...)
}
