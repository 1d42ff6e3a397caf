package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The names of headers.
const (
	headerPosition = "Rossby-Position"
	headerReplayed = "Idempotent-Replayed"
	headerKey      = "Idempotency-Key"
)

// codeNotReady is the code of what will be there soon.
const codeNotReady = "not-ready"

// retryAfter is what a client is told to wait, in seconds.
const retryAfter = 1

// problem is an answer that something is wrong, as RFC 9457 has it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Code     string `json:"code"`
	Instance string `json:"instance"`

	// retry asks for a Retry-After.
	retry bool
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

func malformed(code, format string, args ...any) *problem {
	return &problem{Status: http.StatusBadRequest, Code: code, Detail: fmt.Sprintf(format, args...)}
}

func away(detail string) *problem {
	return &problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Detail: detail, retry: true}
}

func notReady(detail string) *problem {
	return &problem{Status: http.StatusServiceUnavailable, Code: codeNotReady, Detail: detail, retry: true}
}

// fail answers with the problem that the error is.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := describe(err)
	if p.Status >= http.StatusInternalServerError && p.Code != codeNotReady && r.Context().Err() == nil {
		a.log.WarnContext(r.Context(), "request failed",
			"method", r.Method, "path", clean(r.URL.Path), "status", p.Status, "error", err)
	}
	if stale, ok := errors.AsType[*projection.StaleError](err); ok {
		setPosition(w, stale.Position)
	}
	p.Type = "urn:rossby-demo:problem:" + p.Code
	p.Title = http.StatusText(p.Status)
	p.Instance = r.URL.EscapedPath()
	if p.retry {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	send(w, p.Status, "application/problem+json", p)
}

// describe says what an error is to a client. What is no business of clients
// stays in the log.
func describe(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		c := *p
		return &c
	}
	if rejected, ok := errors.AsType[*aggregate.RejectedError](err); ok {
		return &problem{Status: http.StatusUnprocessableEntity, Code: rejected.Code, Detail: rejected.Reason}
	}
	if p := describeFault(err); p != nil {
		return p
	}
	if stale, ok := errors.AsType[*projection.StaleError](err); ok {
		return &problem{
			Status: http.StatusGatewayTimeout, Code: "stale", retry: true,
			Detail: fmt.Sprintf("the view %s has not reached the position in time", stale.View),
		}
	}
	if foreign, ok := errors.AsType[*jetstream.ForeignPositionError](err); ok {
		return malformed("invalid-position", "%v", foreign)
	}
	if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok {
		return malformed("invalid", "%s %s", invalid.Field, invalid.Reason)
	}
	if key, ok := errors.AsType[*projection.KeyError](err); ok {
		return malformed("invalid-id", "%v", key)
	}
	return &problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "the bank's log says more"}
}

// describeFault knows the errors that are values.
func describeFault(err error) *problem {
	switch {
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return &problem{
			Status: http.StatusGatewayTimeout, Code: "unknown-outcome", retry: true,
			Detail: "it may have happened: send it again with the same " + headerKey + " or id",
		}
	case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, projection.ErrUnavailable):
		return away("NATS, or a service behind it, does not answer: nothing was done")
	case errors.Is(err, aggregate.ErrNotFound), errors.Is(err, projection.ErrNotFound):
		return &problem{Status: http.StatusNotFound, Code: "not-found", Detail: "the bank does not know it"}
	case errors.Is(err, aggregate.ErrExists):
		return &problem{Status: http.StatusConflict, Code: "exists", Detail: "the id is taken"}
	case errors.Is(err, aggregate.ErrOtherPayload):
		return &problem{
			Status: http.StatusConflict, Code: "other-payload",
			Detail: "the " + headerKey + " was used before for another request",
		}
	case errors.Is(err, aggregate.ErrContended):
		return &problem{Status: http.StatusConflict, Code: "conflict", Detail: "others came first: try again", retry: true}
	case errors.Is(err, aggregate.ErrBusy):
		return &problem{
			Status: http.StatusTooManyRequests, Code: "busy", Detail: "too many commands at once: nothing was done", retry: true,
		}
	case errors.Is(err, jetstream.ErrIncomplete), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, projection.ErrViewNotFound):
		return away("it took too long")
	}
	if version, ok := errors.AsType[*aggregate.VersionError](err); ok {
		return &problem{Status: http.StatusConflict, Code: "conflict", Detail: version.Error()}
	}
	if refused, ok := errors.AsType[*jetstream.RefusedError](err); ok {
		return &problem{Status: http.StatusInsufficientStorage, Code: "refused", Detail: refused.Error()}
	}
	return nil
}

func setPosition(w http.ResponseWriter, p jetstream.Position) {
	if !p.IsZero() {
		w.Header().Set(headerPosition, p.String())
	}
}

// answer sends a value as JSON.
func answer(w http.ResponseWriter, status int, v any) error {
	send(w, status, "application/json", v)
	return nil
}

func send(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"status":500}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
