package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

const codeNotFound = "not-found"

// problem is an answer that something is wrong, as RFC 9457 has it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Code     string `json:"code"`
	Field    string `json:"field,omitempty"`
	Instance string `json:"instance"`
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

func malformed(field, format string, args ...any) *problem {
	return &problem{Status: http.StatusBadRequest, Code: "invalid", Field: field, Detail: fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) *problem {
	return &problem{Status: http.StatusNotFound, Code: codeNotFound, Detail: fmt.Sprintf(format, args...)}
}

// fail answers with the problem that the error is.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := describe(err)
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		c.log.WarnContext(r.Context(), "console: request failed", "method", r.Method, "path", r.URL.EscapedPath(),
			"status", p.Status, "error", err)
	}
	p.Type = "urn:rossby:console:" + p.Code
	p.Title = http.StatusText(p.Status)
	p.Instance = r.URL.EscapedPath()
	send(w, p.Status, "application/problem+json", p)
}

// describe says what an error is to a page. What is no business of pages stays in
// the log.
func describe(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		told := *p
		return &told
	}
	if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		return malformed(invalid.Field, "%s %q %s", invalid.Field, clip(invalid.Value), invalid.Reason)
	}
	for _, e := range []struct {
		is     error
		status int
		code   string
	}{
		{jetstream.ErrNotFound, http.StatusNotFound, codeNotFound},
		{aggregate.ErrNotFound, http.StatusNotFound, codeNotFound},
		{projection.ErrNotFound, http.StatusNotFound, codeNotFound},
		{projection.ErrViewNotFound, http.StatusNotFound, codeNotFound},
		{followers.ErrNeverRan, http.StatusNotFound, codeNotFound},
		{projection.ErrTokenExpired, http.StatusGone, "expired"},
		{projection.ErrBuilding, http.StatusConflict, "conflict"},
		{projection.ErrGeneration, http.StatusConflict, "conflict"},
		{followers.ErrNotWaiting, http.StatusConflict, "conflict"},
		{followers.ErrRefused, http.StatusConflict, "conflict"},
		{followers.ErrNotRunning, http.StatusServiceUnavailable, "not-running"},
		{jetstream.ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
		{projection.ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
		{nats.ErrNoResponders, http.StatusServiceUnavailable, "unavailable"},
		{nats.ErrConnectionClosed, http.StatusServiceUnavailable, "unavailable"},
		{projection.ErrStale, http.StatusGatewayTimeout, "stale"},
		{jetstream.ErrIncomplete, http.StatusGatewayTimeout, "stale"},
		{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout"},
		{nats.ErrTimeout, http.StatusGatewayTimeout, "timeout"},
	} {
		if errors.Is(err, e.is) {
			return &problem{Status: e.status, Code: e.code, Detail: err.Error()}
		}
	}
	if version, ok := errors.AsType[*aggregate.VersionError](err); ok {
		return missing("%v", version)
	}
	if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		return &problem{Status: http.StatusConflict, Code: "conflict", Detail: rejected.Code + ": " + rejected.Reason}
	}
	if key, ok := errors.AsType[*projection.KeyError](err); ok {
		return malformed("key", "%v", key)
	}
	return &problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "the application's log says more"}
}

func send(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"status":500,"code":"internal"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
