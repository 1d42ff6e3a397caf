package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// Every error of a repository means the same to a caller far away.
func TestErrorsCrossTheWire(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 1000)
	cause := errors.New("cause")
	for name, c := range map[string]struct {
		err  error
		code string
		is   error
		as   error // equal to what arrives
	}{
		"rejected": {err: Reject("too-much", "%d", 5), code: "422", is: ErrRejected, as: &RejectedError{"too-much", "5"}},
		"version": {
			err:  fmt.Errorf("wrapped: %w", &VersionError{"t", "id", 3, 0}),
			code: "409", as: &VersionError{"t", "id", 3, 0},
		},
		"not found":     {err: fmt.Errorf("t %q: %w", "id", ErrNotFound), code: "404", is: ErrNotFound},
		"exists":        {err: fmt.Errorf("t %q: %w", "id", ErrExists), code: "409", is: ErrExists},
		"other payload": {err: fmt.Errorf("t %q: %w", "id", ErrOtherPayload), code: "409", is: ErrOtherPayload},
		"contended":     {err: fmt.Errorf("t %q: %w", "id", ErrContended), code: "429", is: ErrContended},
		"busy": {
			err: &BusyError{RetryAfter: 30 * time.Millisecond, Reason: "full"}, code: "429", is: ErrBusy,
			as: &BusyError{RetryAfter: 30 * time.Millisecond, Reason: "full"},
		},
		"invalid": {
			err: &jetstream.InvalidError{Field: "cents", Value: `"5"`, Reason: "is no number"}, code: "400",
			as: &jetstream.InvalidError{Field: "cents", Value: `"5"`, Reason: "is no number"},
		},
		"invalid, long": {
			err: &jetstream.InvalidError{Field: "body", Value: long, Reason: "is long"}, code: "400",
			as: &jetstream.InvalidError{Field: "body", Value: long[:maxText] + "…", Reason: "is long"},
		},
		"position": {
			err: &jetstream.ForeignPositionError{Store: "bank"}, code: "400",
			as: &jetstream.InvalidError{
				Field: "command for t", Value: "id",
				Reason: "was refused: " + (&jetstream.ForeignPositionError{Store: "bank"}).Error(),
			},
		},
		"refused": {
			err: &jetstream.RefusedError{Type: "t", ID: "id", Cause: cause}, code: "400",
			as: &jetstream.RefusedError{
				Type: "t", ID: "id", Cause: errors.New((&jetstream.RefusedError{Type: "t", ID: "id", Cause: cause}).Error()),
			},
		},
		"unknown": {err: &jetstream.UnknownError{Type: "t", ID: "id", Cause: cause}, code: "504", is: jetstream.ErrUnknownOutcome},
		"unknown, after others came first": {
			err:  &jetstream.UnknownError{Type: "t", ID: "id", Cause: errors.Join(cause, ErrContended, Reject("too-much", "5"))},
			code: "504", is: jetstream.ErrUnknownOutcome,
		},
		"unavailable": {err: fmt.Errorf("t: %w", jetstream.ErrUnavailable), code: "503", is: jetstream.ErrUnavailable},
		"incomplete":  {err: fmt.Errorf("t: %w", jetstream.ErrIncomplete), code: "503", is: jetstream.ErrUnavailable},
		"late":        {err: context.DeadlineExceeded, code: "503", is: jetstream.ErrUnavailable},
		"outdated": {
			err:  fmt.Errorf("t: %w", &jetstream.UnknownEventError{Type: "t", Name: "e", Version: 2}),
			code: "503", is: jetstream.ErrUnavailable,
		},
		"undeclared": {err: &jetstream.UnknownEventError{Type: "t", Name: "e"}, code: "500", is: ErrInternal},
		"internal":   {err: errors.New("secret"), code: "500", is: ErrInternal},
	} {
		data, err := json.Marshal(errorBody(c.err))
		if err != nil {
			t.Fatal(err)
		}
		var b protocol.ErrorBody
		if err := json.Unmarshal(data, &b); err != nil || b.Kind.Code() != c.code || len(data) > 2000 {
			t.Errorf("%s: %s %v", name, data, err)
		}
		got := remoteError("t", "id", b)
		if c.is != nil && !errors.Is(got, c.is) {
			t.Errorf("%s: %v is no %v", name, got, c.is)
		}
		if c.as != nil && !reflect.DeepEqual(got, c.as) {
			t.Errorf("%s: %#v, want %#v", name, got, c.as)
		}
		if strings.Contains(string(data), "secret") {
			t.Errorf("%s: %s", name, data)
		}
	}
	if err := remoteError("t", "id", protocol.ErrorBody{Kind: "of the future"}); !errors.Is(err, ErrInternal) {
		t.Error(err)
	}
}
