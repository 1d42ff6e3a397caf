package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// PermissionError is what the server does not let this client do.
type PermissionError struct {
	// Op is "publish" or "subscribe". A request is a publish; reading from JetStream
	// is a request.
	Op string
	// Subject is what was published or subscribed to.
	Subject string
	// Cause is the server's complaint, a nats.ErrPermissionViolation.
	Cause error

	alone bool
}

// Error names what was tried and the subject.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("permission denied: %s to %q", e.Op, e.Subject)
}

// Unwrap gives the server's complaint.
func (e *PermissionError) Unwrap() error { return e.Cause }

// Denied tells whether err is a [*PermissionError].
func Denied(err error) bool {
	_, ok := errors.AsType[*PermissionError](err)
	return ok
}

// DeniedSurely tells whether err is a [*PermissionError] that can be about no other
// request: the server says which subject it denied, not which message.
func DeniedSurely(err error) bool {
	e, ok := errors.AsType[*PermissionError](err)
	return ok && e.alone
}

// denials joins what the server says about permissions to the requests that it is
// about. A server answers a denied request with an error of the connection, beside
// all requests, so that a request would wait until its time is up.
//
// It hangs at its connection as the dialer, the one option that can be found again
// by its type: nothing has to be kept beside connections.
type denials struct {
	nats.CustomDialer

	mu   sync.Mutex
	open map[*asked]struct{}
	// inbox is why no answer can come, since a number of reconnects.
	inbox      *PermissionError
	reconnects uint64
}

// asked is a request that is under way.
type asked struct {
	subject string
	msgs    []*nats.Msg
	match   func(subject string) bool

	nc     *nats.Conn
	before error           // the connection's last one before the request
	ctx    context.Context //nolint:containedctx // the request's own, nil when nobody listens
	end    context.CancelCauseFunc
}

func (a *asked) about(subject string) bool {
	if a.match != nil {
		return a.match(subject)
	}
	for _, m := range a.msgs {
		if m.Subject == subject {
			return true
		}
	}
	return a.subject == subject
}

// WatchDenials makes requests on a connection with these options end at once when
// the server denies them, with a [*PermissionError]. It must be the last option.
// Without it they wait for their time to be up, and then say why.
func WatchDenials(o *nats.Options) {
	d := &denials{CustomDialer: o.CustomDialer, open: make(map[*asked]struct{})}
	if d.CustomDialer == nil {
		dialer := &net.Dialer{Timeout: o.Timeout}
		if o.Dialer != nil {
			own := *o.Dialer
			dialer = &own
		}
		if o.AllowMultipathTCP != nil {
			dialer.SetMultipathTCP(*o.AllowMultipathTCP)
		}
		d.CustomDialer = dialer
	}
	o.CustomDialer = d
	handler := o.AsyncErrorCB
	o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if denied := permission(err); denied != nil {
			d.tell(nc, denied)
		}
		if handler != nil {
			handler(nc, sub, err)
		}
	}
}

// SkipTLSHandshake is what the dialer says that this one stands for.
func (d *denials) SkipTLSHandshake() bool {
	inner, ok := d.CustomDialer.(interface{ SkipTLSHandshake() bool })
	return ok && inner.SkipTLSHandshake()
}

// tell ends the requests that the denial is about.
func (d *denials) tell(nc *nats.Conn, denied *PermissionError) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if denied.Op == opSubscribe && strings.HasPrefix(denied.Subject, inboxPrefix(nc)) {
		// No request will ever be answered on this connection.
		d.inbox, d.reconnects = denied, nc.Stats().Reconnects
		for a := range d.open {
			a.end(denied)
		}
		return
	}
	var about []*asked
	for a := range d.open {
		if a.about(denied.Subject) {
			about = append(about, a)
		}
	}
	denied.alone = len(about) == 1
	for _, a := range about {
		a.end(denied)
	}
}

func inboxPrefix(nc *nats.Conn) string {
	if nc.Opts.InboxPrefix != "" {
		return nc.Opts.InboxPrefix + "."
	}
	return nats.InboxPrefix
}

// watch returns a context that ends when the server denies what is asked, until
// told is called.
func (a *asked) watch(ctx context.Context, nc *nats.Conn) context.Context {
	a.nc, a.before = nc, nc.LastError()
	d, ok := nc.Opts.CustomDialer.(*denials)
	if !ok {
		return ctx
	}
	a.ctx, a.end = context.WithCancelCause(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inbox != nil && d.reconnects != nc.Stats().Reconnects {
		d.inbox = nil
	}
	if d.inbox != nil {
		a.end(d.inbox)
	} else {
		d.open[a] = struct{}{}
	}
	return a.ctx
}

// told gives up watching, and puts a denial in the place of the request's error.
func (a *asked) told(err error) error {
	if a.ctx != nil {
		d, _ := a.nc.Opts.CustomDialer.(*denials)
		d.mu.Lock()
		delete(d.open, a)
		d.mu.Unlock()
		cause := context.Cause(a.ctx)
		a.end(nil)
		if denied, ok := errors.AsType[*PermissionError](cause); ok && err != nil {
			return denied
		}
	}
	// What was said beside the request, when nobody was listening to it.
	last := a.nc.LastError()
	if err == nil || last == nil || last == a.before { //nolint:errorlint // the same one, not one like it
		return err
	}
	if denied := permission(last); denied != nil && a.about(denied.Subject) {
		// A batch that lost a message, while nothing else is asked about its subjects,
		// lost the one that was denied.
		denied.alone = Number(err) == CodeBatchIncomplete && a.isAlone(denied.Subject)
		return denied
	}
	return err
}

// isAlone tells whether no other request about a subject is under way, as far as this
// connection is watched.
func (a *asked) isAlone(subject string) bool {
	d, ok := a.nc.Opts.CustomDialer.(*denials)
	if !ok {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for other := range d.open {
		if other != a && other.about(subject) {
			return false
		}
	}
	return true
}

// answerTimeout is how long a request waits whose context has no deadline: one that is
// lost is never answered.
const answerTimeout = 10 * time.Second

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, answerTimeout)
}

// Request sends a request and waits for its answer, for 10 s if its context
// has no deadline. Errors are those of nats.go, and a [*PermissionError].
func Request(ctx context.Context, nc *nats.Conn, msg *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a := &asked{subject: msg.Subject}
	resp, err := nc.RequestMsgWithContext(a.watch(ctx, nc), msg)
	return resp, a.told(err)
}

// Ask is [Request] without headers.
func Ask(ctx context.Context, nc *nats.Conn, subject string, body []byte) (*nats.Msg, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a := &asked{subject: subject}
	resp, err := nc.RequestWithContext(a.watch(ctx, nc), subject, body)
	return resp, a.told(err)
}

// Watched runs what makes requests by itself, such as nats.go's jetstream, about
// subjects that match. A denial ends its context, and becomes its error.
func Watched(
	ctx context.Context, nc *nats.Conn, match func(subject string) bool, do func(context.Context) error,
) error {
	a := &asked{match: match}
	return a.told(do(a.watch(ctx, nc)))
}

// API is [Watched] for requests to JetStream's API about a stream or its consumers.
func API(ctx context.Context, nc *nats.Conn, stream string, do func(context.Context) error) error {
	return Watched(ctx, nc, func(subject string) bool {
		rest, ok := strings.CutPrefix(subject, "$JS.API")
		return ok && (rest == ".INFO" || strings.Contains(rest+".", "."+stream+"."))
	}, do)
}

// Ensure makes a stream that is not there: to look first takes fewer permissions
// than to make it each time. Errors of create are its own.
func Ensure(ctx context.Context, nc *nats.Conn, stream string, create func(context.Context) error) error {
	msg, err := Ask(ctx, nc, "$JS.API.STREAM.INFO."+stream, nil)
	if err != nil {
		return err
	}
	var resp struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case resp.Error == nil:
		return nil
	case resp.Error.Number != CodeStreamNotFound:
		return resp.Error
	}
	return API(ctx, nc, stream, create)
}

// Listening is called before subscribing. What it returns, called after a flush,
// tells whether the server denied a subscription to what matches: what it has
// against one comes before its answer to the flush.
func Listening(nc *nats.Conn) func(match func(subject string) bool) error {
	before := nc.LastError()
	return func(match func(subject string) bool) error {
		last := nc.LastError()
		if last == nil || last == before { //nolint:errorlint // the same one, not one like it
			return nil
		}
		if denied := permission(last); denied != nil && denied.Op == opSubscribe && match(denied.Subject) {
			return denied
		}
		return nil
	}
}

const (
	opPublish   = "publish"
	opSubscribe = "subscribe"
)

// permission reads a server's complaint, nil when it is about something else.
func permission(err error) *PermissionError {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	text := err.Error()
	for op, phrase := range map[string]string{opPublish: "Publish to ", opSubscribe: "Subscription to "} {
		_, rest, ok := strings.Cut(text, phrase)
		if !ok {
			continue
		}
		quoted, err2 := strconv.QuotedPrefix(rest)
		if err2 != nil {
			continue
		}
		if subject, err2 := strconv.Unquote(quoted); err2 == nil {
			return &PermissionError{Op: op, Subject: subject, Cause: err}
		}
	}
	return nil
}
