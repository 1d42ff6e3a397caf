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

// ClientTimeoutDefault bounds commands whose context has no deadline.
const ClientTimeoutDefault = 10 * time.Second

// clientAttempt bounds one request; what came of it is found out by asking again.
const clientAttempt = 3 * time.Second

// Client sends commands to the services of one aggregate type. It is safe for
// concurrent use.
type Client struct {
	nc    *nats.Conn
	store string
	def   *definition
	name  string
}

// NewClient makes a client for the commands of a type. Returns the type's
// mistakes.
func NewClient[S any](nc *nats.Conn, store string, typ *Type[S]) (*Client, error) {
	if nc == nil || typ == nil {
		return nil, errors.New("command client: the connection or the type is nil")
	}
	if err := errors.Join(jetstream.ValidateName("store name", store), typ.Err()); err != nil {
		return nil, err
	}
	return &Client{nc: nc, store: store, def: &typ.def, name: typ.Name()}, nil
}

// TypeName is the name of the aggregate type.
func (c *Client) TypeName() string { return c.name }

func (c *Client) definition() *definition { return c.def }

// Execute sends a command and waits for what came of it. A command without an id
// is given one, so a lost request or reply is simply sent again, until ctx ends.
//
// Errors are those of [Repository.Execute], and [ErrBusy] and [ErrInternal] of
// the service. When ctx ends while a request is open it is
// [jetstream.ErrUnknownOutcome]; when no service executed one,
// [jetstream.ErrUnavailable]. The result of a refusal has only the ID.
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

func (c *Client) send(ctx context.Context, id string, command any, call *call) (Result, error) {
	h, command, err := c.def.lookup(command)
	if err != nil {
		return Result{}, err
	}
	if err := errors.Join(jetstream.ValidateID(id), call.validate(time.Now())); err != nil {
		return Result{}, err
	}
	if len(call.interceptors) > 0 {
		return Result{}, &jetstream.InvalidError{
			Field: "interceptor", Value: h.name, Reason: "does not travel: give it to the repository of the service",
		}
	}
	if call.commandID == "" && call.trigger == nil {
		call.commandID = jetstream.NewCommandID()
	}
	body, err := codec.JSON.Encode(command)
	if err != nil {
		return Result{}, &jetstream.InvalidError{Field: "command", Value: h.name, Reason: "does not encode: " + err.Error()}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ClientTimeoutDefault)
		defer cancel()
	}
	subject := protocol.CommandSubject(c.store, c.name, h.name, id)
	open := false
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		res, err := c.attempt(ctx, id, subject, call, body)
		switch {
		case err == nil:
			return res, nil
		case errors.Is(err, jetstream.ErrUnknownOutcome):
			open = true
		case errors.Is(err, jetstream.ErrUnavailable):
		case open && undone(err):
			// It was not done this time; before, it may have been.
		default:
			return res, err
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
			if !c.nc.IsClosed() {
				continue
			}
		case <-ctx.Done():
			t.Stop()
		}
		cause := errors.Join(context.Cause(ctx), err)
		if open {
			return Result{}, &jetstream.UnknownError{Type: c.name, ID: id, Cause: cause}
		}
		return Result{}, fmt.Errorf("%s %q: %w: command %q was not executed: %w",
			c.name, id, jetstream.ErrUnavailable, h.name, cause)
	}
}

// undone tells errors of a service that has done nothing, but does not say that
// nobody did before.
func undone(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, ErrContended) || errors.Is(err, ErrInternal)
}

// attempt sends the command once. The service gives up when the attempt does, so
// that two attempts do not run at once.
func (c *Client) attempt(ctx context.Context, id, subject string, call *call, body []byte) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, clientAttempt)
	defer cancel()
	resp, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: call.header(ctx), Data: body})
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
		return decodeReply(msg.Data, c.def)
	}
	var b protocol.ErrorBody
	if err := json.Unmarshal(msg.Data, &b); err != nil || b.Kind == "" {
		return Result{}, fmt.Errorf("%s %q: %w: %s %s", c.name, id, ErrInternal, code, msg.Header.Get(micro.ErrorHeader))
	}
	return Result{ID: id}, remoteError(c.name, id, b)
}
