package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// What one request may cost.
const (
	bodyMax        = 256 << 10
	bodyTimeout    = 10 * time.Second
	requestTimeout = 15 * time.Second
	pageDefault    = 50
	pageMax        = 200
)

// Console shows a store. It is safe for concurrent use, holds no resources while
// nobody looks, and ends with the requests it serves.
type Console struct {
	cfg       Config
	log       *slog.Logger
	js        natsjs.JetStream
	followers *followers.Admin
	states    map[string]State
	sagas     map[string]Saga
	handler   http.Handler
	hub       *hub
	services  services
	buckets   cached[[]string]
	typeNames cached[[]string]
	durable   cached[jetstream.Durability]
}

// New makes a console. Nothing is asked of the servers before somebody looks.
// Returns the configuration's mistakes.
func New(cfg Config) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Listeners = cmp.Or(cfg.Listeners, ListenersDefault)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Title = cmp.Or(cfg.Title, cfg.Store.Name())
	js, err := natsjs.New(cfg.Store.Conn())
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &Console{
		cfg: cfg, log: cfg.Logger, js: js, followers: followers.New(cfg.Store), states: map[string]State{},
		sagas: map[string]Saga{},
	}
	for _, s := range cfg.States {
		c.states[s.name] = s
	}
	for _, s := range cfg.Sagas {
		c.sagas[s.name] = s
	}
	c.hub = newHub(cfg.Listeners, c.feed)
	files, err := pages()
	if err != nil {
		return nil, err
	}
	c.handler = c.routes(files)
	return c, nil
}

// ServeHTTP answers a request. Its path begins where the console is mounted.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// handler answers a request with what is to be sent as JSON, or with an error.
type handler func(r *http.Request) (any, error)

func (c *Console) routes(files http.Handler) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"/api/info":                   c.getInfo,
		"/api/status":                 c.getStatus,
		"/api/commands":               c.getCommands,
		"/api/events":                 c.getEvents,
		"/api/events/{sequence}":      c.getEvent,
		"/api/events/{sequence}/tree": c.getTree,
		"/api/aggregates":             c.getAggregates,
		"/api/aggregates/{type}/{id}": c.getAggregate,
		"/api/aggregates/{type}/{id}/versions/{version}": c.getVersion,
		"/api/followers/{name}":                          c.getFollower,
		"/api/views/{view}":                              c.getView,
		"/api/views/{view}/entries":                      c.getEntries,
		"/api/views/{view}/entry":                        c.getEntry,
		"/api/deadlines":                                 c.getDeadlines,
		"/api/sagas":                                     c.getSagas,
	} {
		mux.Handle("GET "+pattern, c.reading(c.answering(h)))
	}
	for pattern, h := range map[string]handler{
		"/api/commands":              c.postCommand,
		"/api/followers/{name}/{do}": c.postFollower,
		"/api/views/{view}/{do}":     c.postView,
		"/api/sagas/{saga}/{do}":     c.postSaga,
		"/api/switches/{name}":       c.postSwitch,
	} {
		mux.Handle("POST "+pattern, c.acting(h))
	}
	mux.Handle("GET /api/stream", c.reading(http.HandlerFunc(c.stream)))
	mux.Handle("GET /", c.reading(files))
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, &problem{
			Status: http.StatusForbidden, Code: "cross-origin", Detail: "another site's page may not act here",
		})
	}))
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if _, pattern := mux.Handler(r); pattern == "" {
			c.fail(w, r, &problem{Status: http.StatusNotFound, Code: "no-such-route", Detail: "nothing answers to that here"})
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// reading lets through what may be read.
func (c *Console) reading(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.allow(r, ActionRead, r.URL.Path); err != nil {
			c.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// acting lets nothing through while the console only reads. What is asked for is
// allowed by the handler, which knows it.
func (c *Console) acting(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.cfg.Actions {
			c.fail(w, r, &problem{
				Status: http.StatusForbidden, Code: "read-only",
				Detail: "this console only reads: the application sets console.Config.Actions to allow more",
			})
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has one
		r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
		c.answering(h).ServeHTTP(w, r)
	})
}

// allow asks the application.
func (c *Console) allow(r *http.Request, name, target string) error {
	if c.cfg.Authorize == nil {
		return nil
	}
	if err := c.cfg.Authorize(r, Action{Name: name, Target: target}); err != nil {
		return &problem{Status: http.StatusForbidden, Code: "forbidden", Detail: err.Error()}
	}
	return nil
}

func (c *Console) by(r *http.Request) string {
	if c.cfg.By == nil {
		return "console"
	}
	return c.cfg.By(r)
}

func (c *Console) answering(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		v, err := h(r.WithContext(ctx))
		if err != nil {
			c.fail(w, r, err)
			return
		}
		send(w, http.StatusOK, "application/json", v)
	})
}

// readBody reads the JSON object of a request that acts. It must say that it is JSON,
// which another site's form cannot.
func readBody(r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &problem{
			Status: http.StatusUnsupportedMediaType, Code: "unsupported-media-type",
			Detail: "send Content-Type: application/json",
		}
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &problem{
			Status: http.StatusRequestEntityTooLarge, Code: "too-large",
			Detail: fmt.Sprintf("the body is longer than %d bytes", long.Limit),
		}
	}
	if err == nil && dec.More() {
		err = errors.New("there is more after the object")
	}
	if err != nil {
		return malformed("body", "%v", err)
	}
	return nil
}

// limit reads how many are wanted.
func limit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return pageDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > pageMax {
		return 0, malformed("limit", "%q is not a number from 1 to %d", clip(text), pageMax)
	}
	return n, nil
}

// number reads a number of the query or the path, 0 for none.
func number(field, text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, malformed(field, "%q is not a number", clip(text))
	}
	return n, nil
}

// clip makes a client's text short enough to be repeated.
func clip(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
