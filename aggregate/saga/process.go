package saga

import (
	"context"
	"errors"
	"iter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// ProcessConfig describes how a saga runs. Reactor.Start is required.
type ProcessConfig struct {
	// Links start instances for events and report outcomes: see [StartOn] and
	// [ReportOn]. With every change of them, raise Reactor.Version.
	Links []Link
	// Reactor is that of the reactor that drives the instances.
	Reactor aggregate.ReactorConfig
	// Repository is that of the instances' repository.
	Repository aggregate.RepositoryConfig
	// Timers is that of the steps' deadlines.
	Timers aggregate.TimersConfig
}

// Process runs the instances of a saga. Any number of processes may have one;
// among those that run, one is active at a time.
type Process[D any] struct {
	saga    *Saga[D]
	store   *jetstream.Store
	repo    *aggregate.Repository[State[D]]
	reactor *aggregate.Reactor
	timers  *aggregate.Timers
	index   *index
}

// NewProcess prepares a saga to run. Returns the saga's mistakes and those of the
// configuration.
func NewProcess[D any](
	ctx context.Context, store *jetstream.Store, s *Saga[D], cfg ProcessConfig,
) (*Process[D], error) {
	if store == nil || s == nil {
		return nil, errors.New("saga: the store or the saga is nil")
	}
	if s.err != nil {
		return nil, s.err
	}
	p := &Process[D]{saga: s, store: store, index: newIndex(store, s.name)}
	var err error
	if p.repo, err = aggregate.NewRepository(store, s.typ, cfg.Repository); err != nil {
		return nil, err
	}
	p.reactor, err = aggregate.NewReactor(store, s.name, cfg.Reactor, s.handlers(p.repo, p.index, cfg.Links)...)
	if err != nil {
		return nil, err
	}
	p.timers, err = aggregate.NewTimers(ctx, store, cfg.Timers, p.repo)
	return p, err
}

// Run drives the instances until ctx ends; see [aggregate.Reactor.Run].
func (p *Process[D]) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.reactor.Run(ctx) })
	g.Go(func() error { return p.timers.Run(ctx) })
	return g.Wait()
}

// Start begins an instance; without an id, its is derived from the command's or
// new. It needs no process that runs: whichever does takes the instance on. Errors
// are those of [aggregate.Repository.Create].
func (p *Process[D]) Start(
	ctx context.Context, id string, data D, opts ...aggregate.CallOption,
) (aggregate.Result, error) {
	return p.repo.Create(ctx, id, Start[D]{Data: data}, opts...)
}

// Instances is the repository of the instances: to load one, to read its history,
// to serve [Start] to other programs.
func (p *Process[D]) Instances() *aggregate.Repository[State[D]] { return p.repo }

// Saga is what the process runs.
func (p *Process[D]) Saga() *Saga[D] { return p.saga }

// Retry undoes the step again that an instance is stuck on. Any other instance is
// a rejection with [CodeNotStuck].
func (p *Process[D]) Retry(ctx context.Context, id string) error {
	_, err := p.repo.Execute(ctx, id, retry{})
	return err
}

// Resolve says that somebody has undone by hand what an instance is stuck on; it
// goes on with the step before. Any other instance is a rejection with
// [CodeNotStuck].
func (p *Process[D]) Resolve(ctx context.Context, id, by string) error {
	_, err := p.repo.Execute(ctx, id, resolve{By: by})
	return err
}

// Name is the saga's, which its reactor and its instances' type have, too.
func (p *Process[D]) Name() string { return p.saga.Name() }

// Status is what this process does about the saga; it asks nobody.
func (p *Process[D]) Status() aggregate.Status { return p.reactor.Status() }

// Deadlines is what this process does about the timeouts of the saga's steps; it asks
// nobody.
func (p *Process[D]) Deadlines() aggregate.Status { return p.timers.Status()[p.saga.typ.Name()] }

// Resume tries the instances again whose events are parked, because a step's
// command was invalid or by a policy: one, or all with "".
func (p *Process[D]) Resume(ctx context.Context, id string) error {
	if id == "" {
		return p.reactor.Resume(ctx, "")
	}
	subject, err := p.store.Subject(p.saga.name, id)
	if err != nil {
		return err
	}
	return p.reactor.Resume(ctx, subject)
}

// InFlight is an instance that has not ended.
type InFlight[D any] struct {
	Instance[D]

	Phase Phase
	// Step is the one being done or undone, Done are those done and not undone.
	Step string
	Done []string
	// Since is when it came there. Deadline is when the step expires; it is zero
	// for a step without a Timeout.
	Since, Deadline time.Time
	// StuckOn says why a [Stuck] instance is.
	StuckOn Failure
	// Attempts, Parked and LastError are those of the event that is being handled,
	// when that has failed. Parked waits for [Process.Resume].
	Attempts  int
	Parked    bool
	LastError string
}

// Filter chooses among the instances in flight. The zero value is for all.
type Filter struct {
	// OlderThan is for instances that have been where they are for longer.
	OlderThan time.Duration
	// Step is for those at one step.
	Step string
	// Stuck is for those that wait for a person: stuck or parked.
	Stuck bool
}

// InFlight lists the instances that have not ended, as they are, the one started
// first to the last. It costs one read each, and works in any process. An instance
// appears once its first event was handled: how far behind that is says
// [aggregate.ReadStatus].
func (p *Process[D]) InFlight(ctx context.Context, f Filter) iter.Seq2[InFlight[D], error] {
	return func(yield func(InFlight[D], error) bool) {
		for in, err := range p.inspect(ctx, p.index.ids(ctx)) {
			if err != nil {
				yield(InFlight[D]{}, err)
				return
			}
			if in.Phase.Ended() {
				continue // it is about to leave the list
			}
			if f.wants(in.Step, in.Since, in.Phase == Stuck || in.Parked) && !yield(in, nil) {
				return
			}
		}
	}
}

// Inspect shows instances by their ids, as they are, those that have ended too. Ids
// that are nobody's are left out. It costs one read each.
func (p *Process[D]) Inspect(ctx context.Context, ids ...string) iter.Seq2[InFlight[D], error] {
	return p.inspect(ctx, func(yield func(string, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	})
}

func (p *Process[D]) inspect(ctx context.Context, ids iter.Seq2[string, error]) iter.Seq2[InFlight[D], error] {
	return func(yield func(InFlight[D], error) bool) {
		status, err := aggregate.ReadStatus(ctx, p.store, p.saga.name)
		if err != nil && !errors.Is(err, aggregate.ErrNeverRan) {
			yield(InFlight[D]{}, err)
			return
		}
		blocked := map[string]int{}
		for i, lane := range status.Blocked {
			blocked[lane.Subject] = i
		}
		for id, err := range ids {
			if err != nil {
				yield(InFlight[D]{}, err)
				return
			}
			snap, err := p.repo.Load(ctx, id)
			if errors.Is(err, aggregate.ErrNotFound) {
				continue
			}
			if err != nil {
				yield(InFlight[D]{}, err)
				return
			}
			in := p.inFlight(id, snap.State)
			if subject, err := p.store.Subject(p.saga.name, id); err == nil {
				if i, ok := blocked[subject]; ok {
					lane := status.Blocked[i]
					in.Attempts, in.Parked, in.LastError = lane.Attempts, lane.Parked, lane.Error
				}
			}
			if !yield(in, nil) {
				return
			}
		}
	}
}

func (f Filter) wants(step string, since time.Time, stuck bool) bool {
	return (f.Step == "" || f.Step == step) && (!f.Stuck || stuck) &&
		(f.OlderThan == 0 || time.Since(since) > f.OlderThan)
}

func (p *Process[D]) inFlight(id string, s State[D]) InFlight[D] {
	in := InFlight[D]{
		Instance: Instance[D]{ID: id, Data: s.Data, StartedAt: s.StartedAt, Failure: s.Failure},
		Phase:    s.Phase, Step: s.Step, Done: s.Done, Since: s.Since, StuckOn: s.StuckOn,
	}
	if step, err := p.saga.step(s.Step); err == nil && step.Timeout > 0 && s.Phase == Running {
		in.Deadline = s.Since.Add(step.Timeout)
	}
	return in
}
