package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
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
	// QueuePerID bounds those for one aggregate. Defaults to
	// [ServiceQueuePerIDDefault].
	QueuePerID int
	// Timeout bounds a command whose caller states no deadline, and every other
	// one. Defaults to [ServiceTimeoutDefault].
	Timeout time.Duration
	// Workers is the number of aggregates that are worked on at once. Defaults to
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
// they came; what waits for one is decided and stored together. Several instances
// share the work.
//
// Every command that was taken is answered, within the time that its caller gave it
// or Timeout: also when the service stops, and when a handler panics or does not
// return.
type Service struct {
	core *core
	cfg  ServiceConfig
	// replyHeaders are those of every success, by codec. Nobody changes them.
	replyHeaders map[codec.Codec]nats.Header
	ready        chan struct{}
	becomeReady  func()
	counters     serviceCounters
	pool         atomic.Pointer[workers]
}

// NewService makes a service for a repository's commands. Returns the
// configuration's mistakes.
func NewService[S any](repo *Repository[S], cfg ServiceConfig) (*Service, error) {
	if repo == nil {
		return nil, errors.New("command service: the repository is nil")
	}
	if repo.core.store.Conn() == nil {
		return nil, errors.New("command service: the repository's store is in memory")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Queue = cmp.Or(cfg.Queue, ServiceQueueDefault)
	cfg.QueuePerID = cmp.Or(cfg.QueuePerID, ServiceQueuePerIDDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, ServiceTimeoutDefault)
	cfg.Workers = cmp.Or(cfg.Workers, ServiceWorkersDefault)
	headers := map[codec.Codec]nats.Header{}
	for _, c := range []codec.Codec{codec.JSON, codec.Msgpack} {
		headers[c] = nats.Header{protocol.HeaderContentType: {c.ContentType()}}
	}
	ready := make(chan struct{})
	return &Service{
		core: repo.core, cfg: cfg, replyHeaders: headers, ready: ready, becomeReady: sync.OnceFunc(func() { close(ready) }),
	}, nil
}

// TypeName is the name of the aggregate type whose commands it answers.
func (s *Service) TypeName() string { return s.core.typeName }

// Ready is closed once the service takes commands: a deploy may stop another
// instance then.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then answers what it has taken and returns nil. It
// returns an error when the service could not be started, or may not listen: a
// [*jetstream.PermissionError].
func (s *Service) Run(ctx context.Context) error {
	store := s.core.store
	name := store.Name() + "-" + s.core.typeName
	denied := wire.Listening(store.Conn())
	svc, err := micro.AddService(store.Conn(), micro.Config{
		Name: name, Version: serviceVersion, QueueGroup: serviceQueueGroup,
		Description:  fmt.Sprintf(serviceDescriptionTemplate, s.core.typeName, store.Name()),
		StatsHandler: func(*micro.Endpoint) any { return s.Stats() },
	})
	if err != nil {
		return fmt.Errorf("command service %q: %w", name, err)
	}
	pool := newWorkers(s.cfg.Workers, s.cfg.Queue, s.cfg.QueuePerID)
	s.pool.Store(pool)
	metadata := s.metadata(ctx, store.Conn().MaxPayload())
	// Requests outlive ctx: what was taken is answered.
	base := context.WithoutCancel(ctx)
	for command, h := range s.core.def.handlers { // under former names, too
		subject := protocol.CommandSubject(store.Name(), s.core.typeName, command, "*")
		err := svc.AddEndpoint(command, micro.HandlerFunc(func(req micro.Request) { s.take(base, pool, h, req) }),
			micro.WithEndpointSubject(subject), micro.WithEndpointMetadata(metadata[h]))
		if err != nil {
			err = errors.Join(fmt.Errorf("command service %q: endpoint %q: %w", name, command, err), svc.Stop())
			pool.stop()
			return err
		}
	}
	var later sync.WaitGroup
	defer later.Wait()
	// Once the server has seen the subscriptions, requests will arrive.
	if err := s.flush(ctx); err == nil {
		if err := denied(s.listensTo); err != nil {
			pool.stop()
			return errors.Join(fmt.Errorf("command service %q: %w", name, err), svc.Stop())
		}
		s.becomeReady()
		s.cfg.Logger.InfoContext(ctx, "command service ready", "service", name, "commands", len(s.core.def.handlers))
	} else if ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "command service starts while NATS is away", "service", name, "error", err)
		later.Go(func() { s.readyLater(ctx) })
	}
	<-ctx.Done()
	err = svc.Stop()
	wire.Arrived(base, store.Conn(), s.cfg.Timeout)
	pool.stop()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.cfg.Logger.WarnContext(base, "command service did not stop cleanly", "service", name, "error", err)
	}
	return nil
}

// listensTo tells whether a subject is one of the service's.
func (s *Service) listensTo(subject string) bool {
	return strings.HasPrefix(subject, s.core.store.Name()+".command."+s.core.typeName+".")
}

// readyLater waits until NATS is there.
func (s *Service) readyLater(ctx context.Context) {
	for ctx.Err() == nil && !s.core.store.Conn().IsClosed() {
		if s.flush(ctx) == nil {
			s.becomeReady()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(readyPoll):
		}
	}
}

// readyPoll is how often a service looks whether NATS is back.
const readyPoll = 100 * time.Millisecond

func (s *Service) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.core.store.Conn().FlushWithContext(ctx)
}
