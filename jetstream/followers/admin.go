package followers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

const (
	// askAgain is when the owner is asked again: who is about to lose or to get the
	// ownership is silent.
	askAgain = time.Second
	// asksBlind is how often that is done before the record is looked at: it says
	// whether there is an owner to wait for.
	asksBlind = 3
	// patience is how long an owner is waited for where the caller does not say.
	patience = 10 * time.Second
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

// Status asks the owner, and where none answers the servers, which know less. An owner
// that is slow is waited for, for three quarters of the time that ctx leaves, or 10 s.
// Returns [ErrNeverRan].
func (a *Admin) Status(ctx context.Context, name string) (Status, error) {
	limit := patience
	if deadline, ok := ctx.Deadline(); ok {
		limit = time.Until(deadline) * 3 / 4
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var s Status
	err := a.ask(waiting, name, DoStatus, Request{}, &s)
	if err == nil {
		return s, nil
	}
	if late := waiting.Err() != nil && ctx.Err() == nil; !late && !errors.Is(err, ErrNotRunning) {
		return Status{}, err
	}
	recorded, err := follow.ReadStatus(ctx, a.store.Conn(), a.store.Name(), a.bucket(), name)
	if errors.Is(err, follow.ErrNoRecord) {
		return Status{}, fmt.Errorf("follower %q: %w", name, ErrNeverRan)
	}
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
// too. The owner is waited for until ctx ends, or for 10 s where it does not. Errors of
// this and the following: [ErrNeverRan], [ErrNotRunning], and those of ctx and the
// connection, after which it may or may not have happened; asking again is safe.
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
	if do != DoStatus {
		req.ID = rand.Text()
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("follower %q: %w", name, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		ctx = limited
	}
	msg, err := a.answer(ctx, name, do, body)
	if errors.Is(err, nats.ErrNoResponders) {
		if err = a.absent(ctx, name); err == nil {
			err = ErrNotRunning // its owner went without a word
		}
	}
	if errors.Is(err, ErrNeverRan) || errors.Is(err, ErrNotRunning) {
		return fmt.Errorf("follower %q: %w", name, err)
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

// answer asks until somebody answers, nobody listens, or the record says that there is
// no owner to wait for. An answer to any of the requests will do. What a second owner
// must not do again is asked once.
func (a *Admin) answer(ctx context.Context, name, do string, body []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type answer struct {
		msg *nats.Msg
		err error
	}
	answers := make(chan answer)
	tell := func(msg *nats.Msg, err error) {
		select {
		case answers <- answer{msg, err}:
		case <-ctx.Done():
		}
	}
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for asked := 1; ; asked++ {
		if asked == 1 || do != DoDiscard && do != DoReplay {
			asking.Go(func() {
				tell(wire.Request(ctx, a.store.Conn(), &nats.Msg{
					Subject: Subject(a.store.Name(), name, do), Data: body,
					Header: nats.Header{protocol.HeaderDeadline: {protocol.Deadline(ctx)}},
				}))
			})
		}
		if asked == asksBlind+1 {
			asking.Go(func() {
				if err := a.absent(ctx, name); err != nil {
					tell(nil, err)
				}
			})
		}
		select {
		case got := <-answers:
			return got.msg, got.err
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("its owner does not answer: %w", ctx.Err())
		}
	}
}

// absent returns [ErrNotRunning] when the record names no owner, [ErrNeverRan] when there
// is none, and nil when it names one or cannot be read.
func (a *Admin) absent(ctx context.Context, name string) error {
	owner, err := follow.ReadOwner(ctx, a.store.Conn(), a.bucket(), name)
	switch {
	case errors.Is(err, follow.ErrNoRecord):
		return ErrNeverRan
	case err == nil && owner == "":
		return ErrNotRunning
	}
	return nil
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
