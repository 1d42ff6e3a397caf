package aggregate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/trace"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Target is where commands for one aggregate type go: a [Repository] in this
// process or a [Client] of a service elsewhere. Code written against it runs in a
// monolith and in microservices alike.
type Target interface {
	// TypeName is the name of the aggregate type.
	TypeName() string
	// Commands is [Type.Commands].
	Commands() []CommandInfo
	// Execute is [Repository.Execute].
	Execute(ctx context.Context, id string, command any, opts ...CallOption) (Result, error)
	// Create is [Repository.Create].
	Create(ctx context.Context, id string, command any, opts ...CallOption) (Result, error)

	definition() *definition
}

var (
	_ Target = (*Repository[struct{}])(nil)
	_ Target = (*Client)(nil)
)

// Defaults of [ClientConfig].
const (
	ClientTimeoutDefault        = 10 * time.Second
	ClientAttemptTimeoutDefault = 3 * time.Second
)

// ClientConfig tunes a [Client]. The zero value is a good one.
type ClientConfig struct {
	// AttemptTimeout bounds one request; what came of it is found out by asking
	// again. Defaults to [ClientAttemptTimeoutDefault].
	AttemptTimeout time.Duration
	// Codec is what commands and replies travel in. Defaults to [jetstream.Msgpack];
	// [jetstream.JSON] is for people who watch. A command id belongs to the bytes
	// that were sent with it: do not change the codec while commands are repeated.
	Codec jetstream.Codec
	// Timeout bounds commands whose context has no deadline. Defaults to
	// [ClientTimeoutDefault].
	Timeout time.Duration
	// TracerProvider makes the spans of the commands that are sent; see
	// docs/signals.md. Defaults to none.
	TracerProvider trace.TracerProvider
}

// Validate reports every field that [NewClient] would refuse, joined.
func (c ClientConfig) Validate() error {
	var codecErr error
	if !c.Codec.Valid() {
		codecErr = &jetstream.InvalidError{Field: "Codec", Value: c.Codec.String(), Reason: "is not a codec"}
	}
	return errors.Join(notNegative("AttemptTimeout", c.AttemptTimeout), codecErr, notNegative("Timeout", c.Timeout))
}

// Client sends commands to the services of one aggregate type. It is safe for
// concurrent use.
type Client struct {
	nc    *nats.Conn
	cfg   ClientConfig
	store string
	def   *definition
	name  string
	// tracer is nil without tracing.
	tracer *tracing.Tracer
}

// NewClient makes a client for the commands of a type. Returns the type's
// mistakes and the configuration's.
func NewClient[S any](nc *nats.Conn, store string, typ *Type[S], cfg ClientConfig) (*Client, error) {
	if nc == nil || typ == nil {
		return nil, errors.New("command client: the connection or the type is nil")
	}
	if err := errors.Join(jetstream.ValidateName("store name", store), typ.Err(), cfg.Validate()); err != nil {
		return nil, err
	}
	cfg.AttemptTimeout = cmp.Or(cfg.AttemptTimeout, ClientAttemptTimeoutDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, ClientTimeoutDefault)
	return &Client{
		nc: nc, cfg: cfg, store: store, def: &typ.def, name: typ.Name(), tracer: tracing.New(cfg.TracerProvider),
	}, nil
}

// TypeName is the name of the aggregate type.
func (c *Client) TypeName() string { return c.name }

// Commands is [Type.Commands].
func (c *Client) Commands() []CommandInfo { return c.def.commands() }

func (c *Client) definition() *definition { return c.def }

// Execute sends a command and waits for what came of it. A command without an id
// is given one, so it is simply sent again – when a request or its reply was lost,
// when no service listens, when the service is busy – until ctx ends.
//
// Errors are those of [Repository.Execute], and [ErrInternal] of the service. When
// ctx ends while a request is open it is [jetstream.ErrUnknownOutcome], and so is a
// reply that cannot be read; when the services were busy to the end, a [*BusyError]
// or [ErrContended]; when none executed it, [jetstream.ErrUnavailable]. The result of
// a refusal has only the ID.
func (c *Client) Execute(ctx context.Context, id string, command any, opts ...CallOption) (Result, error) {
	return c.send(ctx, id, command, newCall(opts))
}

// Create is [Client.Execute] for a [Create] command; see [Repository.Create].
func (c *Client) Create(ctx context.Context, id string, command any, opts ...CallOption) (Result, error) {
	call := newCall(opts)
	if call.commandID == "" && call.trigger == nil {
		call.commandID = jetstream.NewCommandID()
	}
	return c.send(ctx, cmp.Or(id, call.newAggregateID()), command, call)
}

// encode gives a command as it travels.
func (c *Client) encode(command any) (*Encoded, error) {
	switch e := command.(type) {
	case Encoded:
		return c.normal(&e)
	case *Encoded:
		if e != nil {
			return c.normal(e)
		}
	}
	h, command, err := c.def.lookup(command)
	if err != nil {
		return nil, err
	}
	body, err := c.cfg.Codec.Encode(command)
	if err != nil {
		return nil, &jetstream.InvalidError{Field: "command", Value: h.name, Reason: "does not encode: " + err.Error()}
	}
	return &Encoded{Name: h.name, ContentType: c.cfg.Codec.ContentType(), Body: body}, nil
}

func (c *Client) normal(e *Encoded) (*Encoded, error) {
	if _, err := c.def.encoded(e); err != nil {
		return nil, err
	}
	e, cdc, err := e.normal()
	if err != nil {
		return nil, err
	}
	return &Encoded{Name: e.Name, ContentType: cdc.ContentType(), Body: e.Body}, nil
}

func (c *Client) send(ctx context.Context, id string, command any, call *call) (Result, error) {
	e, err := c.encode(command)
	if err != nil {
		return Result{}, err
	}
	if err := errors.Join(jetstream.ValidateID(id), call.validate(time.Now())); err != nil {
		return Result{}, err
	}
	if len(call.interceptors) > 0 {
		return Result{}, &jetstream.InvalidError{
			Field: "interceptor", Value: e.Name, Reason: "does not travel: give it to the repository of the service",
		}
	}
	if call.commandID == "" && call.trigger == nil {
		call.commandID = jetstream.NewCommandID()
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(c.cfg.Timeout)
	}
	s := &sending{Client: c, id: id, call: call, command: e, deadline: deadline}
	if c.tracer == nil {
		return s.send(ctx)
	}
	ctx, span := c.traceSend(ctx, id, e.Name, call)
	res, err := s.send(ctx)
	endSend(span, res, err)
	return res, err
}

// sending is a command on its way.
type sending struct {
	*Client

	id       string
	call     *call
	command  *Encoded
	deadline time.Time
	// open tells that the command may have happened.
	open bool
}

// send sends the command until its outcome is known, or its time is over.
func (s *sending) send(ctx context.Context) (Result, error) {
	if ctx.Err() != nil || time.Until(s.deadline) <= 0 {
		return Result{}, s.unavailable(s.over(ctx))
	}
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		res, err := s.attempt(ctx)
		if err == nil {
			return res, nil
		}
		pause := wait
		busy, isBusy := errors.AsType[*BusyError](err)
		switch {
		case wire.Denied(err):
			if s.open {
				return Result{}, &jetstream.UnknownError{Type: s.name, ID: s.id, Cause: err}
			}
			return res, err
		case errors.Is(err, jetstream.ErrUnknownOutcome):
			s.open = true
		case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, ErrContended):
			pause = min(pause, time.Until(s.deadline)/3) // who comes back late is still found
		case isBusy:
			pause = cmp.Or(busy.RetryAfter, wait)
		case s.open && !isRefusal(err) && !errors.Is(err, ErrOtherPayload):
			// It was not done this time; before, it may have been, or may be yet. Only an
			// outcome, which is recorded, is that of all attempts.
		default:
			return res, err
		}
		pause = max(pause, time.Millisecond)
		if s.pause(ctx, pause/2+rand.N(pause)) {
			continue
		}
		switch {
		case s.open:
			// What the last attempt came to must not be found in it: it may say that
			// nothing was done.
			cause := fmt.Errorf("%w; the last attempt: %s", s.over(ctx), err.Error())
			return Result{}, &jetstream.UnknownError{Type: s.name, ID: s.id, Cause: cause}
		case errors.Is(err, jetstream.ErrUnavailable):
			return Result{}, s.unavailable(errors.Join(s.over(ctx), err))
		default:
			return res, err
		}
	}
}

// over says why there are no more attempts.
func (s *sending) over(ctx context.Context) error {
	return cmp.Or(context.Cause(ctx), context.DeadlineExceeded)
}

// unavailable is the error of a command that nobody executed.
func (s *sending) unavailable(cause error) error {
	return fmt.Errorf("%s %q: %w: command %q was not executed: %w",
		s.name, s.id, jetstream.ErrUnavailable, s.command.Name, cause)
}

// lastAttempt is the least time that an attempt is worth: one that is cut off turns
// "nothing was done" into "unknown".
const lastAttempt = 50 * time.Millisecond

// pause waits before the next attempt, and tells whether there is time, and a
// connection, for one.
func (s *sending) pause(ctx context.Context, d time.Duration) bool {
	left := time.Until(s.deadline)
	if left <= 0 || !s.open && left < d+lastAttempt {
		return false
	}
	t := time.NewTimer(min(d, left/2)) // in the end more often: the answer is there, or nowhere
	defer t.Stop()
	select {
	case <-t.C:
		return !s.nc.IsClosed()
	case <-ctx.Done():
		return false
	}
}

// attempt sends the command once. The service gives up when the attempt does, so
// that two attempts do not run at once.
func (s *sending) attempt(ctx context.Context) (Result, error) {
	deadline := s.deadline
	if most := time.Now().Add(s.cfg.AttemptTimeout); most.Before(deadline) {
		deadline = most
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if s.open {
		// An earlier request may arrive after this one: what it finds must be this
		// one's outcome, a refusal too.
		s.call.recordRejections = true
	}
	header := s.call.header(ctx, s.command.ContentType)
	resp, err := s.request(ctx, s.command.Name, header)
	if errors.Is(err, nats.ErrNoResponders) {
		// Services that are older than this program know a former name.
		for _, name := range s.def.formerNames(s.command.Name) {
			if resp, err = s.request(ctx, name, header); !errors.Is(err, nats.ErrNoResponders) {
				break
			}
		}
	}
	switch {
	case err == nil:
		return s.reply(s.id, resp)
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrHeadersNotSupported), wire.DeniedSurely(err):
		return Result{}, &jetstream.RefusedError{Type: s.name, ID: s.id, Cause: err}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrInvalidConnection), errors.Is(err, nats.ErrConnectionDraining),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return Result{}, fmt.Errorf("%w: no service took it: %w", jetstream.ErrUnavailable, err)
	default:
		return Result{}, &jetstream.UnknownError{Type: s.name, ID: s.id, Cause: err}
	}
}

func (s *sending) request(ctx context.Context, command string, header nats.Header) (*nats.Msg, error) {
	return wire.Request(ctx, s.nc, &nats.Msg{
		Subject: protocol.CommandSubject(s.store, s.name, command, s.id), Header: header, Data: s.command.Body,
	})
}

func (c *Client) reply(id string, msg *nats.Msg) (Result, error) {
	code := msg.Header.Get(micro.ErrorCodeHeader)
	if code == "" {
		var res Result
		cdc, err := (&Encoded{ContentType: msg.Header.Get(protocol.HeaderContentType)}).codec()
		if err == nil {
			res, err = decodeReply(msg.Data, cdc, c.def)
		}
		if err != nil { // of a service that has done it, or of nobody who could
			err = &jetstream.UnknownError{Type: c.name, ID: id, Cause: fmt.Errorf("reply: %w", err)}
		}
		return res, err
	}
	var b protocol.ErrorBody
	if err := json.Unmarshal(msg.Data, &b); err != nil || b.Kind == "" {
		return Result{}, fmt.Errorf("%s %q: %w: %s %s", c.name, id, ErrInternal, code, msg.Header.Get(micro.ErrorHeader))
	}
	return Result{ID: id}, remoteError(c.name, id, b)
}
