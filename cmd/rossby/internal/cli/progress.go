package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// How often progress is shown, to a person and in a log.
const (
	progressTerminal = 100 * time.Millisecond
	progressLog      = 10 * time.Second
	progressWidth    = 30
)

// progress shows how far long work is: a bar on a terminal, a line now and then
// elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	what     string
	began    time.Time
	last     time.Time
	// drawn tells that a bar is there now, shown that there ever was one.
	drawn, shown bool
	now          func() time.Time
}

func (a *app) progress(what string) *progress {
	now := time.Now()
	return &progress{w: a.env.Err, terminal: a.env.ErrTerminal, what: what, began: now, last: now, now: time.Now}
}

// at shows that done of total is done; total 0 is not known.
func (p *progress) at(done, total uint64) {
	now := p.now()
	every := progressLog
	if p.terminal {
		every = progressTerminal
	}
	if now.Sub(p.last) < every && (!p.terminal || p.shown) {
		return
	}
	p.shown = true
	p.last = now
	text := progressText(p.what, done, total, now.Sub(p.began))
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.drawn = true
		return
	}
	_, _ = fmt.Fprintln(p.w, text)
}

// end takes the bar away.
func (p *progress) end() {
	if p.drawn {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func progressText(what string, done, total uint64, took time.Duration) string {
	if total == 0 {
		return fmt.Sprintf("%s %s", what, number(done))
	}
	share := min(float64(done)/float64(total), 1)
	full := int(share * progressWidth)
	text := fmt.Sprintf("%s [%s%s] %3.0f %% %s of %s", what, strings.Repeat("=", full),
		strings.Repeat(" ", progressWidth-full), 100*share, number(done), number(total))
	if share > 0 && share < 1 && took > time.Second {
		left := time.Duration(float64(took) * (1 - share) / share).Round(time.Second)
		text += fmt.Sprintf(", about %v left", left)
	}
	return text
}
