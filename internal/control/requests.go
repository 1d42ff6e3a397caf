package control

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

const (
	// queueMax bounds the requests that wait, of status and of actions.
	queueMax = 256
	// within bounds what an action may take.
	within = 10 * time.Second
	// takenMax is how many actions that were taken are known when they are asked for
	// again.
	takenMax = 64
)

// errBusy is the answer to what there is no room for.
var errBusy = errors.New("too many requests wait: ask again")

// request is one that waits to be answered.
type request struct {
	followers.Request

	do, reply string
	arrived   time.Time
	// timeout is how long who asks waits, 0 when that is not known.
	timeout time.Duration
}

// gone tells that nobody waits for the answer any more.
func (r *request) gone() bool { return r.timeout > 0 && time.Since(r.arrived) > r.timeout }

// done is an action that was taken, and its answer.
type done struct {
	id     string
	answer []byte
}

// take lets a request wait for its answer: micro calls an endpoint's handler for one
// after the other, and who waited there too long would be answered all the same. It is
// silent on an instance that does not own the follower: the owner answers.
func (s *server) take(ctx context.Context, do string, req micro.Request) {
	if req.Reply() == "" || !s.cfg.Follower.Owns(ctx) {
		return
	}
	r := request{do: do, reply: req.Reply(), arrived: time.Now()}
	err := decode(req.Data(), &r.Request)
	if text := req.Headers().Get(protocol.HeaderDeadline); text != "" && err == nil {
		if r.timeout, err = protocol.Timeout(text, time.Hour); err != nil {
			err = &jetstream.InvalidError{Field: protocol.HeaderDeadline, Value: text, Reason: err.Error()}
		}
	}
	if err != nil {
		s.answer(ctx, &r, nil, err)
		return
	}
	queue := s.actions
	if do == followers.DoStatus {
		queue = s.statuses
	}
	select {
	case queue <- r:
	default:
		s.answer(ctx, &r, nil, errBusy)
	}
}

// answerStatuses answers requests of status: all that wait get the same one. However
// long one takes, they do not pile up.
func (s *server) answerStatuses(ctx context.Context) {
	for {
		var waiting []request
		select {
		case <-ctx.Done():
			return
		case r := <-s.statuses:
			waiting = append(waiting, r)
		}
		for range len(s.statuses) {
			waiting = append(waiting, <-s.statuses) // nobody else takes any
		}
		waiting = slices.DeleteFunc(waiting, func(r request) bool { return r.gone() })
		if len(waiting) == 0 || !s.cfg.Follower.Owns(ctx) {
			continue
		}
		data, err := s.status()
		for i := range waiting {
			s.answer(ctx, &waiting[i], data, err)
		}
	}
}

// takeActions does what people ask for, in order and one at a time. What is asked for
// again, by who heard nothing, was done already: it is answered again.
func (s *server) takeActions(ctx context.Context) {
	for {
		var r request
		select {
		case <-ctx.Done():
			return
		case r = <-s.actions:
		}
		if r.gone() {
			continue
		}
		known := func(d done) bool { return r.ID != "" && d.id == r.ID }
		if i := slices.IndexFunc(s.taken, known); i >= 0 {
			s.answer(ctx, &r, s.taken[i].answer, nil)
			continue
		}
		data, err := s.act(ctx, &r)
		if err == nil && r.ID != "" {
			s.taken = append(s.taken[max(len(s.taken)-takenMax+1, 0):], done{r.ID, data})
		}
		s.answer(ctx, &r, data, err)
	}
}

// act does what is asked for, while who asks waits.
func (s *server) act(ctx context.Context, r *request) ([]byte, error) {
	if !s.cfg.Follower.Owns(ctx) {
		return nil, follow.ErrNotOwner
	}
	limit := within
	if r.timeout > 0 {
		limit = min(limit, r.timeout-time.Since(r.arrived))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	do := map[string]func(context.Context, followers.Request) (any, error){
		followers.DoPause: s.pause, followers.DoResume: s.resume, followers.DoRetry: s.retry,
		followers.DoDiscard: s.discard, followers.DoReplay: s.replay, followers.DoEndReplay: s.endReplay,
	}[r.do]
	out, err := do(ctx, r.Request)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// answer sends an answer, or an error. It is silent when this instance is not the
// owner any more, or ends: the next owner is asked again.
func (s *server) answer(ctx context.Context, r *request, data []byte, err error) {
	if errors.Is(err, follow.ErrNotOwner) || err != nil && ctx.Err() != nil {
		return
	}
	msg := &nats.Msg{Subject: r.reply, Data: data}
	if err != nil {
		body := bodyOf(err)
		msg.Header = nats.Header{micro.ErrorCodeHeader: {body.Kind.Code()}, micro.ErrorHeader: {string(body.Kind)}}
		if msg.Data, err = json.Marshal(body); err != nil {
			msg.Data = nil
		}
	}
	if err := s.cfg.Store.Conn().PublishMsg(msg); err != nil {
		s.cfg.Logger.WarnContext(ctx, "follower's answer not sent", "follower", s.cfg.Name, "error", err)
	}
}

// status is the follower's, with as many lanes as the server takes in one message: who
// asks has most need of an answer when many wait.
func (s *server) status() ([]byte, error) {
	out := followers.Of(s.cfg.Follower.Status())
	out.Kind = s.cfg.Kind
	out.Lanes = out.Lanes[:min(len(out.Lanes), lanesShown)]
	if s.cfg.Details != nil {
		details, err := json.Marshal(s.cfg.Details())
		if err != nil {
			return nil, err
		}
		out.Details = details
	}
	for {
		data, err := json.Marshal(out)
		if err != nil || len(out.Lanes) == 0 || int64(len(data)) <= s.cfg.Store.Conn().MaxPayload()-1024 {
			return data, err
		}
		out.Lanes = out.Lanes[:len(out.Lanes)/2]
	}
}
