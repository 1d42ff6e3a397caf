package aggregate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [ServiceConfig].
const (
	ServiceWorkersDefault      = 64
	ServiceQueueDefault        = 4096
	ServiceQueuePerIDDefault   = 512
	ServiceTimeoutDefault      = 10 * time.Second
	serviceVersion             = "0.1.0"
	serviceQueueGroup          = "rossby"
	serviceDescriptionTemplate = "Rossby commands on aggregates of type %q in store %q"
)

// ServiceConfig tunes a [Service]. The zero value is a good one.
type ServiceConfig struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Queue bounds the commands waiting or running; more are answered "busy".
	// Defaults to [ServiceQueueDefault].
	Queue int
	// QueuePerID bounds those waiting for one aggregate. Defaults to
	// [ServiceQueuePerIDDefault].
	QueuePerID int
	// Timeout bounds a command whose caller states no deadline, and every other
	// one. Defaults to [ServiceTimeoutDefault].
	Timeout time.Duration
	// Workers is the number of commands decided at once. Defaults to
	// [ServiceWorkersDefault].
	Workers int
}

// Validate reports every field that [NewService] would refuse, joined.
func (c ServiceConfig) Validate() error {
	return errors.Join(notNegative("Queue", c.Queue), notNegative("QueuePerID", c.QueuePerID),
		notNegative("Timeout", c.Timeout), notNegative("Workers", c.Workers))
}

// Service answers commands over request-reply, as a NATS micro service named
// <store>-<type>, on <store>.command.<type>.<command>.<id>. The body is JSON, or
// msgpack with that Content-Type:
//
//	nats req bank.command.account.debit.a1 '{"cents":5}'
//
// Commands for different aggregates run in parallel, those for one in the order
// they came. Several instances share the work.
type Service struct {
	core *core
	cfg  ServiceConfig
}

// NewService makes a service for a repository's commands. Returns the
// configuration's mistakes.
func NewService[S any](repo *Repository[S], cfg ServiceConfig) (*Service, error) {
	if repo == nil {
		return nil, errors.New("command service: the repository is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Queue = cmp.Or(cfg.Queue, ServiceQueueDefault)
	cfg.QueuePerID = cmp.Or(cfg.QueuePerID, ServiceQueuePerIDDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, ServiceTimeoutDefault)
	cfg.Workers = cmp.Or(cfg.Workers, ServiceWorkersDefault)
	return &Service{core: repo.core, cfg: cfg}, nil
}

// Run serves until ctx ends, then answers what it has taken and returns nil. It
// returns an error when the service could not be started.
func (s *Service) Run(ctx context.Context) error {
	store := s.core.store
	name := store.Name() + "-" + s.core.typeName
	svc, err := micro.AddService(store.Conn(), micro.Config{
		Name: name, Version: serviceVersion, QueueGroup: serviceQueueGroup,
		Description: fmt.Sprintf(serviceDescriptionTemplate, s.core.typeName, store.Name()),
	})
	if err != nil {
		return fmt.Errorf("command service %q: %w", name, err)
	}
	pool := newWorkers(s.cfg.Workers, s.cfg.Queue, s.cfg.QueuePerID)
	// Requests outlive ctx: what was taken is answered.
	base := context.WithoutCancel(ctx)
	for command, h := range s.core.def.handlers { // under former names, too
		subject := protocol.CommandSubject(store.Name(), s.core.typeName, command, "*")
		err := svc.AddEndpoint(command, micro.HandlerFunc(func(req micro.Request) { s.take(base, pool, h, req) }),
			micro.WithEndpointSubject(subject), micro.WithEndpointMetadata(map[string]string{"body": h.command.String()}))
		if err != nil {
			return errors.Join(fmt.Errorf("command service %q: endpoint %q: %w", name, command, err), svc.Stop())
		}
	}
	// Once the server has seen the subscriptions, requests will arrive.
	if err := s.flush(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "command service starts while NATS is away", "service", name, "error", err)
	}
	s.cfg.Logger.InfoContext(ctx, "command service ready", "service", name, "commands", len(s.core.def.handlers))
	<-ctx.Done()
	err = svc.Stop()
	s.drained(base)
	pool.stop()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.cfg.Logger.WarnContext(base, "command service did not stop cleanly", "service", name, "error", err)
	}
	return nil
}

func (s *Service) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.core.store.Conn().FlushWithContext(ctx)
}

// drained waits until the requests that had arrived when the subscriptions ended
// have been taken.
func (s *Service) drained(ctx context.Context) {
	if err := s.flush(ctx); err != nil {
		return // nothing can be answered
	}
	done := make(chan struct{})
	if err := s.core.store.Conn().Barrier(func() { close(done) }); err != nil {
		return
	}
	t := time.NewTimer(s.cfg.Timeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C: // another subscription of the connection is slow
	}
}

// incoming is a request in the hands of a worker. micro reads its own as soon as
// its handler returns, so a worker must not answer through that.
type incoming struct {
	nc             *nats.Conn
	subject, reply string
	header         nats.Header
	body           []byte
	arrived        time.Time
}

// id is the aggregate's.
func (m *incoming) id() string { return m.subject[strings.LastIndexByte(m.subject, '.')+1:] }

func (m *incoming) respond(body []byte, header nats.Header) error {
	if m.reply == "" {
		return nil // nobody waits
	}
	return m.nc.PublishMsg(&nats.Msg{Subject: m.reply, Header: header, Data: body})
}

// take hands a request over to the workers: micro calls an endpoint's handler for
// one request at a time.
func (s *Service) take(ctx context.Context, pool *workers, h *handler, req micro.Request) {
	m := &incoming{
		nc: s.core.store.Conn(), subject: req.Subject(), reply: req.Reply(),
		header: nats.Header(req.Headers()), body: req.Data(), arrived: time.Now(),
	}
	if err := pool.submit(m.id(), func() { s.serve(ctx, h, m) }); err != nil {
		s.fail(ctx, m, err)
	}
}

func (s *Service) serve(ctx context.Context, h *handler, m *incoming) {
	defer func() {
		if p := recover(); p != nil {
			s.fail(ctx, m, fmt.Errorf("command %q panicked: %v\n%s", h.name, p, debug.Stack()))
		}
	}()
	res, cdc, err := s.execute(ctx, h, m)
	if err != nil {
		s.fail(ctx, m, err)
		return
	}
	err = s.succeed(m, res, cdc)
	if err != nil && len(res.Events) > 0 {
		// It has happened, so the caller must hear of it: without the events, which
		// do not fit into a reply.
		res.Events = nil
		err = s.succeed(m, res, cdc)
	}
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "reply not sent", "subject", m.subject, "error", err)
	}
}

// execute reads the request and executes its command.
func (s *Service) execute(ctx context.Context, h *handler, m *incoming) (Result, codec.Codec, error) {
	e, cdc, err := (&Encoded{
		Name: h.name, ContentType: m.header.Get(protocol.HeaderContentType), Body: m.body,
	}).normal()
	if err != nil {
		return Result{}, 0, err
	}
	c, err := callOf(m.header)
	if err != nil {
		return Result{}, 0, err
	}
	ctx, cancel, err := protocol.WithDeadline(ctx, m.header.Get(protocol.HeaderDeadline), m.arrived, s.cfg.Timeout)
	if err != nil {
		return Result{}, 0, &jetstream.InvalidError{
			Field: "request", Value: m.subject, Reason: "has a bad header: " + err.Error(),
		}
	}
	defer cancel()
	command, err := h.decode(cdc, e.Body)
	if err != nil {
		return Result{}, 0, err
	}
	if c.commandID != "" {
		c.hash = bodyHash(h.key, e.Body)
	}
	res, err := s.core.execute(ctx, m.id(),
		request{call: c, name: h.name, create: h.create, decide: h.decide, command: command})
	return res, cdc, err
}

func (s *Service) succeed(m *incoming, res Result, cdc codec.Codec) error {
	body, err := encodeReply(res, cdc, s.core.def)
	if err != nil {
		return err
	}
	return m.respond(body, nats.Header{protocol.HeaderContentType: {cdc.ContentType()}})
}

func (s *Service) fail(ctx context.Context, m *incoming, err error) {
	b := errorBody(err)
	if b.Kind == protocol.KindInternal {
		s.cfg.Logger.ErrorContext(ctx, "command failed", "subject", m.subject, "error", err)
	}
	body, err := json.Marshal(b)
	if err == nil {
		description := string(b.Kind)
		if b.Code != "" {
			description += ": " + b.Code
		}
		err = m.respond(body, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {b.Kind.Code()}})
	}
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "error reply not sent", "subject", m.subject, "error", err)
	}
}
