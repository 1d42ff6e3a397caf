package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// QueryClient asks the [QueryService] of a view. It needs leave to publish to
// <store>.query.<view>.> and nothing of JetStream. It is safe for concurrent use.
type QueryClient[V any] struct {
	nc          *nats.Conn
	store, view string
	subject     string
}

// NewQueryClient makes a client for a view of a store. It sends nothing.
func NewQueryClient[V any](nc *nats.Conn, store, view string) *QueryClient[V] {
	return &QueryClient[V]{nc: nc, store: store, view: view, subject: querySubject(store, view)}
}

// Get returns a key's entry. Errors are those of [Reader.Get]; that nobody
// answers is [ErrUnavailable], any other refusal a [*QueryError].
func (c *QueryClient[V]) Get(ctx context.Context, key string, opts ...ReadOption) (Entry[V], error) {
	e := Entry[V]{Key: key}
	stored, err := encodeKey(key)
	if err != nil {
		return e, err
	}
	o := readOpts(opts)
	msg, err := c.request(ctx, "get."+stored, nil, o.atLeast)
	if err != nil {
		return e, err
	}
	if e.Position, err = jetstream.ParsePosition(msg.Header.Get(HeaderPosition)); err != nil {
		return e, err
	}
	e.Revision, _ = strconv.ParseUint(msg.Header.Get(HeaderRevision), 10, 64)
	e.Sequence, _ = strconv.ParseUint(msg.Header.Get(HeaderSequence), 10, 64)
	e.Generation, _ = strconv.Atoi(msg.Header.Get(HeaderGeneration))
	e.Time, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(HeaderTime))
	if err := codec.JSON.Decode(msg.Data, &e.Value); err != nil {
		return e, fmt.Errorf("view %q, %w", c.view, &ValueError{Key: key, Cause: err})
	}
	return e, nil
}

// List yields entries as [Reader.List] does.
func (c *QueryClient[V]) List(ctx context.Context, o ListOptions) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		c.pages(o.Limit, yield, func(after string, limit int) (listReply, error) {
			if after == "" {
				after = o.After
			}
			return c.page(ctx, "list", listRequest{Prefix: o.Prefix, After: after, Limit: limit}, o.AtLeast)
		})
	}
}

// pages yields page after page, up to a limit, 0 for no bound.
func (c *QueryClient[V]) pages(
	left int, yield func(Entry[V], error) bool, ask func(after string, limit int) (listReply, error),
) {
	for after := ""; ; {
		reply, err := ask(after, min(max(left, 0), scanKeys))
		if err != nil {
			yield(Entry[V]{}, err)
			return
		}
		for i := range reply.Entries {
			le := &reply.Entries[i]
			e := Entry[V]{
				Key: le.Key, Position: le.Position, Sequence: le.Sequence, Revision: le.Revision,
				Generation: le.Generation, Time: le.Time, Indexed: le.Indexed,
			}
			if e.Indexed == "" {
				_, e.place, err = parseToken(le.Token)
			}
			if err == nil {
				err = codec.JSON.Decode(le.Value, &e.Value)
			}
			if !yield(e, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
		if after = reply.Next; after == "" {
			return
		}
	}
}

func (c *QueryClient[V]) page(
	ctx context.Context, what string, request any, after jetstream.Position,
) (listReply, error) {
	var reply listReply
	body, err := json.Marshal(request)
	if err != nil {
		return reply, err
	}
	msg, err := c.request(ctx, what, body, after)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(msg.Data, &reply); err != nil {
		return reply, fmt.Errorf("%s of view %q: %w", what, c.view, err)
	}
	return reply, nil
}

func (c *QueryClient[V]) request(
	ctx context.Context, what string, body []byte, after jetstream.Position,
) (*nats.Msg, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, QueryTimeoutDefault)
		defer cancel()
	}
	req := nats.NewMsg(c.subject + "." + what)
	req.Data = body
	if !after.IsZero() {
		req.Header.Set(HeaderAfter, after.String())
	}
	if deadline, ok := ctx.Deadline(); ok {
		// The service answers "stale" before the caller stops listening.
		req.Header.Set(HeaderTimeout, (time.Until(deadline) * 9 / 10).String())
	}
	msg, err := wire.Request(ctx, c.nc, req)
	if err != nil {
		return nil, fmt.Errorf("query of view %q: %w: %w", c.view, ErrUnavailable, err)
	}
	code := msg.Header.Get(micro.ErrorCodeHeader)
	if code == "" {
		return msg, nil
	}
	failed := &QueryError{View: c.view, Code: code, Description: msg.Header.Get(micro.ErrorHeader), find: what == "find"}
	switch code {
	case CodeStale:
		stale := &StaleError{
			View: c.view, Wanted: after, State: State(msg.Header.Get(HeaderState)), Cause: msg.Header.Get(HeaderCause),
		}
		stale.Position, _ = jetstream.ParsePosition(msg.Header.Get(HeaderPosition))
		stale.Behind, _ = strconv.ParseUint(msg.Header.Get(HeaderBehind), 10, 64)
		stale.Lag, _ = time.ParseDuration(msg.Header.Get(HeaderLag))
		return nil, stale
	case CodeForeign:
		return nil, &jetstream.ForeignPositionError{Position: after, Store: c.store}
	}
	return nil, failed
}

// QueryError is a query that the service refused.
type QueryError struct {
	// Code is one of the package's error codes, Description says why.
	View, Code, Description string

	find bool // it was a search
}

// Error names the view and the reason.
func (e *QueryError) Error() string {
	return fmt.Sprintf("query of view %q: %s (code %s)", e.View, e.Description, e.Code)
}

// Is matches [ErrNotFound], of a search [ErrIndex] and [ErrTooManyMatches],
// [ErrTokenExpired] and [ErrUnavailable] by the code.
func (e *QueryError) Is(target error) bool {
	switch e.Code {
	case CodeNotFound:
		if e.find {
			return errors.Is(target, ErrIndex)
		}
		return errors.Is(target, ErrNotFound)
	case CodeTooMany:
		return errors.Is(target, ErrTooManyMatches)
	case CodeExpired:
		return errors.Is(target, ErrTokenExpired)
	case CodeUnavailable:
		return errors.Is(target, ErrUnavailable)
	}
	return false
}
