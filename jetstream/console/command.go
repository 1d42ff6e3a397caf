package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// commandTimes is how often a command may be sent at once.
const commandTimes = 100

// commandRequest is a command to be sent.
type commandRequest struct {
	Type    string `json:"type"`
	Command string `json:"command"`
	// ID is the aggregate's; empty for new ones, each with an id of its own.
	ID            string          `json:"id"`
	Body          json.RawMessage `json:"body"`
	ExpectVersion *uint64         `json:"expectVersion"`
	// Key is the idempotency key. Empty gives each sending a key of its own, but for
	// those in a row.
	Key string `json:"key"`
	// Times is how often it is sent: Together at once, else one after the other, with
	// the same key. Defaults to 1.
	Times    int  `json:"times"`
	Together bool `json:"together"`
}

// commandAnswer is what came of one sending.
type commandAnswer struct {
	// Outcome is "ok", "duplicate", or the kind of the error, with the code where the
	// aggregate has one.
	Outcome  string          `json:"outcome"`
	OK       bool            `json:"ok"`
	ID       string          `json:"id"`
	Key      string          `json:"key"`
	Millis   float64         `json:"ms"`
	Reply    json.RawMessage `json:"reply,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Sequence uint64          `json:"sequence,omitempty"`
}

// commandReply answers the page.
type commandReply struct {
	Subject string `json:"subject"`
	// Answers are those of commands in a row; of many at once, the first of each
	// outcome.
	Answers []commandAnswer `json:"answers"`
	// Outcomes counts the answers by outcome.
	Outcomes map[string]int `json:"outcomes"`
	Times    int            `json:"times"`
	// Millis is how long all of it took, Median and Slowest are those of the
	// sendings.
	Millis  float64 `json:"ms"`
	Median  float64 `json:"medianMs"`
	Slowest float64 `json:"slowestMs"`
}

func (q *commandRequest) check() error {
	q.Times = cmp.Or(q.Times, 1)
	errs := []error{
		jetstream.ValidateName("type", q.Type),
		jetstream.ValidateName("command", q.Command),
	}
	if q.ID != "" {
		errs = append(errs, jetstream.ValidateID(q.ID))
	}
	if q.Times < 1 || q.Times > commandTimes {
		errs = append(errs, malformed("times", "%d is not from 1 to %d", q.Times, commandTimes))
	}
	if len(q.Key) > jetstream.MaxIDLength {
		errs = append(errs, malformed("key", "is longer than %d bytes", jetstream.MaxIDLength))
	}
	if len(q.Body) == 0 {
		q.Body = json.RawMessage("{}")
	}
	return errors.Join(errs...)
}

func (c *Console) postCommand(r *http.Request) (any, error) {
	var q commandRequest
	if err := readBody(r, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	if err := c.allow(r, ActionCommand, q.Type+"/"+q.ID+"/"+q.Command); err != nil {
		return nil, err
	}
	ctx, by := r.Context(), c.by(r)
	answers := make([]commandAnswer, q.Times)
	began := time.Now()
	if q.Together {
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = c.sendCommand(ctx, q, by) })
		}
		wg.Wait()
	} else {
		q.Key, q.ID = cmp.Or(q.Key, jetstream.NewCommandID()), cmp.Or(q.ID, jetstream.NewID())
		for i := range answers {
			answers[i] = c.sendCommand(ctx, q, by)
		}
	}
	return summarize(&q, protocol.CommandSubject(c.cfg.Store.Name(), q.Type, q.Command, cmp.Or(q.ID, "*")),
		answers, time.Since(began)), nil
}

func summarize(q *commandRequest, subject string, answers []commandAnswer, took time.Duration) commandReply {
	reply := commandReply{Subject: subject, Outcomes: map[string]int{}, Times: q.Times, Millis: millis(took)}
	times := make([]float64, 0, len(answers))
	for i := range answers {
		a := &answers[i]
		times = append(times, a.Millis)
		reply.Outcomes[a.Outcome]++
		if !q.Together && i < 2 || reply.Outcomes[a.Outcome] == 1 {
			reply.Answers = append(reply.Answers, *a)
		}
	}
	slices.Sort(times)
	reply.Median, reply.Slowest = times[len(times)/2], times[len(times)-1]
	return reply
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// sendCommand sends a command as any NATS client would.
func (c *Console) sendCommand(ctx context.Context, q commandRequest, by string) commandAnswer {
	a := commandAnswer{ID: cmp.Or(q.ID, jetstream.NewID()), Key: cmp.Or(q.Key, jetstream.NewCommandID())}
	m := nats.NewMsg(protocol.CommandSubject(c.cfg.Store.Name(), q.Type, q.Command, a.ID))
	m.Data = q.Body
	m.Header.Set(protocol.HeaderContentType, "application/json")
	m.Header.Set(protocol.HeaderCommandID, a.Key)
	m.Header.Set(protocol.HeaderDeadline, protocol.Deadline(ctx))
	m.Header.Set(protocol.HeaderMetaPrefix+"by", by)
	if q.ExpectVersion != nil {
		m.Header.Set(protocol.HeaderExpectVersion, strconv.FormatUint(*q.ExpectVersion, 10))
	}
	began := time.Now()
	resp, err := c.cfg.Store.Conn().RequestMsgWithContext(ctx, m)
	a.Millis = millis(time.Since(began))
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		a.Outcome, a.Reason = string(protocol.KindUnavailable), "no service takes this command now: nothing was done"
	case err != nil:
		a.Outcome = string(protocol.KindUnknown)
		a.Reason = fmt.Sprintf("%v: it may have happened; send it again with the same key", err)
	case resp.Header.Get(micro.ErrorCodeHeader) != "":
		a.refused(resp)
	default:
		a.accepted(resp, c.cfg.Store)
	}
	return a
}

func (a *commandAnswer) refused(resp *nats.Msg) {
	var b protocol.ErrorBody
	_ = json.Unmarshal(resp.Data, &b)
	a.Outcome, a.Reason = cmp.Or(string(b.Kind), resp.Header.Get(micro.ErrorHeader)), b.Reason
	if b.Code != "" {
		a.Outcome += ": " + b.Code
	}
	if json.Valid(resp.Data) {
		a.Reply = resp.Data
	}
}

func (a *commandAnswer) accepted(resp *nats.Msg, store *jetstream.Store) {
	var b struct {
		Position  jetstream.Position `json:"position"`
		Duplicate bool               `json:"duplicate"`
	}
	if err := json.Unmarshal(resp.Data, &b); err != nil {
		a.Outcome, a.Reason = string(protocol.KindInternal), "the service's reply is not JSON"
		return
	}
	a.OK, a.Outcome, a.Reply = true, "ok", resp.Data
	if b.Duplicate {
		a.Outcome = "duplicate"
	}
	a.Sequence, _ = store.Sequence(b.Position) // 0 for a position of another store
}
