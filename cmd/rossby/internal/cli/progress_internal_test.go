package cli

import (
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	shown := func(terminal bool) (*progress, *strings.Builder) {
		var out strings.Builder
		return &progress{w: &out, terminal: terminal, what: "verify", began: now, last: now, now: func() time.Time { return now }}, &out
	}
	bar, onTerminal := shown(true)
	line, inLog := shown(false)
	for i := range 100 {
		now = now.Add(time.Second)
		bar.at(uint64(i+1), 200)
		line.at(uint64(i+1), 200)
	}
	bar.end()
	line.end()
	if got := onTerminal.String(); strings.Count(got, "\r\x1b[K") != 101 || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q", got)
	}
	want := "verify [" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "]  50 % 100 of 200, about 1m40s left"
	if got := onTerminal.String(); !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
	if got := strings.Count(inLog.String(), "\n"); got != 10 || strings.ContainsAny(inLog.String(), "\r\x1b") {
		t.Errorf("%d lines: %q", got, inLog.String())
	}
	if got := progressText("import", 1234567, 0, 0); got != "import 1,234,567" {
		t.Errorf("%q", got)
	}
	if got := progressText("import", 7, 5, time.Minute); !strings.Contains(got, "100 %") {
		t.Errorf("%q", got) // more than was expected
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4096.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
