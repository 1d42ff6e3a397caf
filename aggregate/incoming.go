package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// overdueAfter is how long after its deadline a command is answered even though it
// still runs: then a handler does not return.
const overdueAfter = 500 * time.Millisecond

// incoming is a request in the hands of the workers. micro reads its own as soon
// as its handler returns, so a worker must not answer through that.
type incoming struct {
	job

	ctx     context.Context //nolint:containedctx // a request's own
	service *Service
	pool    *workers
	handler *handler
	subject string
	reply   string
	header  nats.Header
	body    []byte
	codec   codec.Codec

	cancel context.CancelFunc
	// left is the time that the caller gave it, timeless why that cannot be read.
	left     time.Duration
	timeless error
	// wait returns what came of the command.
	wait func() (Result, error)
	res  Result
	err  error
	// span is nil without tracing.
	span trace.Span
}

// take hands a request over to the workers: micro calls an endpoint's handler for
// one request at a time.
func (s *Service) take(ctx context.Context, pool *workers, h *handler, req micro.Request) {
	m := &incoming{
		ctx: ctx, service: s, pool: pool, handler: h, subject: req.Subject(), reply: req.Reply(),
		header: nats.Header(req.Headers()), body: req.Data(),
	}
	m.deadline()
	if err := pool.submit(m.subject[strings.LastIndexByte(m.subject, '.')+1:], m); err != nil {
		s.counters.busy.Add(1)
		m.refuse(errorBody(err))
		return
	}
	s.counters.taken.Add(1)
}

// deadline reads how long the caller waits. A command that begins has its context;
// one that still waits then, or does not end with it, is given up.
func (m *incoming) deadline() {
	text := m.header.Get(protocol.HeaderDeadline)
	left, err := protocol.Timeout(text, m.service.cfg.Timeout)
	if err != nil {
		left = m.service.cfg.Timeout
		m.timeless = &jetstream.InvalidError{Field: "header " + protocol.HeaderDeadline, Value: text, Reason: err.Error()}
	}
	m.left, m.patience, m.late = left, left+overdueAfter, m.giveUp
}

// enter reads the request and gives its command a place in the aggregate's line.
func (m *incoming) enter() {
	defer func() {
		if p := recover(); p != nil {
			m.err = fmt.Errorf("reading command %q panicked: %v\n%s", m.handler.name, p, debug.Stack())
		}
	}()
	m.wait, m.err = m.read()
}

func (m *incoming) read() (wait func() (Result, error), err error) {
	end := m.since.Add(m.left)
	if !time.Now().Before(end) {
		return nil, m.waited() // perhaps it was given up
	}
	e, cdc, err := (&Encoded{
		Name: m.handler.name, ContentType: m.header.Get(protocol.HeaderContentType), Body: m.body,
	}).normal()
	if err != nil {
		return nil, err
	}
	m.codec = cdc
	c, err := callOf(m.header)
	if err != nil {
		return nil, err
	}
	if m.service.core.tracer != nil {
		m.ctx, m.span = m.service.core.traceHandle(m.ctx, m.id, m.handler.name, m.since, c)
	}
	if m.timeless != nil {
		return nil, m.timeless
	}
	m.ctx, m.cancel = context.WithDeadline(m.ctx, end)
	m.pool.prepared(&m.job)
	h := m.handler
	command, err := h.decode(cdc, e.Body)
	if err != nil {
		return nil, err
	}
	if c.commandID != "" {
		c.hash = bodyHash(h.key, e.Body)
	}
	return m.service.core.enter(m.ctx, m.id,
		request{call: c, name: h.name, create: h.create, decide: h.decide, command: command})
}

// waited is the error of a command whose time was over before it began.
func (m *incoming) waited() error {
	return fmt.Errorf("%s %q: %w: the command waited for others: %w",
		m.service.core.typeName, m.id, jetstream.ErrUnavailable, context.DeadlineExceeded)
}

// giveUp answers a command that waits for too long, or whose handler does not return.
// Nothing of either is stored once its time is over, but of the latter only its
// return would prove that.
func (m *incoming) giveUp() {
	m.pool.giveUp(&m.job, func(begun bool) {
		if !begun {
			m.fail(m.waited())
			return
		}
		m.service.counters.overdue.Add(1)
		m.service.cfg.Logger.ErrorContext(m.ctx, "a command's handler does not return", "subject", m.subject)
		m.fail(&jetstream.UnknownError{
			Type: m.service.core.typeName, ID: m.id, Cause: fmt.Errorf("command %q does not return", m.handler.name),
		})
	})
}

// await waits for what comes of the command.
func (m *incoming) await() {
	defer func() {
		if p := recover(); p != nil {
			m.err = fmt.Errorf("command %q panicked: %v\n%s", m.handler.name, p, debug.Stack())
		}
		m.timer.Stop()
		if m.cancel != nil {
			m.cancel()
		}
	}()
	if m.err == nil {
		m.res, m.err = m.wait()
	}
}

func (m *incoming) answer() {
	if m.err != nil {
		m.fail(m.err)
		return
	}
	m.succeed(m.res)
	m.took(measuredOutcome(m.res, nil))
	if m.span != nil {
		endSend(m.span, m.res, nil)
	}
}

func (m *incoming) respond(body []byte, header nats.Header) error {
	if m.reply == "" {
		return nil // nobody waits
	}
	return m.service.core.store.Conn().PublishMsg(&nats.Msg{Subject: m.reply, Header: header, Data: body})
}

func (m *incoming) succeed(res Result) {
	err := m.send(res)
	if err != nil && len(res.Events) > 0 {
		// It has happened, so the caller must hear of it: without the events, which
		// do not fit into a reply.
		res.Events = nil
		err = m.send(res)
	}
	if err != nil {
		m.service.cfg.Logger.WarnContext(m.ctx, "reply not sent", "subject", m.subject, "error", err)
	}
}

func (m *incoming) send(res Result) error {
	body, err := encodeReply(res, m.codec, m.service.core.def)
	if err != nil {
		return err
	}
	return m.respond(body, m.service.replyHeaders[m.codec])
}

func (m *incoming) fail(err error) {
	b := errorBody(err)
	if b.Kind == protocol.KindInternal {
		m.service.cfg.Logger.ErrorContext(m.ctx, "command failed", "subject", m.subject, "error", err)
	}
	m.service.counters.count(b.Kind)
	m.took(requestOutcome(b.Kind))
	if m.span != nil {
		endHandle(m.span, b, err)
	}
	m.refuse(b)
}

// refuse sends an error reply.
func (m *incoming) refuse(b protocol.ErrorBody) {
	body, err := json.Marshal(b)
	if err == nil {
		description := string(b.Kind)
		if b.Code != "" {
			description += ": " + b.Code
		}
		err = m.respond(body, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {b.Kind.Code()}})
	}
	if err != nil {
		m.service.cfg.Logger.WarnContext(m.ctx, "error reply not sent", "subject", m.subject, "error", err)
	}
}
