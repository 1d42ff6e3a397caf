package aggregate

import (
	"context"
	"sync"
)

// turns lets the commands of this process on one aggregate run one after the
// other: at once, all but one would meet a conflict.
type turns struct {
	mu  sync.Mutex
	ids map[string]*turn
}

type turn struct {
	free  chan struct{}
	users int
}

// take waits for the aggregate's turn, or until ctx ends. Only without an error
// must give be called.
func (t *turns) take(ctx context.Context, id string) error {
	t.mu.Lock()
	w := t.ids[id]
	if w == nil {
		if t.ids == nil {
			t.ids = map[string]*turn{}
		}
		w = &turn{free: make(chan struct{}, 1)}
		w.free <- struct{}{}
		t.ids[id] = w
	}
	w.users++
	t.mu.Unlock()
	select {
	case <-w.free:
		return nil
	case <-ctx.Done():
		t.leave(id, w)
		return context.Cause(ctx)
	}
}

// give passes the turn on.
func (t *turns) give(id string) {
	t.mu.Lock()
	w := t.ids[id]
	t.mu.Unlock()
	w.free <- struct{}{}
	t.leave(id, w)
}

func (t *turns) leave(id string, w *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.users--; w.users == 0 {
		delete(t.ids, id)
	}
}
