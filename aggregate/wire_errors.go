package aggregate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// The codes beside the kinds, on the wire.
const (
	codeWrongVersion = "version"
	codeOtherPayload = "other-payload"
	codeContended    = "contended"
	codeRefused      = "refused"
	codeOutdated     = "outdated"
)

// errorBody is what a caller far away learns of an error.
func errorBody(err error) protocol.ErrorBody {
	var (
		rejected *RejectedError
		version  *VersionError
		invalid  *jetstream.InvalidError
		refused  *jetstream.RefusedError
		foreign  *jetstream.ForeignPositionError
		busy     *BusyError
		stored   *jetstream.UnknownEventError
	)
	switch {
	case errors.Is(err, jetstream.ErrUnknownOutcome): // first: whatever else it wraps is no outcome
		return protocol.ErrorBody{Kind: protocol.KindUnknown, Reason: err.Error()}
	case errors.As(err, &rejected):
		return protocol.ErrorBody{Kind: protocol.KindRejected, Code: rejected.Code, Reason: rejected.Reason}
	case errors.As(err, &version):
		return protocol.ErrorBody{
			Kind: protocol.KindConflict, Code: codeWrongVersion, Reason: err.Error(),
			Expected: version.Expected, Actual: version.Actual,
		}
	case errors.Is(err, ErrNotFound):
		return protocol.ErrorBody{Kind: protocol.KindNotFound, Reason: err.Error()}
	case errors.Is(err, ErrExists):
		return protocol.ErrorBody{Kind: protocol.KindExists, Reason: err.Error()}
	case errors.Is(err, ErrOtherPayload):
		return protocol.ErrorBody{Kind: protocol.KindConflict, Code: codeOtherPayload, Reason: err.Error()}
	case errors.Is(err, ErrContended):
		return protocol.ErrorBody{
			Kind: protocol.KindBusy, Code: codeContended, Reason: err.Error(), RetryAfter: contendedPause.String(),
		}
	case errors.As(err, &busy):
		return protocol.ErrorBody{Kind: protocol.KindBusy, Reason: busy.Reason, RetryAfter: busy.RetryAfter.String()}
	case errors.As(err, &invalid):
		return protocol.ErrorBody{
			Kind: protocol.KindInvalid, Reason: invalid.Error(), Field: invalid.Field, Value: short(invalid.Value),
		}
	case errors.As(err, &foreign):
		return protocol.ErrorBody{Kind: protocol.KindInvalid, Reason: err.Error()}
	case errors.As(err, &refused):
		return protocol.ErrorBody{Kind: protocol.KindInvalid, Code: codeRefused, Reason: err.Error()}
	case errors.As(err, &stored) && stored.Version > 0:
		// Another instance may be new enough, and a deploy brings more of them.
		return protocol.ErrorBody{Kind: protocol.KindUnavailable, Code: codeOutdated, Reason: err.Error()}
	case errors.Is(err, jetstream.ErrUnavailable), errors.Is(err, jetstream.ErrIncomplete),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return protocol.ErrorBody{Kind: protocol.KindUnavailable, Reason: err.Error()}
	default:
		// The reason may hold what is no business of the caller; the service logs it.
		return protocol.ErrorBody{Kind: protocol.KindInternal, Reason: "the command failed; see the service's log"}
	}
}

// contendedPause is how long a caller waits while others come first.
const contendedPause = 50 * time.Millisecond

// short keeps what is told of a bad value within bounds: it may be a whole body.
func short(value string) string {
	if len(value) <= maxText {
		return value
	}
	return strings.ToValidUTF8(value[:maxText], "") + "…"
}

// remoteError is the error that a reply stands for, as if it had happened here.
func remoteError(typ, id string, b protocol.ErrorBody) error {
	at := func(err error) error { return fmt.Errorf("%s %q: %w: %s", typ, id, err, b.Reason) }
	switch b.Kind {
	case protocol.KindRejected:
		return &RejectedError{Code: b.Code, Reason: b.Reason}
	case protocol.KindNotFound:
		return at(ErrNotFound)
	case protocol.KindExists:
		return at(ErrExists)
	case protocol.KindConflict:
		if b.Code == codeWrongVersion {
			return &VersionError{Type: typ, ID: id, Expected: b.Expected, Actual: b.Actual}
		}
		return at(ErrOtherPayload)
	case protocol.KindInvalid:
		if b.Code == codeRefused {
			return &jetstream.RefusedError{Type: typ, ID: id, Cause: errors.New(b.Reason)}
		}
		if b.Field == "" {
			return &jetstream.InvalidError{Field: "command for " + typ, Value: id, Reason: "was refused: " + b.Reason}
		}
		// The reason is written for people, with the field and the value before it.
		prefix := (&jetstream.InvalidError{Field: b.Field, Value: b.Value}).Error()
		return &jetstream.InvalidError{Field: b.Field, Value: b.Value, Reason: strings.TrimPrefix(b.Reason, prefix)}
	case protocol.KindBusy:
		if b.Code == codeContended {
			return at(ErrContended)
		}
		return &BusyError{Reason: b.Reason, RetryAfter: retryAfter(b)}
	case protocol.KindUnknown:
		return &jetstream.UnknownError{Type: typ, ID: id, Cause: errors.New(b.Reason)}
	case protocol.KindUnavailable:
		return at(jetstream.ErrUnavailable)
	case protocol.KindInternal, protocol.KindStale:
	}
	return at(ErrInternal)
}

// retryAfter is the pause that a reply asks for, 0 for none.
func retryAfter(b protocol.ErrorBody) time.Duration {
	d, err := time.ParseDuration(b.RetryAfter)
	if err != nil {
		return 0
	}
	return max(d, 0)
}
