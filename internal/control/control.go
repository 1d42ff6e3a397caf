// Package control runs a follower and serves its administration over NATS, as
// jetstream/followers asks for it.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
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
	"github.com/rossby-go/rossby/jetstream/followers"
)

const (
	version = "0.1.0"
	// listenWithin is how long a server is waited for that may deny to listen.
	listenWithin = 1500 * time.Millisecond
	// actionsMax is how many actions are kept.
	actionsMax = 10_000
	// lanesShown bounds the lanes of a status, so that it fits into a message.
	lanesShown = 1000
)

// Config describes what is served.
type Config struct {
	Store    *jetstream.Store
	Follower *follow.Follower
	// Name is the follower's, Kind what it is: "gateway", "reactor" or "timers".
	Name, Kind string
	// Replayable tells that a replay makes sense.
	Replayable bool
	// Details adds the kind's own to the status. Optional.
	Details func() any
	Logger  *slog.Logger
}

type server struct {
	cfg Config
	// What waits to be answered: actions are taken in the order in which they came.
	statuses, actions chan request
	taken             []done // of the goroutine that takes actions

	mu    sync.Mutex
	bound bool // the stream of actions is known to be there
}

// Run runs the follower and serves requests to it. Without the permission to
// listen, nobody can ask, and the follower runs all the same.
func Run(ctx context.Context, cfg Config) error {
	s := &server{cfg: cfg, statuses: make(chan request, queueMax), actions: make(chan request, queueMax)}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	svc, err := s.listen(serving)
	if err != nil {
		cfg.Logger.WarnContext(ctx, "follower cannot be administered", "follower", cfg.Name, "error", err)
		return cfg.Follower.Run(ctx)
	}
	var answering sync.WaitGroup
	answering.Go(func() { s.answerStatuses(serving) })
	answering.Go(func() { s.takeActions(serving) })
	defer func() {
		_ = svc.Stop()
		stop()
		answering.Wait()
	}()
	return cfg.Follower.Run(ctx)
}

// listen serves the requests. Each instance listens, and only the owner answers: an
// instance that a queue group chose could not pass a request on.
func (s *server) listen(ctx context.Context) (micro.Service, error) { //nolint:ireturn // micro has interfaces only
	store, denied := s.cfg.Store.Name(), wire.Listening(s.cfg.Store.Conn())
	svc, err := micro.AddService(s.cfg.Store.Conn(), micro.Config{
		Name: store + "-follower-" + s.cfg.Name, Version: version, QueueGroupDisabled: true,
		Description: fmt.Sprintf("Rossby administration of %s %q in store %q", s.cfg.Kind, s.cfg.Name, store),
		Metadata:    map[string]string{"kind": s.cfg.Kind, "follower": s.cfg.Name},
	})
	if err != nil {
		return nil, err
	}
	for _, do := range []string{
		followers.DoStatus, followers.DoPause, followers.DoResume, followers.DoRetry, followers.DoDiscard,
		followers.DoReplay, followers.DoEndReplay,
	} {
		err := svc.AddEndpoint(do, micro.HandlerFunc(func(req micro.Request) { s.take(ctx, do, req) }),
			micro.WithEndpointSubject(followers.Subject(store, s.cfg.Name, do)))
		if err != nil {
			return nil, errors.Join(err, svc.Stop())
		}
	}
	asked, cancel := context.WithTimeout(ctx, listenWithin)
	defer cancel()
	if s.cfg.Store.Conn().FlushWithContext(asked) != nil {
		return svc, nil // NATS is away: whether it may listen shows when it is back
	}
	prefix := followers.Subject(store, s.cfg.Name, "")
	if err := denied(func(subject string) bool { return strings.HasPrefix(subject, prefix) }); err != nil {
		return nil, errors.Join(err, svc.Stop())
	}
	return svc, nil
}

func decode(data []byte, r *followers.Request) error {
	const most = 64 << 10
	if len(data) == 0 {
		return nil
	}
	if len(data) > most {
		return &jetstream.InvalidError{Field: "request", Value: strconv.Itoa(len(data)), Reason: "is too long"}
	}
	if err := json.Unmarshal(data, r); err != nil {
		return &jetstream.InvalidError{Field: "request", Value: string(data), Reason: "is not JSON: " + err.Error()}
	}
	return nil
}

// bodyOf is an error as it is answered.
func bodyOf(err error) protocol.ErrorBody {
	if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		return protocol.ErrorBody{
			Kind: protocol.KindInvalid, Field: invalid.Field, Value: invalid.Value, Reason: invalid.Reason,
		}
	}
	kind := protocol.KindInternal
	switch {
	case errors.Is(err, follow.ErrNoLane):
		kind = protocol.KindNotFound
	case errors.Is(err, follow.ErrOtherEvent):
		kind = protocol.KindConflict
	case errors.Is(err, follow.ErrReplaying), errors.Is(err, follow.ErrRange), errors.Is(err, followers.ErrRefused):
		kind = protocol.KindRejected
	case errors.Is(err, errBusy):
		kind = protocol.KindBusy
	case errors.Is(err, context.DeadlineExceeded):
		kind = protocol.KindUnknown
	}
	return protocol.ErrorBody{Kind: kind, Reason: err.Error()}
}

func (s *server) pause(ctx context.Context, r followers.Request) (any, error) {
	now := time.Now().UTC()
	if err := s.record(ctx, followers.Action{Do: followers.DoPause, By: r.By, Reason: r.Reason, Time: now}); err != nil {
		return nil, err
	}
	return followers.Reply{}, s.cfg.Follower.Pause(ctx, follow.Pause{By: r.By, Reason: r.Reason, At: now})
}

func (s *server) resume(ctx context.Context, r followers.Request) (any, error) {
	if err := s.record(ctx, followers.Action{Do: followers.DoResume, By: r.By, Reason: r.Reason}); err != nil {
		return nil, err
	}
	return followers.Reply{}, s.cfg.Follower.Unpause(ctx)
}

// retry resumes lanes, of which some may have begun to run meanwhile.
func (s *server) retry(ctx context.Context, r followers.Request) (any, error) {
	var lanes []follow.LaneStatus
	for _, l := range s.cfg.Follower.Status().Blocked {
		if r.All || l.Subject == r.Lane || (r.Group != "" && followers.GroupID(l.Error) == r.Group) {
			lanes = append(lanes, l)
		}
	}
	if !r.All && r.Lane == "" && r.Group == "" {
		return nil, &jetstream.InvalidError{Field: "lane", Reason: "is missing: name a lane, a group, or all"}
	}
	if len(lanes) == 0 && !r.All {
		return nil, fmt.Errorf("retry %q%q: %w", r.Lane, r.Group, follow.ErrNoLane)
	}
	if len(lanes) == 0 {
		return followers.Reply{}, nil
	}
	action := followers.Action{Do: followers.DoRetry, By: r.By, Reason: r.Reason}
	if len(lanes) == 1 {
		action.Lane, action.Sequence, action.Error = lanes[0].Subject, lanes[0].From, lanes[0].Error
	} else {
		action.Lane = fmt.Sprintf("%d lanes of group %q", len(lanes), r.Group)
	}
	if err := s.record(ctx, action); err != nil {
		return nil, err
	}
	n := 0
	for _, l := range lanes {
		switch err := s.cfg.Follower.Resume(ctx, l.Subject); {
		case err == nil:
			n++
		case !errors.Is(err, follow.ErrNoLane):
			return nil, err
		}
	}
	return followers.Reply{Lanes: n}, nil
}

func (s *server) discard(ctx context.Context, r followers.Request) (any, error) {
	if r.Reason == "" {
		return nil, &jetstream.InvalidError{Field: "reason", Reason: "is missing: what is discarded is never done"}
	}
	action := followers.Action{
		Do: followers.DoDiscard, By: r.By, Reason: r.Reason, Lane: r.Lane, Sequence: r.Sequence,
	}
	for _, l := range s.cfg.Follower.Status().Blocked {
		if l.Subject == r.Lane && l.From == r.Sequence {
			action.Error = l.Error
			if err := s.record(ctx, action); err != nil {
				return nil, err
			}
			break
		}
	}
	return followers.Reply{}, s.cfg.Follower.Discard(ctx, r.Lane, r.Sequence, r.Whole)
}

func (s *server) replay(ctx context.Context, r followers.Request) (any, error) {
	if !s.cfg.Replayable {
		return nil, fmt.Errorf("%w: the effects of a %s happen once for ever", followers.ErrRefused, s.cfg.Kind)
	}
	if r.Reason == "" {
		return nil, &jetstream.InvalidError{Field: "reason", Reason: "is missing: others will see everything again"}
	}
	now := time.Now().UTC()
	action := followers.Action{
		Do: followers.DoReplay, By: r.By, Reason: r.Reason, From: r.From, To: r.To, Time: now,
	}
	if err := s.record(ctx, action); err != nil {
		return nil, err
	}
	return followers.Reply{}, s.cfg.Follower.Replay(ctx, follow.Replay{
		Pause: follow.Pause{By: r.By, Reason: r.Reason, At: now}, From: r.From, To: r.To,
	})
}

func (s *server) endReplay(ctx context.Context, r followers.Request) (any, error) {
	if err := s.record(ctx, followers.Action{Do: followers.DoEndReplay, By: r.By, Reason: r.Reason}); err != nil {
		return nil, err
	}
	return followers.Reply{}, s.cfg.Follower.EndReplay(ctx)
}

// record writes an action down before it is taken: none is taken in silence.
func (s *server) record(ctx context.Context, a followers.Action) error {
	a.Follower = s.cfg.Name
	if a.Time.IsZero() {
		a.Time = time.Now().UTC()
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	s.cfg.Logger.WarnContext(ctx, "somebody asks the follower", "follower", a.Follower, "do", a.Do, "by", a.By,
		"reason", a.Reason, "lane", a.Lane, "sequence", a.Sequence)
	if err := s.ensure(ctx); err != nil {
		return err
	}
	_, err = wire.Publish(ctx, s.cfg.Store.Conn(), &nats.Msg{
		Subject: followers.ActionSubject(s.cfg.Store.Name(), s.cfg.Name), Data: data,
	})
	if err != nil {
		return fmt.Errorf("record the action: %w", err)
	}
	return nil
}

// ensure makes the stream of actions on first use.
func (s *server) ensure(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound {
		return nil
	}
	js, err := natsjs.New(s.cfg.Store.Conn())
	if err != nil {
		return err
	}
	name := s.cfg.Store.Name()
	err = wire.API(ctx, s.cfg.Store.Conn(), followers.ActionStream(name), func(ctx context.Context) error {
		_, err := js.Stream(ctx, followers.ActionStream(name))
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			_, err = js.CreateStream(ctx, natsjs.StreamConfig{
				Name: followers.ActionStream(name), Subjects: []string{followers.ActionSubject(name, ">")},
				Description: "Rossby: what people asked followers to do", MaxMsgs: actionsMax,
				Storage: natsjs.FileStorage, Replicas: s.cfg.Store.Replicas(), AllowDirect: true,
			})
			if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
				err = nil
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("stream %q: %w", followers.ActionStream(name), err)
	}
	s.bound = true
	return nil
}
