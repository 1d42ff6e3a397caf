package queryhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// again is what callers wait for where nothing better is known.
const again = time.Second

// Problem answers with the problem that an error is: one of the projection package,
// or any other, which is an internal error whose text stays in the log. Handlers
// beside this one may use it for theirs.
func (h *Handler) Problem(w http.ResponseWriter, r *http.Request, err error) {
	p := describe(err)
	left := errors.Is(context.Cause(r.Context()), context.Canceled)
	if p.Status >= http.StatusInternalServerError && !left {
		h.cfg.Logger.WarnContext(r.Context(), "request failed",
			"method", r.Method, "path", r.URL.EscapedPath(), "status", p.Status, "error", err)
	}
	for _, name := range []string{"ETag", "Last-Modified", "Link"} {
		w.Header().Del(name)
	}
	p.Write(w, r, h.cfg.ProblemBase)
}

// describe is the problem that an error is.
func describe(err error) *problem.Error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if stale, ok := errors.AsType[*projection.StaleError](err); ok {
		return staleProblem(stale)
	}
	if foreign, ok := errors.AsType[*jetstream.ForeignPositionError](err); ok {
		return problem.Of(http.StatusConflict, "foreign-position", foreign.Error())
	}
	if bad, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		return problem.Of(http.StatusBadRequest, "invalid", bad.Error()).
			With("field", bad.Field).With("value", problem.Value(bad.Value))
	}
	if bad, ok := errors.AsType[*projection.KeyError](err); ok {
		return problem.Of(http.StatusBadRequest, "invalid", bad.Error()).
			With("field", "key").With("value", problem.Value(bad.Key))
	}
	switch {
	case errors.Is(err, projection.ErrNotFound):
		return problem.Of(http.StatusNotFound, "not-found", "the view does not hold the key")
	case errors.Is(err, projection.ErrIndex):
		return problem.Of(http.StatusNotFound, "no-such-index", "the view has no such index")
	case errors.Is(err, projection.ErrTooManyMatches):
		return problem.Of(http.StatusUnprocessableEntity, "too-many-matches", "the search finds too much: narrow it down")
	case errors.Is(err, projection.ErrTokenExpired):
		return problem.Of(http.StatusGone, "expired", "the view was rebuilt since: begin the list again")
	case errors.Is(err, projection.ErrUnavailable), errors.Is(err, projection.ErrViewNotFound),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.Of(http.StatusServiceUnavailable, "unavailable", "NATS does not answer, or the view is not there").
			Again(again)
	}
	return problem.Of(http.StatusInternalServerError, "internal", "the server's log says more")
}

// staleProblem says how far behind the view is.
func staleProblem(stale *projection.StaleError) *problem.Error {
	members := map[string]any{"wanted": stale.Wanted.String()}
	if !stale.Position.IsZero() {
		members["position"], members["behind"] = stale.Position.String(), stale.Behind
	}
	if stale.Lag > 0 {
		members["lagSeconds"] = stale.Lag.Seconds()
	}
	if stale.State != "" {
		members["state"] = string(stale.State)
	}
	detail := "the view has not reached the position yet"
	if stale.State == projection.StateStopped {
		detail = "the view has stopped, and somebody must look at it"
	}
	return &problem.Error{
		Status: http.StatusGatewayTimeout, Kind: "stale", Detail: detail, Members: members, Retry: again,
	}
}
