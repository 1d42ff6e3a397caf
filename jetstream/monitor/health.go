package monitor

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Report says whether a process is ready, and what is the matter with each module.
type Report struct {
	Ready bool   `json:"ready"`
	Store string `json:"store"`
	// Head is the store's last sequence, 0 when it cannot be asked.
	Head uint64 `json:"head"`
	// Reason says why the process is not ready, as far as no module is to blame.
	Reason  string         `json:"reason,omitempty"`
	Modules []ModuleReport `json:"modules"`

	headErr error
}

// ModuleReport says how one module is.
type ModuleReport struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Ready tells that the module does its work, or stands by, or was paused.
	Ready bool `json:"ready"`
	// State is the module's own word: "active", "standby", "paused", "running" …
	State string `json:"state"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	// Position is how far it is, Lag how much is left: of a view that stands still, what
	// came since, too.
	Position uint64 `json:"position,omitempty"`
	Lag      uint64 `json:"lag,omitempty"`
	// Retrying and Parked count the aggregates whose events wait: for another attempt,
	// for a person. The others go on.
	Retrying int `json:"retrying,omitempty"`
	Parked   int `json:"parked,omitempty"`
	// Overdue counts the handlers that do not return; BreakersOpen are the destinations
	// that are left alone for now.
	Overdue      int      `json:"overdue,omitempty"`
	BreakersOpen []string `json:"breakersOpen,omitempty"`
	// LastError is the module's last trouble, mended or not.
	LastError string `json:"lastError,omitempty"`

	// unseen is what the Lag has of which a view that stands still does not know.
	unseen uint64
}

// condition is how a module is, whatever it is.
type condition struct {
	state string
	// runs tells that it does what it is there for, or waits to. works tells that its
	// position has to move when there is work.
	runs, works bool
	position    uint64
	lag         uint64
	unfinished  int
	// busy tells of work that waits for nobody.
	busy     bool
	retrying int
	parked   int
	overdue  int
	open     []string
	err      error
}

func conditionOf(s aggregate.Status) condition {
	c := condition{
		state: string(s.State), position: s.Position, lag: s.Lag, unfinished: s.Unfinished, err: s.LastError,
	}
	for _, l := range s.Blocked {
		if l.Parked {
			c.parked++
		} else {
			c.retrying++
		}
	}
	c.busy = s.Unfinished > len(s.Blocked)
	switch c.state {
	case "active", "full", "replaying":
		c.runs, c.works = true, c.state != "replaying"
	case "standby", "paused":
		c.runs = true
	}
	return c
}

func conditionOfView(sequence func(jetstream.Position) uint64, s projection.Status) condition {
	c := condition{state: string(s.State), position: sequence(s.Position), lag: s.Lag, busy: s.Lag > 0, err: s.Err}
	switch s.State {
	case projection.StateRunning, projection.StateBuilding:
		c.runs, c.works = true, true
	case projection.StateStandby, projection.StatePaused, projection.StateSealed:
		c.runs = true
	default:
	}
	return c
}

// progress tells a module that stands still from one that has nothing to do.
type progress struct {
	mu    sync.Mutex
	seen  step
	since time.Time
}

// step is what changes when a module gets on.
type step struct {
	position, lag uint64
	unfinished    int
}

// stands says for how long the module has stood still with work to do, as far as it
// was looked at: a quiet module is not late when the first work comes.
func (p *progress) stands(c *condition, work bool, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := step{c.position, c.lag, c.unfinished}
	if !work || p.since.IsZero() || at.position != p.seen.position || at.lag < p.seen.lag ||
		at.unfinished < p.seen.unfinished {
		p.since = now
	}
	p.seen = at
	return now.Sub(p.since)
}

// judge says how a module is, given the store's last sequence; 0 is not known.
func (mod *module) judge(ctx context.Context, head uint64, patience time.Duration) ModuleReport {
	r := ModuleReport{Kind: mod.kind, Name: mod.name, Ready: true}
	if mod.look == nil {
		return r
	}
	c := mod.look(ctx)
	r.State, r.Position, r.Lag = c.state, c.position, c.lag
	r.Retrying, r.Parked, r.Overdue, r.BreakersOpen = c.retrying, c.parked, c.overdue, c.open
	if c.err != nil {
		r.LastError = c.err.Error()
	}
	// What waits for another attempt or a person keeps nothing else from moving.
	work := c.works && (mod.follows && head > c.position || c.busy)
	stands := mod.progress.stands(&c, work, time.Now())
	switch {
	case !c.runs:
		r.Ready, r.Reason = false, "does not run: "+c.state
	case work && stands >= patience:
		r.Ready, r.Reason = false, "stands still though there is work: a dead follower"
		// It reads no more, and what it has read last says nothing of what came since.
		if left := head - min(head, c.position); mod.kind == kindView && left > r.Lag {
			r.unseen, r.Lag = left-r.Lag, left
		}
	}
	return r
}

// Report looks at everything once. It never fails: what cannot be found out is part
// of it.
func (m *Monitor) Report(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	return m.report(ctx)
}

func (m *Monitor) report(ctx context.Context) Report {
	r := Report{Ready: true, Store: m.cfg.Store.Name(), Modules: []ModuleReport{}}
	r.Head, r.headErr = m.store.last(ctx)
	switch {
	case !m.cfg.Store.Conn().IsConnected():
		r.Ready, r.Reason = false, "there is no connection to NATS"
	case r.headErr != nil:
		r.Ready, r.Reason = false, "the store does not answer: "+r.headErr.Error()
	}
	if r.headErr != nil {
		r.Head = 0
	}
	for _, mod := range m.watched() {
		report := mod.judge(ctx, r.Head, m.cfg.StallAfter)
		r.Ready = r.Ready && report.Ready
		r.Modules = append(r.Modules, report)
	}
	return r
}

// Ready answers whether the process does its work: 200, or 503, with a [Report] as
// JSON. A module is ready when it runs and, while there is work for it, gets on; one
// that stands by or was paused by a person is ready and says so. One that stood
// still over [Config.StallAfter] is not – as seen by the questions that were asked
// meanwhile, so ask more often than that.
func (m *Monitor) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r := m.Report(req.Context())
		code := http.StatusOK
		if !r.Ready {
			code = http.StatusServiceUnavailable
		}
		m.answer(w, code, r)
	})
}

// Live answers whether the process is worth keeping: 200, or 503 once the connection
// to NATS was closed, which nothing but a new process mends. It asks nobody.
func (m *Monitor) Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		nc := m.cfg.Store.Conn()
		status, code := "ok", http.StatusOK
		if nc.IsClosed() {
			status, code = "the connection to NATS is closed", http.StatusServiceUnavailable
		}
		m.answer(w, code, map[string]string{"status": status, "connection": nc.Status().String()})
	})
}

func (m *Monitor) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		m.cfg.Logger.Debug("health was not answered", "error", err)
	}
}
