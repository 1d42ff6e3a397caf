package app

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// runner runs until its context ends.
type runner = func(context.Context) error

// part is something that runs, and that people may stop and start again.
type part struct {
	name string
	// prepare makes what runs, each time that it is started.
	prepare func() (runner, error)

	mu      sync.Mutex
	next    runner
	stopped bool
	// changed is closed when stopped changes, ended when what ran has ended, which
	// over tells.
	changed, ended chan struct{}
	over           bool
}

// add adds a part. What cannot be made is told at once.
func (a *App) add(name string, prepare func() (runner, error)) error {
	run, err := prepare()
	if err != nil {
		return err
	}
	a.parts = append(a.parts, &part{
		name: name, prepare: prepare, next: run, changed: make(chan struct{}), ended: make(chan struct{}),
	})
	return nil
}

// Run runs every module until ctx ends, which drains them and returns nil, or
// until one of them fails, which ends them all.
func (a *App) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range a.parts {
		g.Go(func() error {
			if err := p.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// run runs the part whenever it is not stopped.
func (p *part) run(ctx context.Context) error {
	for {
		run, changed := p.begin()
		if run == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		err := once(ctx, run, changed)
		if p.running() || ctx.Err() != nil {
			return err
		}
	}
}

// begin is what to run, nil while it is stopped.
func (p *part) begin() (run runner, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		if !p.over {
			p.over = true
			close(p.ended)
		}
		return nil, p.changed
	}
	return p.next, p.changed
}

// once runs it until it is stopped.
func once(ctx context.Context, run runner, changed <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-changed:
			cancel()
		}
	})
	err := run(ctx)
	cancel()
	wg.Wait()
	return err
}

// running tells whether it runs, or is to.
func (p *part) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.stopped
}

// stop stops it, and waits until it has ended.
func (p *part) stop(ctx context.Context) error {
	p.mu.Lock()
	if !p.stopped {
		p.stopped, p.over, p.ended = true, false, make(chan struct{})
		close(p.changed)
		p.changed = make(chan struct{})
	}
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ended:
		return nil
	}
}

// start lets it run again.
func (p *part) start(ctx context.Context) error {
	if p.running() {
		return nil
	}
	if err := p.stop(ctx); err != nil { // it may still be ending
		return err
	}
	run, err := p.prepare()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.next, p.stopped = run, false
		close(p.changed)
		p.changed = make(chan struct{})
	}
	return nil
}
