package commandhttp

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// problem is what went wrong, as RFC 9457 has it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Code is why the aggregate rejected the command.
	Code string `json:"code,omitempty"`
	// Field and Value are what is invalid.
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"`
	// Expected and Actual are versions.
	Expected *uint64 `json:"expected,omitempty"`
	Actual   *uint64 `json:"actual,omitempty"`

	kind string
	// retry is when to try again; 0 is never.
	retry time.Duration
}

func (p *problem) Error() string { return p.kind + ": " + p.Detail }

func problemOf(status int, kind, detail string) *problem {
	return &problem{Status: status, kind: kind, Detail: detail}
}

// again is what callers wait for where nothing better is known.
const again = time.Second

// Problem answers with the problem that an error is: one of the aggregate package,
// or any other, which is an internal error whose text stays in the log. Handlers
// beside this one may use it for theirs.
func (h *Handler) Problem(w http.ResponseWriter, r *http.Request, err error) {
	p := describeError(err)
	if p.Status >= http.StatusInternalServerError {
		h.cfg.Logger.WarnContext(r.Context(), "request failed",
			"method", r.Method, "path", r.URL.EscapedPath(), "status", p.Status, "error", err)
	}
	p.Type = h.cfg.ProblemBase + p.kind
	p.Title = http.StatusText(p.Status)
	p.Instance, _, _ = strings.Cut(r.RequestURI, "?")
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retry.Seconds()))))
	}
	_ = write(w, p.Status, "application/problem+json", p)
}

// describeError is the problem that an error is.
func describeError(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		c := *p
		return &c
	}
	if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		return &problem{
			Status: http.StatusUnprocessableEntity, kind: "rejected", Code: rejected.Code, Detail: rejected.Reason,
		}
	}
	if version, ok := errors.AsType[*aggregate.VersionError](err); ok {
		p := problemOf(http.StatusPreconditionFailed, "version", version.Error())
		p.Expected, p.Actual = &version.Expected, &version.Actual
		return p
	}
	if p := describeFault(err); p != nil {
		return p
	}
	if busy, ok := errors.AsType[*aggregate.BusyError](err); ok {
		p := problemOf(http.StatusTooManyRequests, "busy", "nothing was done: "+busy.Error())
		p.retry = max(busy.RetryAfter, time.Millisecond)
		return p
	}
	if foreign, ok := errors.AsType[*jetstream.ForeignPositionError](err); ok {
		return problemOf(http.StatusBadRequest, "invalid", foreign.Error())
	}
	if bad, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		p := problemOf(http.StatusBadRequest, "invalid", bad.Error())
		p.Field, p.Value = bad.Field, bad.Value
		if len(p.Value) > maxValue {
			p.Value = strings.ToValidUTF8(p.Value[:maxValue], "") + "…"
		}
		return p
	}
	return problemOf(http.StatusInternalServerError, "internal", "the server's log says more")
}

// maxValue bounds what is told of a bad value.
const maxValue = 256

// describeFault knows the errors that are values.
func describeFault(err error) *problem {
	retry := func(status int, kind, detail string) *problem {
		p := problemOf(status, kind, detail)
		p.retry = again
		return p
	}
	refused, isRefused := errors.AsType[*jetstream.RefusedError](err)
	switch {
	case errors.Is(err, aggregate.ErrNotFound):
		return problemOf(http.StatusNotFound, "not-found", err.Error())
	case errors.Is(err, aggregate.ErrExists):
		return problemOf(http.StatusConflict, "exists", err.Error())
	case errors.Is(err, aggregate.ErrOtherPayload):
		return problemOf(http.StatusUnprocessableEntity, "key-reused",
			"the "+headerKey+" was used before for another command")
	case errors.Is(err, aggregate.ErrContended):
		return retry(http.StatusTooManyRequests, "contended", "nothing was done: others came first at every attempt")
	case errors.Is(err, nats.ErrMaxPayload):
		return problemOf(http.StatusRequestEntityTooLarge, "too-large", "the command is too large to be sent or stored")
	case isRefused:
		return problemOf(http.StatusInsufficientStorage, "refused", refused.Error())
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return retry(http.StatusGatewayTimeout, "unknown",
			"it may have happened, or may yet: send it again with the same "+headerKey)
	case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, jetstream.ErrIncomplete),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return retry(http.StatusServiceUnavailable, "unavailable", "nothing was done: NATS or a service does not answer")
	}
	return nil
}

// reply is what came of a command, as command services answer.
type reply struct {
	ID        string             `json:"id"`
	Version   uint64             `json:"version"`
	Position  jetstream.Position `json:"position"`
	Duplicate bool               `json:"duplicate,omitempty"`
	Events    []event            `json:"events"`
}

type event struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Version uint64          `json:"version"`
	Data    json.RawMessage `json:"data,omitempty"`
}

func replyOf(res aggregate.Result) *reply {
	out := &reply{
		ID: res.ID, Version: res.Version, Position: res.Position, Duplicate: res.Duplicate,
		Events: make([]event, 0, len(res.Events)),
	}
	for _, e := range res.Events {
		told := event{ID: e.EventID, Name: e.Name, Version: e.Version}
		if e.Event != nil {
			told.Data, _ = jetstream.JSON.Encode(e.Event) // it was decoded from the same
		}
		out.Events = append(out.Events, told)
	}
	return out
}

// write sends a value as JSON.
func write(w http.ResponseWriter, status int, contentType string, v any) error {
	body, err := codec.MarshalJSON(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, and said to be
	return nil
}
