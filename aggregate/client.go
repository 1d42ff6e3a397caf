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

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/protocol"
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
	// Timeout bounds commands whose context has no deadline. Defaults to
	// [ClientTimeoutDefault].
	Timeout time.Duration
}

// Validate reports every field that [NewClient] would refuse, joined.
func (c ClientConfig) Validate() error {
	return errors.Join(notNegative("AttemptTimeout", c.AttemptTimeout), notNegative("Timeout", c.Timeout))
}

// Client sends commands to the services of one aggregate type. It is safe for
// concurrent use.
type Client struct {
	nc    *nats.Conn
	cfg   ClientConfig
	store string
	def   *definition
	name  string
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
	return &Client{nc: nc, cfg: cfg, store: store, def: &typ.def, name: typ.Name()}, nil
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
// ctx ends while a request is open it is [jetstream.ErrUnknownOutcome]; when the
// services were busy to the end, a [*BusyError] or [ErrContended]; when none
// executed it, [jetstream.ErrUnavailable]. The result of a refusal has only the ID.
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
	body, err := codec.JSON.Encode(command)
	if err != nil {
		return nil, &jetstream.InvalidError{Field: "command", Value: h.name, Reason: "does not encode: " + err.Error()}
	}
	return &Encoded{Name: h.name, ContentType: codec.JSON.ContentType(), Body: body}, nil
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
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	names := c.def.names(e.Name)
	open := false
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		res, err := c.attempt(ctx, id, names, call, e)
		pause := wait
		busy, isBusy := errors.AsType[*BusyError](err)
		switch {
		case err == nil:
			return res, nil
		case errors.Is(err, jetstream.ErrUnknownOutcome):
			open = true
		case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, ErrContended):
			pause = c.shorten(ctx, pause)
		case isBusy:
			pause = cmp.Or(busy.RetryAfter, wait)
		case open && errors.Is(err, ErrInternal):
			// It was not done this time; before, it may have been.
		default:
			return res, err
		}
		if c.pause(ctx, pause/2+rand.N(pause), open) {
			continue
		}
		switch {
		case open:
			return Result{}, &jetstream.UnknownError{Type: c.name, ID: id, Cause: errors.Join(context.Cause(ctx), err)}
		case errors.Is(err, jetstream.ErrUnavailable):
			return Result{}, fmt.Errorf("%s %q: %w: command %q was not executed: %w",
				c.name, id, jetstream.ErrUnavailable, e.Name, errors.Join(context.Cause(ctx), err))
		default:
			return res, err
		}
	}
}

// lastAttempt is the least time that an attempt is worth: one that is cut off turns
// "nothing was done" into "unknown".
const lastAttempt = 50 * time.Millisecond

// pause waits before the next attempt, and tells whether there is time, and a
// connection, for one.
func (c *Client) pause(ctx context.Context, d time.Duration, open bool) bool {
	if at, ok := ctx.Deadline(); ok {
		left := time.Until(at)
		if !open && left < d+lastAttempt {
			return false
		}
		d = min(d, left/2) // in the end more often: the answer is there, or nowhere
	}
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return !c.nc.IsClosed()
	case <-ctx.Done():
		return false
	}
}

// shorten lets a service that comes back late still be found.
func (c *Client) shorten(ctx context.Context, pause time.Duration) time.Duration {
	if at, ok := ctx.Deadline(); ok {
		return max(min(pause, time.Until(at)/3), time.Millisecond)
	}
	return pause
}

// attempt sends the command once. The service gives up when the attempt does, so
// that two attempts do not run at once. Services that are older than this program
// know the command by a former name.
func (c *Client) attempt(ctx context.Context, id string, names []string, call *call, e *Encoded) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	header := call.header(ctx, e.ContentType)
	var resp *nats.Msg
	var err error
	for _, name := range names {
		resp, err = c.nc.RequestMsgWithContext(ctx,
			&nats.Msg{Subject: protocol.CommandSubject(c.store, c.name, name, id), Header: header, Data: e.Body})
		if !errors.Is(err, nats.ErrNoResponders) {
			break
		}
	}
	switch {
	case err == nil:
		return c.reply(id, resp)
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrHeadersNotSupported):
		return Result{}, &jetstream.RefusedError{Type: c.name, ID: id, Cause: err}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrInvalidConnection), errors.Is(err, nats.ErrConnectionDraining),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return Result{}, fmt.Errorf("%w: no service took it: %w", jetstream.ErrUnavailable, err)
	default:
		return Result{}, &jetstream.UnknownError{Type: c.name, ID: id, Cause: err}
	}
}

func (c *Client) reply(id string, msg *nats.Msg) (Result, error) {
	code := msg.Header.Get(micro.ErrorCodeHeader)
	if code == "" {
		cdc, err := (&Encoded{ContentType: msg.Header.Get(protocol.HeaderContentType)}).codec()
		if err != nil {
			return Result{}, fmt.Errorf("reply: %w", err)
		}
		return decodeReply(msg.Data, cdc, c.def)
	}
	var b protocol.ErrorBody
	if err := json.Unmarshal(msg.Data, &b); err != nil || b.Kind == "" {
		return Result{}, fmt.Errorf("%s %q: %w: %s %s", c.name, id, ErrInternal, code, msg.Header.Get(micro.ErrorHeader))
	}
	return Result{ID: id}, remoteError(c.name, id, b)
}
