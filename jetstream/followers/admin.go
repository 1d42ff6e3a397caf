package followers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// An owner's answer is waited for so often and so long: who is about to lose or to
// get the ownership is silent, and asked again. What must not be done twice is asked
// once.
const (
	asks         = 3
	answerWithin = time.Second
	onceWithin   = 2 * time.Second
)

// Admin asks the followers of one store. It holds no resources and is safe for
// concurrent use.
type Admin struct {
	store *jetstream.Store
}

// New makes an admin of the store's followers.
func New(store *jetstream.Store) *Admin { return &Admin{store: store} }

func (a *Admin) bucket() string { return a.store.Name() + "__followers" }

// List returns every follower that ever ran, by name. It costs a request and more
// for each.
func (a *Admin) List(ctx context.Context) ([]Status, error) {
	js, err := natsjs.New(a.store.Conn())
	if err != nil {
		return nil, fmt.Errorf("followers of %q: %w", a.store.Name(), err)
	}
	kv, err := js.KeyValue(ctx, a.bucket())
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("followers of %q: %w", a.store.Name(), err)
	}
	names, err := kv.Keys(ctx) // sorted
	if err != nil && !errors.Is(err, natsjs.ErrNoKeysFound) {
		return nil, fmt.Errorf("followers of %q: %w", a.store.Name(), err)
	}
	all := make([]Status, 0, len(names))
	for _, name := range names {
		s, err := a.Status(ctx, name)
		if errors.Is(err, ErrNeverRan) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Status asks the owner, and where none answers the servers, which know less.
// Returns [ErrNeverRan].
func (a *Admin) Status(ctx context.Context, name string) (Status, error) {
	var s Status
	err := a.ask(ctx, name, DoStatus, Request{}, &s)
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, ErrNotRunning) {
		return Status{}, err
	}
	recorded, err := follow.ReadStatus(ctx, a.store.Conn(), a.store.Name(), a.bucket(), name)
	if err != nil {
		return Status{}, fmt.Errorf("follower %q: %w", name, err)
	}
	return Of(recorded), nil
}

// Parked returns what waits for a person, grouped by failure.
func (a *Admin) Parked(ctx context.Context, name string) ([]Group, error) {
	s, err := a.Status(ctx, name)
	if err != nil {
		return nil, err
	}
	var parked []Lane
	for _, l := range s.Lanes {
		if l.Parked {
			parked = append(parked, l)
		}
	}
	return GroupLanes(parked), nil
}

// Show reads the commit that a lane waits for.
func (a *Admin) Show(ctx context.Context, l Lane) (*jetstream.Commit, error) {
	prefix := a.store.Name() + ".event."
	typ, rest, _ := strings.Cut(strings.TrimPrefix(l.Lane, prefix), ".")
	_, id, found := strings.Cut(rest, ".")
	if !found || !strings.HasPrefix(l.Lane, prefix) {
		return nil, &jetstream.InvalidError{Field: "lane", Value: l.Lane, Reason: "is not an aggregate of the store"}
	}
	return a.store.At(ctx, typ, id, l.Sequence)
}

// Pause lets the follower begin nothing more until [Admin.Resume], over restarts,
// too. Errors of this and the following: [ErrNeverRan], [ErrNotRunning], and those
// of the connection, after which it may or may not have happened; asking again is
// safe.
func (a *Admin) Pause(ctx context.Context, name, by, reason string) error {
	return a.ask(ctx, name, DoPause, Request{By: by, Reason: reason}, nil)
}

// Resume ends a pause.
func (a *Admin) Resume(ctx context.Context, name, by string) error {
	return a.ask(ctx, name, DoResume, Request{By: by}, nil)
}

// Retry tries lanes that wait, parked or not, again at once, with their attempts
// counted from 1. It returns how many; [ErrNotWaiting] when one was named that does
// not wait.
func (a *Admin) Retry(ctx context.Context, name string, what Selection, by string) (int, error) {
	var r Reply
	err := a.ask(ctx, name, DoRetry, Request{Selection: what, By: by}, &r)
	return r.Lanes, err
}

// Discard gives up the event that a lane waits for, for good, and lets the lane go
// on with the next. Of events that were stored together it is the one that failed;
// whole gives up the rest of them, too. A reason is required. Returns
// [ErrNotWaiting] unless the lane waits for exactly that.
func (a *Admin) Discard(ctx context.Context, name string, l Lane, whole bool, by, reason string) error {
	return a.ask(ctx, name, DoDiscard, Request{
		Selection: Selection{Lane: l.Lane}, Sequence: l.Sequence, Whole: whole, By: by, Reason: reason,
	}, nil)
}

// Replay lets a gateway deliver the events of a range again, in order and one at a
// time; what it does otherwise waits until then. Handlers are told that it is a
// replay, and idempotency keys are those of the first time, so a service that
// honours them does nothing. A reason is required. Returns [ErrRefused] for what is
// not a gateway, or while another replay runs.
func (a *Admin) Replay(ctx context.Context, name string, from, to jetstream.Position, by, reason string) error {
	first, err := a.store.Sequence(from)
	if err != nil {
		return err
	}
	last, err := a.store.Sequence(to)
	if err != nil {
		return err
	}
	return a.ask(ctx, name, DoReplay, Request{From: first, To: last, By: by, Reason: reason}, nil)
}

// EndReplay ends a replay after the event that it is at; what it has done, it has
// done. Without one it does nothing.
func (a *Admin) EndReplay(ctx context.Context, name, by, reason string) error {
	return a.ask(ctx, name, DoEndReplay, Request{By: by, Reason: reason}, nil)
}

// Actions yields what people asked for, the oldest first: of one follower, or of
// all with "". The last 10,000 are kept.
func (a *Admin) Actions(ctx context.Context, name string) iter.Seq2[Action, error] {
	return func(yield func(Action, error) bool) {
		subject := ActionSubject(a.store.Name(), ">")
		if name != "" {
			subject = ActionSubject(a.store.Name(), name)
		}
		for next := uint64(1); ; {
			m, err := wire.LeaderNext(ctx, a.store.Conn(), ActionStream(a.store.Name()), subject, next)
			if errors.Is(err, wire.ErrNotFound) || wire.Number(err) == wire.CodeStreamNotFound {
				return
			}
			if err != nil {
				yield(Action{}, fmt.Errorf("actions of %q: %w", a.store.Name(), err))
				return
			}
			next = m.Sequence + 1
			var action Action
			if err := json.Unmarshal(m.Data, &action); err != nil {
				err = fmt.Errorf("action %d of %q: %w", m.Sequence, a.store.Name(), err)
				if !yield(Action{}, err) {
					return
				}
				continue
			}
			if !yield(action, nil) {
				return
			}
		}
	}
}

// ask asks the owner.
func (a *Admin) ask(ctx context.Context, name, do string, req Request, out any) error {
	if err := jetstream.ValidateName("follower", strings.ReplaceAll(name, "_", "-")); err != nil {
		return err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("follower %q: %w", name, err)
	}
	tries, within := asks, answerWithin
	if do == DoDiscard || do == DoReplay {
		tries, within = 1, onceWithin
	}
	var msg *nats.Msg
	for range tries {
		once, cancel := context.WithTimeout(ctx, within)
		msg, err = wire.Ask(once, a.store.Conn(), Subject(a.store.Name(), name, do), body)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	if errors.Is(err, nats.ErrNoResponders) || (errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil) {
		return a.unanswered(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("follower %q: %s: %w", name, do, err)
	}
	if msg.Header.Get(micro.ErrorCodeHeader) != "" {
		return refusal(name, do, msg)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(msg.Data, out); err != nil {
		return fmt.Errorf("follower %q: %s: answer: %w", name, do, err)
	}
	return nil
}

// unanswered tells a follower that nobody runs from one that never ran.
func (a *Admin) unanswered(ctx context.Context, name string) error {
	_, err := wire.LeaderLast(ctx, a.store.Conn(), "KV_"+a.bucket(), "$KV."+a.bucket()+"."+name)
	if errors.Is(err, wire.ErrNotFound) || wire.Number(err) == wire.CodeStreamNotFound {
		return fmt.Errorf("follower %q: %w", name, ErrNeverRan)
	}
	return fmt.Errorf("follower %q: %w", name, ErrNotRunning)
}

// refusal is the error that an answer stands for.
func refusal(name, do string, msg *nats.Msg) error {
	var b protocol.ErrorBody
	if err := json.Unmarshal(msg.Data, &b); err != nil {
		return fmt.Errorf("follower %q: %s: %s", name, do, msg.Header.Get(micro.ErrorHeader))
	}
	switch b.Kind {
	case protocol.KindInvalid:
		return &jetstream.InvalidError{Field: b.Field, Value: b.Value, Reason: b.Reason}
	case protocol.KindConflict, protocol.KindNotFound:
		return fmt.Errorf("follower %q: %s: %w: %s", name, do, ErrNotWaiting, b.Reason)
	case protocol.KindRejected:
		return fmt.Errorf("follower %q: %s: %w: %s", name, do, ErrRefused, b.Reason)
	case protocol.KindExists, protocol.KindBusy, protocol.KindInternal, protocol.KindUnavailable,
		protocol.KindUnknown, protocol.KindStale:
	}
	return fmt.Errorf("follower %q: %s: %s: %s", name, do, b.Kind, b.Reason)
}

// Of is the status of a follower in this process; others know it by [Admin.Status].
func Of(s follow.Status) Status {
	out := Status{
		Name: s.Name, State: string(s.State), Owner: s.Owner, Epoch: s.Epoch, Version: s.Version,
		Position: s.Position, Head: s.Head, Lag: s.Lag, LagSeconds: s.LagTime.Seconds(), CaughtUp: s.CaughtUp,
	}
	if s.LastError != nil {
		out.LastError = s.LastError.Error()
	}
	for _, b := range s.Blocked {
		l := Lane{
			Lane: b.Subject, Sequence: b.From, Last: b.To, Done: b.Done, Attempts: b.Attempts, Parked: b.Parked,
			Since: timeOrNil(b.Since), Next: timeOrNil(b.NotBefore), Error: b.Error, Group: GroupID(b.Error),
		}
		if l.Parked {
			out.Parked++
		} else {
			out.Waiting++
		}
		out.Lanes = append(out.Lanes, l)
	}
	if s.Paused != nil {
		p := Pause(*s.Paused)
		out.Paused = &p
	}
	if r := s.Replay; r != nil {
		out.Replay = &Replay{
			By: r.By, Reason: r.Reason, At: r.At, From: r.From, To: r.To, Next: r.Next, Failed: r.Failed,
		}
	}
	return out
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
