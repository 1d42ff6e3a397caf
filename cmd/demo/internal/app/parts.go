package app

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/jetstream"
)

// runner runs until its context ends.
type runner = func(context.Context) error

// part is something that runs, and that people may stop and start again.
type part struct {
	name string
	// prepare makes what runs, each time that it is started.
	prepare func(context.Context) (runner, error)
	// crashes tells that it has a connection of its own, which kill cuts.
	crashes bool

	mu      sync.Mutex
	next    runner
	conn    *nats.Conn
	stopped bool
	killed  bool
	// changed is closed when stopped changes, ended when what ran has ended, which
	// over tells.
	changed, ended chan struct{}
	over           bool
}

// add adds a part that lives on the process's connection. What cannot be made is
// told at once.
func (a *App) add(name string, prepare func() (runner, error)) error {
	run, err := prepare()
	if err != nil {
		return err
	}
	a.addPart(&part{name: name, prepare: func(context.Context) (runner, error) { return prepare() }}, run)
	return nil
}

// follower adds a part that follows the store, on a connection of its own where
// parts are to crash.
func (a *App) follower(
	ctx context.Context, name string, prepare func(context.Context, *jetstream.Store) (runner, error),
) error {
	p := &part{name: name, crashes: a.cfg.Line != nil}
	p.prepare = func(ctx context.Context) (runner, error) {
		if !p.crashes {
			return prepare(ctx, a.store)
		}
		nc, err := a.cfg.Line.connect(a.cfg.Conn.Opts)
		if err != nil {
			return nil, err
		}
		store, err := jetstream.Attach(ctx, nc, StoreName)
		var run runner
		if err == nil {
			run, err = prepare(ctx, store)
		}
		if err != nil {
			nc.Close()
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conn = nc
		return func(ctx context.Context) error {
			defer nc.Close()
			return run(ctx)
		}, nil
	}
	run, err := p.prepare(ctx)
	if err != nil {
		return err
	}
	a.addPart(p, run)
	return nil
}

func (a *App) addPart(p *part, run runner) {
	p.next, p.changed, p.ended = run, make(chan struct{}), make(chan struct{})
	a.parts = append(a.parts, p)
}

// Run runs every module until ctx ends, which drains them and returns nil, or
// until one of them fails, which ends them all.
func (a *App) Run(ctx context.Context) error {
	defer a.signals.close(a.cfg.Logger) //nolint:contextcheck // ctx is over then
	defer func() {
		for _, f := range a.closes {
			f()
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	if a.cfg.Signals != nil {
		mux := http.NewServeMux()
		a.signals.probes(mux)
		g.Go(func() error { return a.serve(ctx, a.cfg.Signals, mux) })
	}
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
	running, _ := p.state()
	return running
}

func (p *part) state() (running, killed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.stopped, p.killed
}

// stop stops it, and waits until it has ended.
func (p *part) stop(ctx context.Context) error { return p.end(ctx, false) }

// kill cuts its connection in the middle of what it does: to the servers, and to
// whoever takes its place, it is a process that died.
func (p *part) kill(ctx context.Context) error { return p.end(ctx, true) }

func (p *part) end(ctx context.Context, kill bool) error {
	p.mu.Lock()
	if !p.stopped {
		p.stopped, p.killed, p.over, p.ended = true, kill, false, make(chan struct{})
		if kill && p.conn != nil {
			p.conn.Close()
		}
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
	run, err := p.prepare(ctx)
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
