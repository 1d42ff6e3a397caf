package commandhttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/jetstream"
)

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
	p.Write(w, r, h.cfg.ProblemBase)
}

// describeError is the problem that an error is.
func describeError(err error) *problem.Error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if errors.Is(err, jetstream.ErrUnknownOutcome) { // first: whatever else it wraps is no outcome
		return problem.Of(http.StatusGatewayTimeout, "unknown",
			"it may have happened, or may yet: send it again with the same "+headerKey).Again(again)
	}
	if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		p := problem.Of(http.StatusUnprocessableEntity, "rejected", rejected.Reason)
		if rejected.Code != "" {
			p = p.With("code", rejected.Code)
		}
		return p
	}
	if version, ok := errors.AsType[*aggregate.VersionError](err); ok {
		return problem.Of(http.StatusPreconditionFailed, "version", version.Error()).
			With("expected", version.Expected).With("actual", version.Actual)
	}
	if p := describeFault(err); p != nil {
		return p
	}
	if busy, ok := errors.AsType[*aggregate.BusyError](err); ok {
		return problem.Of(http.StatusTooManyRequests, "busy", "nothing was done: "+busy.Error()).
			Again(max(busy.RetryAfter, time.Millisecond))
	}
	if foreign, ok := errors.AsType[*jetstream.ForeignPositionError](err); ok {
		return problem.Of(http.StatusBadRequest, "invalid", foreign.Error())
	}
	if bad, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		p := problem.Of(http.StatusBadRequest, "invalid", bad.Error()).With("field", bad.Field)
		if bad.Value != "" {
			p = p.With("value", problem.Value(bad.Value))
		}
		return p
	}
	return problem.Of(http.StatusInternalServerError, "internal", "the server's log says more")
}

// describeFault knows the errors that are values.
func describeFault(err error) *problem.Error {
	retry := func(status int, kind, detail string) *problem.Error {
		return problem.Of(status, kind, detail).Again(again)
	}
	refused, isRefused := errors.AsType[*jetstream.RefusedError](err)
	switch {
	case errors.Is(err, aggregate.ErrNotFound):
		return problem.Of(http.StatusNotFound, "not-found", err.Error())
	case errors.Is(err, aggregate.ErrExists):
		return problem.Of(http.StatusConflict, "exists", err.Error())
	case errors.Is(err, aggregate.ErrOtherPayload):
		return problem.Of(http.StatusUnprocessableEntity, "key-reused",
			"the "+headerKey+" was used before for another command")
	case errors.Is(err, aggregate.ErrContended):
		return retry(http.StatusTooManyRequests, "contended", "nothing was done: others came first at every attempt")
	case errors.Is(err, nats.ErrMaxPayload):
		return problem.Of(http.StatusRequestEntityTooLarge, "too-large", "the command is too large to be sent or stored")
	case isRefused:
		return problem.Of(http.StatusInsufficientStorage, "refused", refused.Error())
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
