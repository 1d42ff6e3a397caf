package queryhttp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Defaults of [Config].
const (
	HeartbeatDefault    = 15 * time.Second
	LimitDefault        = 100
	LimitMax            = 1000
	MaxWatchesDefault   = 1000
	ProblemBaseDefault  = "https://github.com/rossby-go/rossby/blob/main/docs/queries.md#"
	TimeoutDefault      = 5 * time.Second
	WriteTimeoutDefault = 10 * time.Second
)

// Source is what a handler reads: a [projection.Reader], or what stands before one,
// such as a [projection.LocalView] for its Get.
type Source[V any] interface {
	Get(ctx context.Context, key string, opts ...projection.ReadOption) (projection.Entry[V], error)
	GetMany(ctx context.Context, keys []string, opts ...projection.ReadOption) ([]projection.Entry[V], error)
	List(ctx context.Context, o projection.ListOptions) iter.Seq2[projection.Entry[V], error]
	Find(ctx context.Context, index string, o projection.FindOptions) iter.Seq2[projection.Entry[V], error]
	Position(ctx context.Context, opts ...projection.ReadOption) (jetstream.Position, error)
	Watch(ctx context.Context, o projection.WatchOptions) iter.Seq2[projection.Change[V], error]
}

// Config tells how a [Handler] serves. The zero value is right for most.
type Config struct {
	// Heartbeat is how often an event stream without events says that it is there.
	// Defaults to [HeartbeatDefault].
	Heartbeat time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxWatches bounds the event streams that are served at once. Defaults to
	// [MaxWatchesDefault].
	MaxWatches int
	// ProblemBase begins the type of every problem. Defaults to
	// [ProblemBaseDefault].
	ProblemBase string
	// Timeout bounds a request, with what it waits for a position. Defaults to
	// [TimeoutDefault]. Event streams are not bounded.
	Timeout time.Duration
	// WriteTimeout is how long the client of an event stream may take to take an
	// event; one that takes longer is disconnected. Defaults to
	// [WriteTimeoutDefault].
	WriteTimeout time.Duration
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	invalid := func(field string, value any, reason string) {
		errs = append(errs, &jetstream.InvalidError{Field: field, Value: fmt.Sprint(value), Reason: reason})
	}
	for field, d := range map[string]time.Duration{
		"Heartbeat": c.Heartbeat, "Timeout": c.Timeout, "WriteTimeout": c.WriteTimeout,
	} {
		if d < 0 {
			invalid(field, d, "is negative")
		}
	}
	if c.MaxWatches < 0 {
		invalid("MaxWatches", c.MaxWatches, "is negative")
	}
	if c.ProblemBase != "" {
		if _, err := url.Parse(c.ProblemBase); err != nil {
			invalid("ProblemBase", c.ProblemBase, "is no URI: "+err.Error())
		}
	}
	return errors.Join(errs...)
}

// Handler serves a view over HTTP. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	view    view
	openAPI []byte
	// watches has a place for each event stream; closed ends them.
	watches chan struct{}
	ctx     context.Context //nolint:containedctx // ends with the handler
	close   context.CancelFunc
	open    sync.WaitGroup
	mu      sync.Mutex
}

// New makes a handler. Returns the configuration's mistakes.
func New[V any](source Source[V], cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if source == nil {
		return nil, &jetstream.InvalidError{Field: "source", Value: "nil", Reason: "is missing"}
	}
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, HeartbeatDefault)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.MaxWatches = cmp.Or(cfg.MaxWatches, MaxWatchesDefault)
	cfg.ProblemBase = cmp.Or(cfg.ProblemBase, ProblemBaseDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, TimeoutDefault)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, WriteTimeoutDefault)
	h := &Handler{cfg: cfg, view: typed[V]{source}, watches: make(chan struct{}, cfg.MaxWatches)}
	var err error
	if h.openAPI, err = document[V](); err != nil {
		return nil, err
	}
	h.ctx, h.close = context.WithCancel(context.Background())
	return h, nil
}

// Close ends the event streams, whose clients come back to another instance, and
// waits for them; later ones are refused. A server's Shutdown would wait for them:
// give it to http.Server.RegisterOnShutdown.
func (h *Handler) Close() {
	h.mu.Lock()
	h.close()
	h.mu.Unlock()
	h.open.Wait()
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		h.Problem(w, r, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return problem.Of(http.StatusMethodNotAllowed, "method-not-allowed", "a view can only be read")
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Control", "no-cache")
	q, err := h.read(r)
	if err != nil {
		return err
	}
	if q.events {
		return h.stream(w, r, q)
	}
	ctx, cancel := context.WithTimeout(r.Context(), q.wait)
	defer cancel()
	switch {
	case q.key != "":
		return h.one(ctx, w, r, q)
	case len(q.keys) > 0:
		return h.many(ctx, w, r, q)
	}
	return h.list(ctx, w, r, q)
}

// one answers with a value.
func (h *Handler) one(ctx context.Context, w http.ResponseWriter, r *http.Request, q *query) error {
	e, err := h.view.get(ctx, q.key, projection.AtLeast(q.after))
	if !e.Position.IsZero() {
		w.Header().Set(headerPosition, e.Position.String())
	}
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.ETag)
	if matches(r.Header.Values("If-None-Match"), e.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Last-Modified", e.Time.Format(http.TimeFormat))
	answer(w, e.Value)
	return nil
}

// many answers with the entries of some keys, as they stood together.
func (h *Handler) many(ctx context.Context, w http.ResponseWriter, r *http.Request, q *query) error {
	entries, err := h.view.getMany(ctx, q.keys, projection.AtLeast(q.after))
	if err != nil {
		return err
	}
	return h.entries(w, r, entries, "")
}

// list answers with a page, of all or of what an index leads to.
func (h *Handler) list(ctx context.Context, w http.ResponseWriter, r *http.Request, q *query) error {
	var entries []entry
	var next string
	var err error
	if q.index != "" {
		q.find.Prefix, q.find.After, q.find.Limit, q.find.AtLeast = q.prefix, q.page, q.limit, q.after
		entries, next, err = h.view.find(ctx, q.index, q.find)
	} else {
		entries, next, err = h.view.list(ctx, projection.ListOptions{
			Prefix: q.prefix, After: q.page, Limit: q.limit, AtLeast: q.after,
		})
	}
	if err != nil {
		return err
	}
	if next != "" {
		values := r.URL.Query()
		values.Set("page", next)
		// The address without its path is that of the page, wherever the handler stands.
		w.Header().Set("Link", "<?"+values.Encode()+`>; rel="next"`)
	}
	return h.entries(w, r, entries, next)
}

func (h *Handler) entries(w http.ResponseWriter, r *http.Request, entries []entry, next string) error {
	if len(entries) > 0 && !entries[0].Position.IsZero() {
		// Pages are read in order, so the first entry's is the lowest.
		w.Header().Set(headerPosition, entries[0].Position.String())
	}
	etag := pageETag(entries, next)
	w.Header().Set("ETag", etag)
	if matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	body, err := encode(page{Entries: entries, Next: next})
	if err != nil {
		return err
	}
	answer(w, body)
	return nil
}

// pageETag changes with the entries of a page. It is weak, since it leaves out how
// far the view was: that moves with every event, and the entries do not.
func pageETag(entries []entry, next string) string {
	sum := sha256.New()
	for i := range entries {
		e := &entries[i]
		_, _ = fmt.Fprintf(sum, "%q %s %q\n", e.Key, e.ETag, e.Indexed)
	}
	_, _ = fmt.Fprintf(sum, "%q", next)
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:15]) + `"`
}

// answer sends JSON.
func answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

// matches tells whether an entity tag is among those of an If-None-Match.
func matches(values []string, etag string) bool {
	for _, value := range values {
		for tag := range strings.SplitSeq(value, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}
