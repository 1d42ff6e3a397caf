// Package once is for what is asked of the servers on first use and known from then on.
package once

import (
	"context"
	"sync"
)

// Once does something until it has succeeded. Its zero value is ready to use.
type Once struct {
	mu   sync.Mutex
	done bool
	turn chan struct{} // has a place for who tries
}

// Do calls try unless a call has succeeded before. One call goes on at a time; who waits
// for that of another does so until its own ctx ends, whose cause is then the error, and
// tries itself when the other has failed.
func (o *Once) Do(ctx context.Context, try func(ctx context.Context) error) error {
	turn, done := o.state()
	if done {
		return nil
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if _, done = o.state(); done {
		return nil
	}
	if err := try(ctx); err != nil {
		return err
	}
	o.set(true)
	return nil
}

// Forget lets the next call of Do try again.
func (o *Once) Forget() { o.set(false) }

func (o *Once) state() (turn chan struct{}, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.turn == nil {
		o.turn = make(chan struct{}, 1)
	}
	return o.turn, o.done
}

func (o *Once) set(done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done = done
}
