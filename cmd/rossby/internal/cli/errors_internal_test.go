package cli

import (
	"fmt"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TestElection: servers that elect a leader are not there for a moment, which is no
// other error.
func TestElection(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{503: exitUnavailable, 400: exitError} {
		err := fmt.Errorf("list the stores: %w", &natsjs.APIError{Code: status, ErrorCode: 10008})
		if got := exitCode(t.Context(), err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}
