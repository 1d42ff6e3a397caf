package app

import (
	"context"
	"sync"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// durabilityFor is how long a report is shown: the page asks every second, and a
// monitoring port that is away would hold each status up.
const durabilityFor = 10 * time.Second

// reported is the last report.
type reported struct {
	mu     sync.Mutex
	report jetstream.Durability
	until  time.Time
}

// Durability is what the servers do for the bank's commits, at most ten seconds old.
func (a *App) Durability(ctx context.Context) (jetstream.Durability, error) {
	a.reported.mu.Lock()
	defer a.reported.mu.Unlock()
	if time.Now().Before(a.reported.until) {
		return a.reported.report, nil
	}
	d, err := a.store.Durability(ctx, a.cfg.DurabilitySources)
	if err == nil {
		a.reported.report, a.reported.until = d, time.Now().Add(durabilityFor)
	}
	return d, err
}

// checkDurability says at the start what the bank rests on, and refuses what is
// less than required.
func (a *App) checkDurability(ctx context.Context) error {
	d, err := a.Durability(ctx)
	if err != nil {
		return err
	}
	a.cfg.Logger.InfoContext(ctx, "the store is open", "store", a.store.Name(), "durability", d.String())
	for _, problem := range d.Problems {
		a.cfg.Logger.WarnContext(ctx, "a server did not say how durable the store is", "problem", problem)
	}
	return d.Require(a.cfg.RequireDurability)
}
