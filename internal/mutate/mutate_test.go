package mutate_test

import (
	"testing"

	"github.com/rossby-go/rossby/internal/mutate"
)

// TestOff: nothing that the environment says makes a defect, unless the build may
// have one.
func TestOff(t *testing.T) {
	t.Setenv(mutate.Variable, string(mutate.Unguarded))
	if !mutate.Enabled && mutate.On(mutate.Unguarded) {
		t.Error("a build without the tag has a defect")
	}
}
