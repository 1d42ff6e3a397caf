package projection

import (
	"errors"
	"log/slog"
	"sync"
)

// board is where an updater of either kind shows how it is.
type board struct {
	log *slog.Logger

	mu     sync.Mutex
	status Status
}

func (b *board) set(change func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.status)
}

// stopped says that the view has stopped.
func (b *board) stopped(err error) {
	state := StateStopped
	if errors.Is(err, ErrSuperseded) {
		state = StateSealed
	}
	b.set(func(s *Status) { s.State, s.Owner, s.Err = state, "", err })
	b.log.Error("view updater stopped", "error", err)
}
