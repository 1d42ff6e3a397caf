package load

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
)

// printf writes a line. That nobody reads it changes nothing.
func (d *driver) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(d.cfg.Out, format+"\n", args...)
}

// progress prints a line each second.
func (d *driver) progress(over <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		d.mu.Lock()
		line := fmt.Sprintf("%4.0fs  accepted %d of %d, ended %d, under way %d, attempts repeated %d",
			time.Since(d.begin).Seconds(), d.accepted, d.cfg.Transfers, len(d.ends), len(d.pending), d.retries)
		if stalled := time.Since(d.moved); stalled > 5*time.Second && d.lastErr != nil {
			line += fmt.Sprintf("; nothing for %.0fs: %v", stalled.Seconds(), d.lastErr)
		}
		d.mu.Unlock()
		d.printf("%s", line)
	}
}

// report prints how it went.
func (d *driver) report() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.printf("\n%d transfers between %d accounts by %d clients", d.accepted, len(d.accounts), d.cfg.Clients)
	accepting, ending := d.acceptedAt.Sub(d.begin), max(0, d.last.Sub(d.begin))
	d.printf("accepted   %8.0f/s   in %v", rate(len(d.accepts), accepting), round(accepting))
	d.printf("ended      %8.0f/s   in %v", rate(len(d.ends), ending), round(ending))
	slices.Sort(d.accepts)
	slices.Sort(d.ends)
	d.printf("accept     p50 %v   p90 %v   p99 %v   max %v",
		percentile(d.accepts, 50), percentile(d.accepts, 90), percentile(d.accepts, 99), percentile(d.accepts, 100))
	d.printf("end to end p50 %v   p99 %v   max %v",
		percentile(d.ends, 50), percentile(d.ends, 99), percentile(d.ends, 100))
	states := make([]string, 0, len(d.states))
	for s := range d.states {
		states = append(states, string(s))
	}
	slices.Sort(states)
	for i, s := range states {
		states[i] = fmt.Sprintf("%s %d", s, d.states[transfer.State(s)])
	}
	d.printf("outcomes   %s", strings.Join(states, ", "))
	d.printf("repeated   %d attempts", d.retries)
	if d.lastErr != nil {
		d.printf("           the last because: %v", d.lastErr)
	}
}

func (d *driver) reportBooks(sum, deposited int64, wrong int, b books) {
	verdict := "they balance"
	if wrong > 0 || sum != deposited || !b.holds {
		verdict = "THEY DO NOT BALANCE"
	}
	d.printf("books      own accounts hold %d of %d cents, %d accounts are wrong", sum, deposited, wrong)
	d.printf("           the bank: %d deposited, %d in accounts, %d under way: %s",
		b.deposited, b.balances, b.underWay, verdict)
}

func rate(n int, d time.Duration) float64 { return float64(n) / max(d.Seconds(), 1e-9) }

// percentile is the least of the sorted durations that so many percent do not
// exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return round(sorted[max(0, (len(sorted)*p+99)/100-1)])
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
