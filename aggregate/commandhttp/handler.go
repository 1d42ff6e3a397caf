package commandhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	MaxBodyDefault     = 256 << 10
	TimeoutDefault     = 10 * time.Second
	ProblemBaseDefault = "https://github.com/rossby-go/rossby/blob/main/docs/http.md#"
)

// Config tells what a [Handler] serves.
type Config struct {
	// Location is where an aggregate can be looked at, such as a view's address. The
	// default is a reference to /{type}/{id}, beside the commands.
	Location func(aggregateType, id string) string
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxBody bounds a request's body, in bytes. Defaults to [MaxBodyDefault].
	MaxBody int64
	// Options gives what a request adds to its call, such as who sent it, as
	// [aggregate.Metadata]. An error ends the request with the problem it stands
	// for. Defaults to nothing.
	Options func(r *http.Request) ([]aggregate.CallOption, error)
	// ProblemBase begins the type of every problem. Defaults to
	// [ProblemBaseDefault].
	ProblemBase string
	// Targets are where commands go, one for each aggregate type. There must be
	// one.
	Targets []aggregate.Target
	// Timeout bounds a command. It goes on when its caller leaves. Defaults to
	// [TimeoutDefault].
	Timeout time.Duration
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	invalid := func(field string, value any, reason string) {
		errs = append(errs, &jetstream.InvalidError{Field: field, Value: fmt.Sprint(value), Reason: reason})
	}
	if c.MaxBody < 0 {
		invalid("MaxBody", c.MaxBody, "is negative")
	}
	if c.Timeout < 0 {
		invalid("Timeout", c.Timeout, "is negative")
	}
	if c.ProblemBase != "" {
		if _, err := url.Parse(c.ProblemBase); err != nil {
			invalid("ProblemBase", c.ProblemBase, "is no URI: "+err.Error())
		}
	}
	if len(c.Targets) == 0 {
		invalid("Targets", len(c.Targets), "is empty")
	}
	seen := map[string]bool{}
	for i, t := range c.Targets {
		switch {
		case t == nil:
			invalid(fmt.Sprintf("Targets[%d]", i), nil, "is nil")
		case seen[t.TypeName()]:
			invalid(fmt.Sprintf("Targets[%d]", i), t.TypeName(), "is there twice")
		default:
			seen[t.TypeName()] = true
		}
	}
	return errors.Join(errs...)
}

// Handler serves commands over HTTP. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	mux     *http.ServeMux
	targets map[string]*target
	openAPI []byte
}

type target struct {
	aggregate.Target

	commands map[string]aggregate.CommandInfo
}

// New makes a handler. Returns the configuration's mistakes.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.MaxBody = cmp.Or(cfg.MaxBody, MaxBodyDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, TimeoutDefault)
	cfg.ProblemBase = cmp.Or(cfg.ProblemBase, ProblemBaseDefault)
	if cfg.Location == nil {
		cfg.Location = func(_, id string) string { return "./" + url.PathEscape(id) }
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), targets: map[string]*target{}}
	for _, t := range cfg.Targets {
		commands := map[string]aggregate.CommandInfo{}
		for _, c := range t.Commands() {
			commands[c.Name] = c
		}
		h.targets[t.TypeName()] = &target{Target: t, commands: commands}
	}
	var err error
	if h.openAPI, err = describe(cfg.Targets); err != nil {
		return nil, err
	}
	h.mux.HandleFunc("POST /{type}/{command}", h.serve)
	h.mux.HandleFunc("POST /{type}/{id}/{command}", h.serve)
	h.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(h.openAPI)
	})
	return h, nil
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.unrouted(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// unrouted answers what no route takes, with a problem.
func (h *Handler) unrouted(w http.ResponseWriter, r *http.Request) {
	try := &http.Request{Method: http.MethodPost, URL: r.URL, Host: r.Host}
	switch _, pattern := h.mux.Handler(try); {
	case r.URL.Path == "/openapi.json":
		w.Header().Set("Allow", "GET, HEAD")
		h.Problem(w, r, problem.Of(http.StatusMethodNotAllowed, "method-not-allowed", "it can only be read"))
	case pattern != "":
		w.Header().Set("Allow", http.MethodPost)
		h.Problem(w, r, problem.Of(http.StatusMethodNotAllowed, "method-not-allowed", "commands are sent with POST"))
	default:
		h.Problem(w, r, problem.Of(http.StatusNotFound, "no-such-command", "commands are at /{type}/{id}/{command}"))
	}
}

// serve executes the command of a request.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	if err := h.execute(w, r); err != nil {
		h.Problem(w, r, err)
	}
}

func (h *Handler) execute(w http.ResponseWriter, r *http.Request) error {
	typ, id, name := r.PathValue("type"), r.PathValue("id"), r.PathValue("command")
	t := h.targets[typ]
	if t == nil {
		return problem.Of(http.StatusNotFound, "no-such-command", fmt.Sprintf("there is no type %q here", typ))
	}
	info, ok := t.commands[name]
	if !ok {
		return problem.Of(http.StatusNotFound, "no-such-command", fmt.Sprintf("%q has no command %q", typ, name))
	}
	if id == "" && !info.Creates {
		return problem.Of(http.StatusNotFound, "no-such-command",
			fmt.Sprintf("%q is for an aggregate: /%s/{id}/%s", name, typ, name))
	}
	in, err := h.read(w, r)
	if err != nil {
		return err
	}
	// A caller that leaves does not make the outcome unknown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), in.wait)
	defer cancel()
	command := aggregate.Encoded{Name: name, ContentType: in.contentType, Body: in.body}
	var res aggregate.Result
	if info.Creates {
		res, err = t.Create(ctx, id, command, in.options...)
	} else {
		res, err = t.Execute(ctx, id, command, in.options...)
	}
	if err != nil {
		return in.failed(w, err)
	}
	return h.succeed(w, in, typ, info, res)
}

// succeed answers with what came of the command.
func (h *Handler) succeed(
	w http.ResponseWriter, in *request, typ string, info aggregate.CommandInfo, res aggregate.Result,
) error {
	header := w.Header()
	header.Set(headerETag, etag(res.Version))
	if !res.Position.IsZero() {
		header.Set(headerPosition, res.Position.String())
	}
	if res.Duplicate && in.keyGiven {
		header.Set(headerReplayed, "true")
	}
	status := http.StatusOK
	if info.Creates {
		status = http.StatusCreated
		header.Set("Location", h.cfg.Location(typ, res.ID))
	}
	if in.minimal {
		header.Set("Preference-Applied", "return=minimal")
		if status == http.StatusOK {
			status = http.StatusNoContent
		}
		w.WriteHeader(status)
		return nil
	}
	return write(w, status, "application/json", replyOf(res))
}
