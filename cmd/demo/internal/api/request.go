package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// read takes a request's body: one JSON value of known fields, not too long, and
// not too slow.
func (a *API) read(w http.ResponseWriter, r *http.Request, v any) error {
	// The server sets the next request's deadline itself. Cleared here, it would
	// wait for the rest of a body that never comes before it answers.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(a.bodyTimeout)) // not every writer has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	if err == nil && !utf8.Valid(body) {
		return malformed("malformed", "the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err == nil {
		err = dec.Decode(v)
	}
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("there is more after the value")
		}
	}
	var network net.Error
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return malformed("body-too-large", "the body is longer than %d bytes", long.Limit)
	}
	if errors.As(err, &network) && network.Timeout() {
		return &problem{Status: http.StatusRequestTimeout, Code: "body-timeout", Detail: "the body took too long"}
	}
	return malformed("malformed", "the body is not as it should be: %v", err)
}

// pathID is an id in the request's path.
func pathID(r *http.Request, name string) (string, error) {
	id := r.PathValue(name)
	return id, validID(name, id)
}

func validID(name, id string) error {
	if invalid, ok := errors.AsType[*jetstream.InvalidError](jetstream.ValidateID(id)); ok {
		return malformed("invalid-id", "%s %s", name, invalid.Reason)
	}
	return nil
}

// optionalID checks an id that a client may leave out.
func optionalID(name, id string) error {
	if id == "" {
		return nil
	}
	return validID(name, id)
}

// keyOf is the request's idempotency key, bare or as a string in quotes.
func keyOf(r *http.Request) (string, error) {
	if len(r.Header.Values(headerKey)) == 0 {
		return "", nil
	}
	key := r.Header.Get(headerKey)
	if len(key) >= 2 && strings.HasPrefix(key, `"`) && strings.HasSuffix(key, `"`) {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > jetstream.MaxIDLength {
		return "", malformed("invalid-key", "the %s has %d bytes, wanted are 1 to %d",
			headerKey, len(key), jetstream.MaxIDLength)
	}
	return key, nil
}

// call is a command that waits for its options.
type call func(ctx context.Context, opts ...aggregate.CallOption) (aggregate.Result, error)

// execute runs a command of the request and sets the headers that its result
// asks for.
func (a *API) execute(w http.ResponseWriter, r *http.Request, run call) (aggregate.Result, error) {
	key, err := keyOf(r)
	if err != nil {
		return aggregate.Result{}, err
	}
	var opts []aggregate.CallOption
	if key != "" {
		opts = append(opts, aggregate.CommandID(key))
	}
	if trace := r.Header.Get("Traceparent"); trace != "" {
		opts = append(opts, aggregate.TraceParent(trace))
	}
	// A client that leaves does not make the outcome unknown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), a.commandTimeout)
	defer cancel()
	res, err := run(ctx, opts...)
	if err != nil {
		return res, err
	}
	if key != "" && res.Duplicate {
		w.Header().Set(headerReplayed, "true")
	}
	setPosition(w, res.Position)
	return res, nil
}

func (a *API) create(
	w http.ResponseWriter, r *http.Request, target aggregate.Target, id string, command any,
) (aggregate.Result, error) {
	return a.execute(w, r, func(ctx context.Context, opts ...aggregate.CallOption) (aggregate.Result, error) {
		return target.Create(ctx, id, command, opts...)
	})
}

func (a *API) update(
	w http.ResponseWriter, r *http.Request, target aggregate.Target, id string, command any,
) (aggregate.Result, error) {
	return a.execute(w, r, func(ctx context.Context, opts ...aggregate.CallOption) (aggregate.Result, error) {
		return target.Execute(ctx, id, command, opts...)
	})
}

// after is the position that the request wants to read, and a context that ends
// when it has waited long enough for it.
func (a *API) after(r *http.Request) (context.Context, context.CancelFunc, jetstream.Position, error) {
	q := r.URL.Query()
	p, err := jetstream.ParsePosition(q.Get("after"))
	if err == nil {
		_, err = a.cfg.Store.Sequence(p)
	}
	if err != nil {
		return nil, nil, p, malformed("invalid-position", "after is no position of this bank")
	}
	wait := a.afterWait
	if text := q.Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait <= 0 || wait > waitMax {
			return nil, nil, p, malformed("invalid-wait", "wait is a duration of at most %v, such as 2s", waitMax)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	return ctx, cancel, p, nil
}

// limit is how many entries a list may have.
func limit(r *http.Request, usual, most int) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, malformed("invalid-limit", "limit is a number from 1 to %d", most)
	}
	return n, nil
}
