package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Admin looks at a view from outside and tells its updaters what to do. It needs
// leave to read and write the view's bucket, and to read the store. It holds no
// resources and is safe for concurrent use. While the bucket has no leader all methods
// but Status ask again until their context's deadline, or for ten seconds without
// one, and then return [ErrUnavailable].
type Admin struct {
	b *bucket
}

// askFor is how long an administrator asks for a bucket's leader when its context
// has no deadline: an election takes four to nine seconds.
const askFor = 10 * time.Second

// NewAdmin prepares the administration of a view. Nothing is asked of the
// servers.
func NewAdmin(nc *nats.Conn, store, view string) (*Admin, error) {
	if err := validateNames(store, view); err != nil {
		return nil, err
	}
	return &Admin{b: newBucket(nc, store, view)}, nil
}

// Generation is one build of a view.
type Generation struct {
	Number int
	// Version is that of the definition that writes it.
	Version int
	// Live tells that it is read, Building that it is to take the live one's place;
	// one that is neither was live before.
	Live, Building bool
	// Auto tells that it goes live when it has caught up.
	Auto bool
	// State and Owner are those of its updater, Error why it stopped, Failed at
	// which event.
	State  State
	Owner  string
	Error  string
	Failed *FailedEvent
	// Position is how far it is, Lag the number of the store's commits after it.
	Position jetstream.Position
	Lag      uint64
	// Done is the share of the store's commits that it holds, from 0 to 1.
	Done float64
	// Rate is the commits a second that it went over lately, Left about how long it
	// takes until it has caught up, 0 when that is not known.
	Rate float64
	Left time.Duration
	// Made is when it was made.
	Made time.Time

	revision uint64
}

// CaughtUp tells whether the generation holds every commit of the store, or nearly:
// a switch takes no longer than a moment.
func (g *Generation) CaughtUp() bool { return g.Lag < tailPending && !g.Position.IsZero() }

// Status tells how the view is: see [ReadStatus].
func (a *Admin) Status(ctx context.Context) (ViewStatus, error) {
	return ReadStatus(ctx, a.b.nc, a.b.store, a.b.view)
}

// Generations lists the view's generations, the oldest first. Returns
// [ErrViewNotFound] and [ErrUnavailable].
func (a *Admin) Generations(ctx context.Context) ([]Generation, error) {
	p, _, err := a.pointer(ctx)
	if err != nil {
		return nil, err
	}
	head, err := again(ctx, a.b, func() (uint64, error) { return a.b.head(ctx) })
	if err != nil {
		return nil, err
	}
	out := make([]Generation, 0, len(p.Generations))
	for i := range p.Generations {
		g := &p.Generations[i]
		cp, rev, err := a.checkpoint(ctx, g.Number)
		if err != nil {
			return nil, err
		}
		o := Generation{
			Number: g.Number, Version: g.Version, Live: g.State == generationLive, Building: g.State == generationBuilding,
			Auto: g.Auto, State: cp.State, Owner: cp.Owner, Error: cp.Error, Failed: cp.Failed,
			Position: makePosition(cp.Store, cp.Position), Rate: cp.Rate, Made: g.Made, revision: rev, Done: 1,
		}
		if head > cp.Position {
			o.Lag = head - cp.Position
			o.Done = float64(cp.Position) / float64(head)
			o.Left = cp.left(head)
		}
		out = append(out, o)
	}
	return out, nil
}

// left is about how long it takes to reach the head: by the rate of late, else by
// that since the owner began.
func (c *checkpoint) left(head uint64) time.Duration {
	rate := c.Rate
	if took := c.Time.Sub(c.Began).Seconds(); rate == 0 && took > 0 && c.Position > c.BeganAt {
		rate = float64(c.Position-c.BeganAt) / took
	}
	if rate <= 0 || head <= c.Position {
		return 0
	}
	return time.Duration(float64(head-c.Position) / rate * float64(time.Second))
}

// RebuildOptions are for [Admin.Rebuild].
type RebuildOptions struct {
	// Switch lets the new generation go live when it has caught up, instead of
	// waiting for [Admin.Switch].
	Switch bool
}

// Rebuild has the view built anew beside the live generation, by the updaters of
// the live one's definition, and returns the new generation's number. It returns
// at once: see [Admin.Generations] for the progress. Readers notice nothing until
// the switch. What builders have done is kept when they crash.
//
// Returns [ErrBuilding] when a generation is being built already.
func (a *Admin) Rebuild(ctx context.Context, opts RebuildOptions) (int, error) {
	number := 0
	var made time.Time
	err := a.point(ctx, func(p *pointer) ([]*nats.Msg, error) {
		if g := p.find(number); g != nil && g.Made.Equal(made) {
			return nil, nil // An earlier attempt was stored.
		}
		live := p.live()
		if live == nil {
			return nil, a.b.absent()
		}
		for i := range p.Generations {
			if g := &p.Generations[i]; g.State == generationBuilding {
				return nil, fmt.Errorf("%w: number %d, of definition version %d", ErrBuilding, g.Number, g.Version)
			}
		}
		cp, _, err := a.checkpoint(ctx, live.Number)
		if err != nil {
			return nil, err
		}
		g := generation{
			Number: p.next(), Version: live.Version, Hash: live.Hash, State: generationBuilding, Auto: opts.Switch,
			Made: time.Now().UTC(), Indexes: live.Indexes,
		}
		number, made = g.Number, g.Made
		p.Generations, p.Last = append(p.Generations, g), g.Number
		m, err := a.b.firstCheckpoint(p.Store, &g, cp.Kind)
		return []*nats.Msg{m}, err
	})
	return number, err
}

// Switch lets a generation take the live one's place, and waits until it has. It
// may be one that is being built, or an old one, which first catches up with what
// has happened since: nobody reads an older answer than before. Updaters of its
// definition version must be running.
//
// Returns [ErrGeneration] when there is no such generation, and ctx's error, after
// which the switch still takes place as soon as it can.
func (a *Admin) Switch(ctx context.Context, number int) error {
	done := false
	err := a.point(ctx, func(p *pointer) ([]*nats.Msg, error) {
		g := p.find(number)
		if g == nil {
			return nil, fmt.Errorf("%w: there is no number %d", ErrGeneration, number)
		}
		if done = g.State == generationLive; done || g.State == generationBuilding && g.Auto {
			return nil, nil
		}
		for i := range p.Generations {
			if o := &p.Generations[i]; o.State == generationBuilding && o.Number != number {
				return nil, fmt.Errorf("%w: number %d: switch to it or remove it first", ErrBuilding, o.Number)
			}
		}
		was := g.State
		g.State, g.Auto = generationBuilding, true
		if was != generationOld {
			return nil, nil
		}
		cp, rev, err := a.checkpoint(ctx, number)
		if err != nil {
			return nil, err
		}
		cp.State, cp.Owner, cp.Epoch, cp.Time = StateFree, "", cp.Epoch+1, time.Now().UTC()
		m, err := a.b.message(a.b.checkpointSubject(number), cp, rev)
		return []*nats.Msg{m}, err
	})
	if err != nil || done {
		return err
	}
	for wait := newBackoff(20*time.Millisecond, 500*time.Millisecond); ; {
		p, _, err := a.pointer(ctx)
		if err == nil {
			if g := p.live(); g != nil && g.Number == number {
				return nil
			}
			if p.find(number) == nil {
				return fmt.Errorf("%w: number %d was removed", ErrGeneration, number)
			}
		}
		if stop := errors.Join(wait.next(ctx), closedError(a.b.nc)); stop != nil {
			return fmt.Errorf("generation %d is not live yet: %w", number, errors.Join(err, stop))
		}
	}
}

// Rollback switches to the generation that was live before: see [Admin.Switch].
// It returns its number.
func (a *Admin) Rollback(ctx context.Context) (int, error) {
	p, _, err := a.pointer(ctx)
	if err != nil {
		return 0, err
	}
	number := 0
	for i := range p.Generations {
		g := &p.Generations[i]
		if g.State == generationOld || g.State == generationBuilding && g.Served {
			number = g.Number
		}
	}
	if number == 0 {
		return 0, fmt.Errorf("%w: none was live before", ErrGeneration)
	}
	return number, a.Switch(ctx, number)
}

// Remove takes a generation that is not live out of the view, and all of its keys
// out of the bucket; one that is being built is given up. It may be repeated until
// it succeeds. The number is not given out again.
//
// Returns [ErrGeneration] for the live generation.
func (a *Admin) Remove(ctx context.Context, number int) error {
	err := a.point(ctx, func(p *pointer) ([]*nats.Msg, error) {
		g := p.find(number)
		if g == nil {
			if number < 1 || number >= p.next() {
				return nil, fmt.Errorf("%w: there is no number %d", ErrGeneration, number)
			}
			return nil, nil // An earlier attempt came as far as here.
		}
		if g.State == generationLive {
			return nil, fmt.Errorf("%w: number %d is live", ErrGeneration, number)
		}
		kept := p.Generations[:0]
		for _, o := range p.Generations {
			if o.Number != number {
				kept = append(kept, o)
			}
		}
		p.Last = p.next() - 1
		p.Generations = kept
		cp, rev, err := a.checkpoint(ctx, number)
		if err != nil {
			return nil, err
		}
		// The seal fences whoever writes it.
		cp.State, cp.Owner, cp.Epoch, cp.Time = StateSealed, "", cp.Epoch+1, time.Now().UTC()
		m, err := a.b.message(a.b.checkpointSubject(number), cp, rev)
		return []*nats.Msg{m}, err
	})
	if err != nil {
		return err
	}
	// The checkpoint goes last: without it nobody writes.
	for _, subject := range []string{
		a.b.keyPrefix(number) + ">", a.b.indexPrefix(number) + ">", a.b.checkpointSubject(number),
	} {
		if err := wire.Purge(ctx, a.b.nc, a.b.stream, subject, 0); err != nil {
			return fmt.Errorf("remove generation %d of view %q: %w", number, a.b.view, err)
		}
	}
	return nil
}

// Pause lets the view wait where it is, all generations of it, until
// [Admin.Resume]: it stays readable. The reason is for people.
func (a *Admin) Pause(ctx context.Context, reason string) error {
	return a.b.change(ctx, func(c *control) error {
		c.Pause = &Pause{Reason: reason, Time: time.Now().UTC()}
		return nil
	})
}

// Resume lets a paused view go on, and a stopped one try again at once.
func (a *Admin) Resume(ctx context.Context) error {
	return a.b.change(ctx, func(c *control) error {
		c.Pause = nil
		c.Resumes++
		return nil
	})
}

// Skip lets the view leave out the event that it has stopped at, which is
// [ViewStatus.Failed] or [Generation.Failed], and go on. What is skipped is kept
// with its reason, and left out by every later generation, too: see
// [Admin.Skips]. A commit that could not be read at all is skipped whole.
func (a *Admin) Skip(ctx context.Context, event FailedEvent, reason string) error {
	if err := validateSkip(event, reason); err != nil {
		return err
	}
	gens, err := a.Generations(ctx)
	if err != nil {
		return err
	}
	failed := false
	for i := range gens {
		f := gens[i].Failed
		failed = failed || f != nil && f.Sequence == event.Sequence && f.EventID == event.EventID
	}
	if !failed {
		return notFailed(event)
	}
	return a.b.change(ctx, func(c *control) error { return c.skip(event, reason) })
}

// Skips lists the events that were skipped on command.
func (a *Admin) Skips(ctx context.Context) ([]Skipped, error) {
	c, err := a.said(ctx)
	if err != nil {
		return nil, err
	}
	return c.Skips, nil
}

// said is what the view's updaters were told.
func (a *Admin) said(ctx context.Context) (*control, error) {
	c, err := again(ctx, a.b, func() (*control, error) {
		c, _, err := a.b.control(ctx)
		return c, err
	})
	if missing(err) {
		return nil, a.b.absent()
	}
	if err != nil {
		return nil, fmt.Errorf("view %q: %w: %w", a.b.view, ErrUnavailable, err)
	}
	return c, nil
}

func (a *Admin) pointer(ctx context.Context) (*pointer, uint64, error) {
	m, err := again(ctx, a.b, func() (*wire.Message, error) { return a.b.leader(ctx, a.b.pointerSubject()) })
	if errors.Is(err, wire.ErrNotFound) || missing(err) {
		return nil, 0, a.b.absent()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("view %q: %w: %w", a.b.view, ErrUnavailable, err)
	}
	p, err := decodePointer(m)
	return p, m.Sequence, err
}

func (a *Admin) checkpoint(ctx context.Context, number int) (*checkpoint, uint64, error) {
	m, err := again(ctx, a.b, func() (*wire.Message, error) { return a.b.leader(ctx, a.b.checkpointSubject(number)) })
	if err != nil {
		return nil, 0, fmt.Errorf("generation %d of view %q: %w: %w", number, a.b.view, ErrUnavailable, err)
	}
	cp, err := decodeCheckpoint(m)
	return cp, m.Sequence, err
}

// again asks a bucket's leader until ctx's deadline, or for as long as an election
// may take: a read that found none says nothing about the view.
func again[T any](ctx context.Context, b *bucket, ask func() (T, error)) (T, error) {
	end, bounded := ctx.Deadline()
	if !bounded {
		end = time.Now().Add(askFor)
	}
	for wait := newBackoff(20*time.Millisecond, 500*time.Millisecond); ; {
		v, err := ask()
		if err == nil || !leaderless(err) || time.Now().After(end) {
			return v, err
		}
		if stop := errors.Join(wait.next(ctx), closedError(b.nc)); stop != nil {
			return v, errors.Join(err, stop)
		}
	}
}

// leaderless tells errors of a read that no leader has answered.
func leaderless(err error) bool {
	return wire.Number(err) == wire.CodeUnavailable || errors.Is(err, wire.ErrNoLeader) ||
		errors.Is(err, context.DeadlineExceeded)
}

// point changes the pointer, together with other keys, by compare-and-set. A
// change without messages and without effect writes nothing.
func (a *Admin) point(ctx context.Context, change func(*pointer) ([]*nats.Msg, error)) error {
	for wait := newBackoff(5*time.Millisecond, 200*time.Millisecond); ; {
		p, rev, err := a.pointer(ctx)
		if err != nil {
			return err
		}
		before, err := json.Marshal(p)
		if err != nil {
			return err
		}
		msgs, err := change(p)
		if err != nil {
			return err
		}
		ptr, err := a.b.pointerMessage(p, rev)
		if err != nil {
			return err
		}
		if len(msgs) == 0 && string(before) == string(ptr.Data) {
			return nil
		}
		if _, err = send(ctx, a.b, append(msgs, ptr)); err == nil {
			a.b.wake()
			return nil
		}
		if stop := errors.Join(wait.next(ctx), closedError(a.b.nc)); stop != nil {
			return fmt.Errorf("view %q: %w", a.b.view, errors.Join(ErrUnavailable, err, stop))
		}
	}
}

// message is one of the toolkit's own keys, expecting its revision.
func (b *bucket) message(subject string, value any, rev uint64) (*nats.Msg, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	m := wire.Expect(nats.NewMsg(subject), rev)
	m.Data = body
	return m, nil
}

// head is the store's last sequence.
func (b *bucket) head(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	m, err := wire.LeaderLast(ctx, b.nc, b.store, b.store+".event.>")
	if err != nil {
		return 0, fmt.Errorf("view %q: head of store %q: %w: %w", b.view, b.store, ErrUnavailable, err)
	}
	return m.Sequence, nil
}
