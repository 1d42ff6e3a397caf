package promql_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/rossby-go/rossby/test/signals/shop"
)

// edge is where an alert begins.
type edge struct {
	// hold is how long it must last, and said how docs/signals.md says it.
	hold time.Duration
	said string
	// below is just not it, above just is. Of counters it is what comes in a second.
	below, above map[string]float64
	counters     bool
}

// gauge is the edge of an alert about one series.
func gauge(hold time.Duration, said, series string, below, above float64) edge {
	return edge{hold: hold, said: said, below: map[string]float64{series: below}, above: map[string]float64{series: above}}
}

// late is the edge of an alert about one in a hundred: of a thousand in a second so
// many are within the bound, as a bucket tells.
func late(metric, bound string) edge {
	buckets := func(within float64) map[string]float64 {
		return map[string]float64{
			metric + `_bucket{le="` + bound + `"}`: within, metric + `_bucket{le="60"}`: 1000, metric + `_bucket{le="+Inf"}`: 1000,
		}
	}
	return edge{hold: 5 * time.Minute, said: "5 m", below: buckets(990), above: buckets(989.999), counters: true}
}

const minutes = time.Minute

var edges = map[string]edge{
	"RossbyDisconnected":   gauge(minutes, "1 m", `rossby_connection_up`, 1, 0),
	"RossbyStoreDown":      gauge(minutes, "1 m", `rossby_store_up`, 1, 0),
	"RossbyNotDurable":     gauge(5*minutes, "5 m", `rossby_store_durability`, 3, 2),
	"RossbyReplicaMissing": gauge(5*minutes, "5 m", `rossby_store_replicas_missing`, 0, 1),
	"RossbyModuleNotReady": gauge(minutes, "1 m", `rossby_module_ready`, 1, 0),
	"RossbyFollowerLags":   gauge(5*minutes, "5 m", `rossby_follower_lag_time_seconds`, 60, 60.001),
	"RossbyViewLags":       gauge(5*minutes, "5 m", `rossby_view_lag`, 10_000, 10_001),
	"RossbyViewStopped":    gauge(0, "0 m", `rossby_view_stopped`, 0, 1),
	"RossbyParked":         gauge(5*minutes, "5 m", `rossby_follower_parked`, 0, 1),
	"RossbyBreakerOpen":    gauge(5*minutes, "5 m", `rossby_gateway_breaker_open`, 0, 1),
	"RossbyConflicts": {
		hold: 10 * minutes, said: "10 m", counters: true,
		below: map[string]float64{`rossby_repository_conflicts_total`: 199.9, `rossby_repository_commits_total`: 1000},
		above: map[string]float64{`rossby_repository_conflicts_total`: 200.1, `rossby_repository_commits_total`: 1000},
	},
	"RossbyBusy": {
		hold: 5 * minutes, said: "5 m", counters: true,
		below: map[string]float64{`rossby_service_busy_total`: .999}, above: map[string]float64{`rossby_service_busy_total`: 1.001},
	},
	"RossbyAppendsSlow": late("rossby_append_duration_seconds", "1"),
	"RossbyViewLate":    late("rossby_view_delay_seconds", "5"),
}

// Each alert begins just above its threshold and not at it, waits to the second as
// long as its rule and docs/signals.md say, and begins anew after a moment without.
func TestThresholds(t *testing.T) {
	t.Parallel()
	guide := string(shop.Need(os.ReadFile("../../docs/signals.md"))(t))
	for _, r := range alerts(t) {
		e, ok := edges[r.name]
		if !ok {
			t.Errorf("%s has no edge", r.name)
		} else if r.hold != e.hold {
			t.Errorf("%s waits %v, not %v", r.name, r.hold, e.hold)
		}
		if row := rowOf(guide, r.name); len(row) != 6 || strings.TrimSpace(row[3]) != e.said {
			t.Errorf("docs/signals.md does not say that %s waits %s: %q", r.name, e.said, row)
		}
	}
	for name, e := range edges {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, name, e, e.below)
			p.lasts(t, e.below, 2*e.hold+10*time.Second)
			p.is(t, "at the threshold", false, false)

			p = newPlay(t, name, e, e.above)
			if e.hold > 0 {
				p.lasts(t, e.above, e.hold) // the first look is at its beginning
				p.is(t, "a second before its time", true, false)
			}
			if e.hold > 0 && !e.counters { // which have what was in the last minutes
				p.lasts(t, e.below, time.Second)
				p.is(t, "when it was over for a second", false, false)
				p.lasts(t, e.above, e.hold)
				p.is(t, "a second before its time, anew", true, false)
			}
			p.lasts(t, e.above, time.Second)
			p.is(t, "when its time has come", true, true)
		})
	}
}

// rowOf is what a table of a document says about an alert.
func rowOf(guide, name string) []string {
	for line := range strings.Lines(guide) {
		if strings.HasPrefix(line, "| `"+name+"` |") {
			return strings.Split(line, "|")
		}
	}
	return nil
}

// play is a server that gets made-up values each second, and evaluates one rule.
type play struct {
	*server

	rule   *rule
	counts bool
	sums   map[string]float64
}

// newPlay begins one. Counters have grown for as long as the rules look back.
func newPlay(t *testing.T, name string, e edge, before map[string]float64) *play {
	t.Helper()
	p := &play{server: newServer(t), counts: e.counters, sums: map[string]float64{}}
	for _, r := range p.rules {
		if r.name == name {
			p.rule = r
		}
	}
	if p.rule == nil {
		t.Fatalf("%s is no alert", name)
	}
	if e.counters {
		for range 5 * 60 {
			p.second(t, before)
		}
	}
	return p
}

// lasts lets time pass, second by second.
func (p *play) lasts(t *testing.T, values map[string]float64, d time.Duration) {
	t.Helper()
	for range int(d / time.Second) {
		p.second(t, values)
		p.evaluate(t, p.rule)
	}
}

// second is the next one, in which the metrics are scraped.
func (p *play) second(t *testing.T, values map[string]float64) {
	t.Helper()
	p.now = p.now.Add(time.Second)
	for text, v := range values {
		if p.sums[text] += v; p.counts {
			v = p.sums[text]
		}
		have := p.series[text]
		if have == nil {
			have = &series{labels: shop.Need(parser.NewParser(parser.Options{}).ParseMetric(text))(t)}
			p.series[text] = have
		}
		have.samples = append(have.samples, sample{p.now.UnixMilli(), v})
	}
}

// is checks whether the alert waits for its time, and whether that has come.
func (p *play) is(t *testing.T, when string, begun, fires bool) {
	t.Helper()
	if got := len(p.rule.since) > 0; got != begun {
		t.Fatalf("%s: it has begun: %v, want %v", when, got, begun)
	}
	if got := !p.rule.first.IsZero(); got != fires {
		t.Fatalf("%s: it fires: %v, want %v", when, got, fires)
	}
}
