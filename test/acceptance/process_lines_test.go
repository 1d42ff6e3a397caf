package acceptance_test

import "testing"

// TestLines: a line is found behind many others, and after the process has ended.
func TestLines(t *testing.T) {
	t.Parallel()
	p := start(t, "many lines", nil, "sh", "-c", "seq 1 1000; echo wanted it; echo and more")
	<-p.done
	if got := p.line(t, "wanted "); got != "it" {
		t.Errorf("%q", got)
	}
	if got := p.line(t, "and "); got != "more" {
		t.Errorf("%q", got)
	}
}
