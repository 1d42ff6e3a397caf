package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
)

// State is what an instance does.
type State string

// The states.
const (
	// StateStandby waits for the record to become free.
	StateStandby State = "standby"
	// StateActive owns the record and runs handlers.
	StateActive State = "active"
	// StateFull is active with the reader stopped, because MaxLanes lanes are
	// unfinished.
	StateFull State = "full"
	// StateStopped does not run.
	StateStopped State = "stopped"
	// StatePaused is active, and starts no handlers because somebody asked for that.
	StatePaused State = "paused"
	// StateReplaying is active, and handles a range again because somebody asked for
	// that.
	StateReplaying State = "replaying"
)

// Status is a follower as one instance, or the server, sees it.
type Status struct {
	Name  string
	State State
	// Owner is the instance that owns the record, "" when none does.
	Owner      string
	Epoch      uint64
	Version    int
	Definition string
	// Position is the sequence up to which every followed event is done, but
	// for the unfinished lanes. Head is the stream's last sequence as last
	// heard.
	Position, Head uint64
	// Floor, of ReadStatus, is the sequence up to which every followed event is
	// recorded as done, without exception.
	Floor uint64
	// Lag is about how many followed events are not done: those the cursor has
	// not delivered, and at least one for every unfinished lane. LagTime is the
	// age of the oldest event not done as ReadStatus finds it. The owner asks
	// nobody: it knows the age of the oldest event in memory, when the events that
	// are not in memory failed first, and the age of the last one read. It is 0
	// when nothing is left.
	Lag     uint64
	LagTime time.Duration
	// CaughtUp means that everything is done: nothing pending, no lane
	// unfinished.
	CaughtUp bool
	// Unfinished counts the lanes with work, Blocked lists those that wait for a
	// retry or a person, by subject.
	Unfinished int
	Blocked    []LaneStatus
	// Paused and Replay say who asked for it and why; nil without.
	Paused *Pause
	Replay *Replay
	// LastError is the last trouble since Run began, mended or not.
	LastError error
}

// LaneStatus is a lane that waits for a retry or a person.
type LaneStatus struct {
	// Subject is the lane's key.
	Subject string
	// From is the first sequence not done, To the last one known.
	From, To uint64
	// Attempts counts those of the event at From.
	Attempts int
	Parked   bool
	// Since is when the event failed first, Done how many of its parts are done.
	Since time.Time
	Done  int
	// NotBefore is when a lane that is not parked is tried again.
	NotBefore time.Time
	// Error is the last failure's text, clipped.
	Error string
}

// Status returns the local view; it asks nobody.
func (f *Follower) Status() Status {
	f.mu.Lock()
	t := f.tenure
	s := Status{
		Name: f.cfg.Name, State: f.state, Owner: f.owner, LastError: f.lastErr,
		Epoch: f.seen.Epoch, Version: f.seen.Version, Definition: f.seen.Definition, Position: f.seen.Position,
	}
	f.mu.Unlock()
	if t == nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Owner, s.Epoch, s.Version, s.Definition = t.head.Owner, t.epoch, t.head.Version, t.head.Definition
	s.Position = t.table.position
	s.Head = max(t.cursor.head, t.table.position)
	s.Unfinished = len(t.table.lanes)
	if t.cursor.full {
		s.State = StateFull
	}
	s.Paused, s.Replay = t.head.Paused, t.head.Replay
	s.State = stateOf(s.State, t.head)
	s.Lag = t.cursor.pending
	var oldest time.Time
	if t.cursor.pending > 0 {
		oldest = t.cursor.lastTime
	}
	for _, l := range t.table.lanes {
		s.Lag += uint64(max(len(l.queue), 1))
		at := l.since
		if len(l.queue) > 0 {
			at = l.queue[0].Time
		}
		if oldest.IsZero() || !at.IsZero() && at.Before(oldest) {
			oldest = at
		}
		if l.blocked() {
			s.Blocked = append(s.Blocked, l.status())
		}
	}
	sortLanes(s.Blocked)
	if !oldest.IsZero() {
		s.LagTime = max(time.Since(oldest), 0)
	}
	s.CaughtUp = t.cursor.known && s.Lag == 0
	return s
}

// stateOf is an owner's state, given what was asked of it.
func stateOf(s State, r record) State {
	switch {
	case r.Paused != nil:
		return StatePaused
	case r.Replay != nil:
		return StateReplaying
	}
	return s
}

func (l *lane) status() LaneStatus {
	s := LaneStatus{
		Subject: l.key, From: l.from, To: l.to, Attempts: l.tries,
		Parked: l.state == laneParked, Error: l.err, Since: l.since, Done: l.step,
	}
	if l.state == laneWaiting {
		s.NotBefore = l.notBefore
	}
	return s
}

func sortLanes(lanes []LaneStatus) {
	slices.SortFunc(lanes, func(a, b LaneStatus) int { return cmp.Compare(a.From, b.From) })
}

// ReadStatus returns the status as the server has it: the record, which the
// owner writes within moments of a change, and the place of the cursor. Lag is
// at most too high by what the filter passes over between position and cursor.
// State is active or full when somebody owns the record, else stopped. It
// returns [ErrNoRecord] when the follower never ran.
func ReadStatus(ctx context.Context, nc *nats.Conn, stream, bucket, name string) (Status, error) {
	r, _, err := placeOf(nc, bucket, name).read(ctx)
	switch {
	case errors.Is(err, wire.ErrNotFound), wire.Number(err) == wire.CodeStreamNotFound:
		return Status{}, fmt.Errorf("follow: %w: bucket %q key %q: %w", ErrNoRecord, bucket, name, err)
	case err != nil:
		return Status{}, fmt.Errorf("follow: %q: %w", name, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return Status{}, fmt.Errorf("follow: %w", err)
	}
	stream = cmp.Or(r.Stream, stream)
	var st jetstream.Stream
	err = wire.API(ctx, nc, stream, func(ctx context.Context) (err error) {
		st, err = js.Stream(ctx, stream)
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("follow: ask for stream %q: %w", stream, err)
	}
	s := Status{
		Name: name, State: StateStopped, Owner: r.Owner, Epoch: r.Epoch, Version: r.Version, Definition: r.Definition,
		Position: r.Position, Head: st.CachedInfo().State.LastSeq, Unfinished: len(r.Lanes),
	}
	if r.Owner != "" {
		s.State = stateOf(StateActive, r)
	}
	s.Paused, s.Replay = r.Paused, r.Replay
	s.Floor = r.Position
	for _, l := range lanesOf(r, time.Now()) {
		s.Floor = min(s.Floor, l.from-1)
		if l.blocked() {
			s.Blocked = append(s.Blocked, l.status())
		}
	}
	sortLanes(s.Blocked)
	cons, err := st.Consumer(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		// The owner makes it anew; until then every message may be an event.
		s.Lag = s.Head - min(s.Position, s.Head)
	case err != nil:
		return Status{}, fmt.Errorf("follow: ask for consumer %q: %w", name, err)
	default:
		info := cons.CachedInfo()
		s.Lag = info.NumPending
		if at := info.Delivered.Stream; at > s.Position {
			s.Lag += at - s.Position
		}
	}
	s.Lag += uint64(len(r.Lanes))
	s.CaughtUp = s.Lag == 0
	if !s.CaughtUp {
		s.LagTime = oldest(ctx, nc, stream, cons, r)
	}
	return s, nil
}

// ReadOwner returns the instance that the record names as the owner, "" for none. It
// returns [ErrNoRecord] when the follower never ran.
func ReadOwner(ctx context.Context, nc *nats.Conn, bucket, name string) (string, error) {
	r, _, err := placeOf(nc, bucket, name).read(ctx)
	switch {
	case errors.Is(err, wire.ErrNotFound), wire.Number(err) == wire.CodeStreamNotFound:
		return "", fmt.Errorf("follow: %w: bucket %q key %q: %w", ErrNoRecord, bucket, name, err)
	case err != nil:
		return "", fmt.Errorf("follow: %q: %w", name, err)
	}
	return r.Owner, nil
}

// oldest is the age of the oldest event that is not done, 0 when it cannot be
// had: a status is better without it than not at all.
func oldest(ctx context.Context, nc *nats.Conn, stream string, cons jetstream.Consumer, r record) time.Duration {
	from, filter := r.Position+1, ">"
	for _, l := range lanesOf(r, time.Now()) {
		from = min(from, l.from)
	}
	if cons != nil && cons.CachedInfo().Config.FilterSubject != "" {
		filter = cons.CachedInfo().Config.FilterSubject
	}
	m, err := wire.LeaderNext(ctx, nc, stream, filter, from)
	if err != nil {
		return 0
	}
	return max(time.Since(m.Time), 0)
}

// Resume makes a blocked lane, parked or waiting for a retry, run again at once
// with its attempts counted from 1; subject "" means all of them. It returns when that
// is recorded, so the next owner tries, too. Only the owner can: [ErrNotOwner]. A lane
// that is not blocked is [ErrNoLane].
func (f *Follower) Resume(ctx context.Context, subject string) error {
	t, err := f.owned(ctx, "resume")
	if err != nil {
		return err
	}
	return t.change(ctx, func() error {
		n := 0
		for name, l := range t.table.lanes {
			if (subject == "" || name == subject) && t.table.resume(l) {
				n++
			}
		}
		if n == 0 && subject != "" {
			return fmt.Errorf("follow: %q: resume %q: %w", f.cfg.Name, subject, ErrNoLane)
		}
		t.wakeWorkers(n)
		t.cfg.Logger.Info("lanes resumed", "lane", subject, "count", n)
		return nil
	})
}

// enter sets the state and tells whoever wants to know.
func (f *Follower) enter(s State, t *tenure) {
	f.mu.Lock()
	was, before := f.state, f.tenure
	f.state, f.tenure = s, t
	f.mu.Unlock()
	if before != nil && t == nil {
		// What the last tenure knew stays visible. Tenures lock the follower, so
		// not the other way round.
		r := before.last()
		f.observe(r)
	}
	if was != s {
		f.cfg.Logger.Info("state", "state", string(s))
		f.changed()
	}
}

// last is the record as the tenure leaves it.
func (t *tenure) last() record {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.head
	r.Position, r.Owner = t.table.position, ""
	return r
}

// observe keeps the record as a standby sees it.
func (f *Follower) observe(r record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Lanes = nil
	f.seen, f.owner = r, r.Owner
}

// failed keeps the last trouble.
func (f *Follower) failed(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastErr = err
}

// changed calls OnState. It must be called without any mutex.
func (f *Follower) changed() {
	if f.cfg.OnState != nil {
		f.cfg.OnState(f.Status())
	}
}
