package cli

import (
	"slices"
	"testing"
)

// TestUniqueBy: what servers list twice, a person sees once.
func TestUniqueBy(t *testing.T) {
	t.Parallel()
	got := uniqueBy([]string{"bank", "shop", "bank", "ant"}, func(s string) string { return s })
	if want := []string{"ant", "bank", "shop"}; !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}
