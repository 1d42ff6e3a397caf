package projection

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Headers of queries and their answers.
const (
	// HeaderAfter of a request is the position that the view must have reached.
	HeaderAfter = "Rossby-After"
	// HeaderTimeout of a request is how long the caller waits, as a Go duration.
	HeaderTimeout = "Rossby-Timeout"
	// HeaderPosition, HeaderRevision, HeaderGeneration and HeaderSequence of an
	// answer are the entry's.
	HeaderPosition   = "Rossby-Position"
	HeaderRevision   = "Rossby-Revision"
	HeaderGeneration = "Rossby-Generation"
	HeaderSequence   = headerSequence
	// HeaderTime is when the entry was written, RFC 3339.
	HeaderTime = "Rossby-Time"
	// HeaderBehind, HeaderLag, HeaderState and HeaderCause of the answer that the view
	// is behind are those of a [StaleError]; the lag is a Go duration.
	HeaderBehind = "Rossby-Behind"
	HeaderLag    = "Rossby-Lag"
	HeaderState  = "Rossby-State"
	HeaderCause  = "Rossby-Cause"
)

// Error codes of the query service, in the header Nats-Service-Error-Code.
const (
	CodeInvalid     = "400" // malformed request, key or token
	CodeNotFound    = "404" // the view does not hold the key, or has no such index
	CodeForeign     = "409" // the position is one of another store
	CodeExpired     = "410" // the list's token is one of another generation
	CodeTooLarge    = "413" // the answer is larger than the server's payload
	CodeTooMany     = "422" // the search of the index finds more than can be sorted
	CodeInternal    = "500"
	CodeUnavailable = "503" // NATS cannot be read, or the service is busy
	CodeStale       = "504" // the view did not reach the position in time
)

// Defaults of [QueryConfig].
const (
	QueryConcurrencyDefault = 64
	QueryPageDefault        = 100
	QueryTimeoutDefault     = 5 * time.Second
)

// QueryConfig describes a [QueryService]. The zero value is right for most.
type QueryConfig struct {
	// Concurrency bounds the requests that are answered at once; others are told
	// that the service is busy. Defaults to [QueryConcurrencyDefault].
	Concurrency int
	// Name is the service's name for NATS micro. Defaults to <store>-query.
	Name string
	// Timeout bounds a request that names none. Defaults to
	// [QueryTimeoutDefault].
	Timeout time.Duration
	// Version is the service's version for NATS micro. Defaults to 1.0.0.
	Version string
}

// Validate reports every field that [NewQueryService] would refuse, joined.
func (c QueryConfig) Validate() error {
	var errs []error
	if c.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("QueryConfig.Concurrency %d is negative", c.Concurrency))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("QueryConfig.Timeout %v is negative", c.Timeout))
	}
	return errors.Join(errs...)
}

// AnyReader is a [Reader] of any value type.
type AnyReader interface {
	View() string
	Store() string
	queryGet(ctx context.Context, key string, after jetstream.Position) (body []byte, h micro.Headers, err error)
	queryList(ctx context.Context, o ListOptions, most int) (body []byte, err error)
	queryFind(ctx context.Context, index string, o FindOptions, most int) (body []byte, err error)
}

// QueryService answers queries over NATS, as many instances as you like:
//
//	nats req bank.query.accounts.get.a1 ''
//	nats req bank.query.accounts.list '{"prefix":"a","limit":10}'
//	nats req bank.query.accounts.find '{"index":"owner","value":"ann"}'
//
// The answer to get is the value, plain JSON, with the entry's place in its
// headers; those to list and find are {"entries":[…],"next":"<token>"}.
type QueryService struct {
	svc    micro.Service
	nc     *nats.Conn
	ctx    context.Context //nolint:containedctx // ends with the service
	cancel context.CancelFunc
	busy   chan struct{}
	wg     sync.WaitGroup
	cfg    QueryConfig
}

// NewQueryService starts a service for the views of the readers. The caller stops
// it. Returns a [*jetstream.PermissionError] when the server does not let it listen.
func NewQueryService(nc *nats.Conn, cfg QueryConfig, readers ...AnyReader) (*QueryService, error) {
	if len(readers) == 0 {
		return nil, errors.New("projection: a query service needs a reader")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Concurrency = cmp.Or(cfg.Concurrency, QueryConcurrencyDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, QueryTimeoutDefault)
	cfg.Name = cmp.Or(cfg.Name, readers[0].Store()+"-query")
	cfg.Version = cmp.Or(cfg.Version, "1.0.0")
	denied := wire.Listening(nc)
	svc, err := micro.AddService(nc, micro.Config{
		Name: cfg.Name, Version: cfg.Version, Description: "Rossby view queries",
	})
	if err != nil {
		return nil, fmt.Errorf("query service %q: %w", cfg.Name, err)
	}
	q := &QueryService{svc: svc, nc: nc, busy: make(chan struct{}, cfg.Concurrency), cfg: cfg}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	for _, r := range readers {
		group := svc.AddGroup(querySubject(r.Store(), r.View()))
		about := micro.WithEndpointMetadata(map[string]string{"store": r.Store(), "view": r.View()})
		prefix := querySubject(r.Store(), r.View()) + ".get."
		err := errors.Join(
			group.AddEndpoint(r.View()+"-get", micro.HandlerFunc(func(req micro.Request) {
				q.hand(req, func(ctx context.Context, m *query) { q.get(ctx, r, m, strings.TrimPrefix(m.subject, prefix)) })
			}), micro.WithEndpointSubject("get.>"), about),
			group.AddEndpoint(r.View()+"-list", micro.HandlerFunc(func(req micro.Request) {
				q.hand(req, func(ctx context.Context, m *query) { q.list(ctx, r, m) })
			}), micro.WithEndpointSubject("list"), about),
			group.AddEndpoint(r.View()+"-find", micro.HandlerFunc(func(req micro.Request) {
				q.hand(req, func(ctx context.Context, m *query) { q.find(ctx, r, m) })
			}), micro.WithEndpointSubject("find"), about),
		)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("query service %q, view %q: %w", cfg.Name, r.View(), err), q.Stop())
		}
	}
	if err := q.mayListen(denied, readers); err != nil {
		return nil, errors.Join(fmt.Errorf("query service %q: %w", cfg.Name, err), q.Stop())
	}
	return q, nil
}

// mayListen asks the server, unless it is away: the service begins without it.
func (q *QueryService) mayListen(denied func(func(string) bool) error, readers []AnyReader) error {
	ctx, cancel := context.WithTimeout(q.ctx, q.cfg.Timeout)
	defer cancel()
	if err := q.nc.FlushWithContext(ctx); err != nil {
		return nil
	}
	return denied(func(subject string) bool {
		return slices.ContainsFunc(readers, func(r AnyReader) bool {
			return strings.HasPrefix(subject, querySubject(r.Store(), r.View())+".")
		})
	})
}

func querySubject(store, view string) string { return store + ".query." + view }

// Stop ends the service: requests that came are answered first.
func (q *QueryService) Stop() error {
	err := q.svc.Stop()
	wire.Arrived(q.ctx, q.nc, q.cfg.Timeout)
	q.wg.Wait()
	q.cancel()
	return err
}

// query is a request without the micro service, which reads its own after the
// handler has returned.
type query struct {
	nc             *nats.Conn
	subject, reply string
	header         nats.Header
	data           []byte
}

func (m *query) respond(body []byte, header nats.Header) {
	err := m.nc.PublishMsg(&nats.Msg{Subject: m.reply, Header: header, Data: body})
	if errors.Is(err, nats.ErrMaxPayload) {
		m.fail(CodeTooLarge, fmt.Sprintf("the answer of %d bytes is larger than the server's payload", len(body)), nil)
	}
	// After any other error the caller asks again, when it hears nothing.
}

func (m *query) fail(code, description string, header nats.Header) {
	h := nats.Header{micro.ErrorCodeHeader: {code}, micro.ErrorHeader: {description}}
	maps.Copy(h, header)
	m.respond(nil, h)
}

// hand gives a request to a goroutine of its own, since micro calls an endpoint's
// handler for one request after the other.
func (q *QueryService) hand(req micro.Request, answer func(context.Context, *query)) {
	select {
	case q.busy <- struct{}{}:
	default:
		_ = req.Error(CodeUnavailable, "the service is busy", nil)
		return
	}
	m := &query{
		nc: q.nc, subject: req.Subject(), reply: req.Reply(), header: nats.Header(req.Headers()), data: req.Data(),
	}
	q.wg.Go(func() {
		defer func() { <-q.busy }()
		timeout := q.cfg.Timeout
		if d, err := time.ParseDuration(m.header.Get(HeaderTimeout)); err == nil && d > 0 {
			timeout = min(timeout, d)
		}
		ctx, cancel := context.WithTimeout(q.ctx, timeout)
		defer cancel()
		answer(ctx, m)
	})
}

func (q *QueryService) get(ctx context.Context, r AnyReader, m *query, stored string) {
	key, err := decodeKey(stored)
	if err != nil {
		respondError(m, err)
		return
	}
	after, err := jetstream.ParsePosition(m.header.Get(HeaderAfter))
	if err != nil {
		respondError(m, err)
		return
	}
	body, h, err := r.queryGet(ctx, key, after)
	if err != nil {
		respondError(m, err)
		return
	}
	m.respond(body, nats.Header(h))
}

// listRequest is the body of a list query; all of it may be left out.
type listRequest struct {
	Prefix string `json:"prefix,omitempty"`
	After  string `json:"after,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

// maxListRequest bounds the body of a list or find query.
const maxListRequest = 16 << 10

// parseList reads the body of a list query.
func parseList(data []byte) (listRequest, error) {
	var r listRequest
	err := parseBody("list request", data, &r)
	r.Limit = pageLimit(r.Limit)
	return r, err
}

// listReply is the answer to a list or find query. Next is the token of the next page,
// "" on the last one.
type listReply struct {
	Entries []listEntry `json:"entries"`
	Next    string      `json:"next,omitempty"`
}

type listEntry struct {
	Key        string             `json:"key"`
	Value      json.RawMessage    `json:"value"`
	Position   jetstream.Position `json:"position"`
	Sequence   uint64             `json:"sequence"`
	Revision   uint64             `json:"revision"`
	Generation int                `json:"generation"`
	Time       time.Time          `json:"time"`
	Token      string             `json:"token"`
	// Indexed is the index value that a search has found it by.
	Indexed string `json:"indexed,omitempty"`
}

func listEntryOf[V any](e *Entry[V]) (listEntry, error) {
	value, err := codec.MarshalJSON(e.Value)
	return listEntry{
		Key: e.Key, Value: value, Position: e.Position, Sequence: e.Sequence, Revision: e.Revision,
		Generation: e.Generation, Time: e.Time, Token: e.Token(), Indexed: e.Indexed,
	}, err
}

// size is about what it takes in an answer.
func (e *listEntry) size() int {
	return len(e.Value) + len(e.Key) + len(e.Indexed) + len(e.Token) + 200
}

func (q *QueryService) list(ctx context.Context, r AnyReader, m *query) {
	body, err := parseList(m.data)
	if err != nil {
		respondError(m, err)
		return
	}
	after, err := jetstream.ParsePosition(m.header.Get(HeaderAfter))
	if err != nil {
		respondError(m, err)
		return
	}
	o := ListOptions{Prefix: body.Prefix, After: body.After, Limit: body.Limit, AtLeast: after}
	reply, err := r.queryList(ctx, o, min(maxListReply, int(m.nc.MaxPayload()/2)))
	if err != nil {
		respondError(m, err)
		return
	}
	m.respond(reply, nil)
}

func respondError(m *query, err error) {
	code := CodeInternal
	var header nats.Header
	var invalid *jetstream.InvalidError
	var key *KeyError
	var foreign *jetstream.ForeignPositionError
	var stale *StaleError
	switch {
	case errors.As(err, &stale):
		code = CodeStale
		header = nats.Header{
			HeaderPosition: {stale.Position.String()}, HeaderBehind: {strconv.FormatUint(stale.Behind, 10)},
			HeaderLag: {stale.Lag.String()}, HeaderState: {string(stale.State)}, HeaderCause: {oneLine(stale.Cause)},
		}
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrIndex):
		code = CodeNotFound
	case errors.Is(err, ErrTooManyMatches):
		code = CodeTooMany
	case errors.As(err, &foreign):
		code = CodeForeign
	case errors.Is(err, ErrTokenExpired):
		code = CodeExpired
	case errors.As(err, &invalid), errors.As(err, &key):
		code = CodeInvalid
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrViewNotFound), errors.Is(err, context.DeadlineExceeded):
		code = CodeUnavailable
	}
	m.fail(code, oneLine(err.Error()), header)
}

// oneLine is a text as a header can hold it.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func (r *Reader[V]) queryGet(ctx context.Context, key string, after jetstream.Position) ([]byte, micro.Headers, error) {
	e, err := r.Get(ctx, key, AtLeast(after))
	if err != nil {
		return nil, nil, err
	}
	body, err := codec.MarshalJSON(e.Value)
	return body, micro.Headers{
		HeaderPosition:   {e.Position.String()},
		HeaderRevision:   {strconv.FormatUint(e.Revision, 10)},
		HeaderGeneration: {strconv.Itoa(e.Generation)},
		HeaderSequence:   {strconv.FormatUint(e.Sequence, 10)},
		HeaderTime:       {e.Time.Format(time.RFC3339Nano)},
	}, err
}

// maxListReply bounds an answer to a list; half of the server's payload does, too.
const maxListReply = 512 << 10

func (r *Reader[V]) queryList(ctx context.Context, o ListOptions, most int) ([]byte, error) {
	big := false
	entries, next, err := r.page(ctx, o, &big)
	if err != nil {
		return nil, err
	}
	reply := listReply{Entries: make([]listEntry, 0, len(entries)), Next: next}
	size := 0
	for i := range entries {
		e := &entries[i]
		told, err := listEntryOf(e)
		if err != nil {
			return nil, err
		}
		if size += told.size(); size > most && i > 0 {
			reply.Next = entries[i-1].Token()
			break
		}
		reply.Entries = append(reply.Entries, told)
	}
	return codec.MarshalJSON(reply)
}
