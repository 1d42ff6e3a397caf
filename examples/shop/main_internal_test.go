package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

// TestRun: the program tells what became of the three orders.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	lines := slices.Sorted(strings.Lines(out.String()))
	want := []string{
		"order-of-ann shipped parcel carrier-",
		"order-of-bob cancelled the wallet holds 500 cents\n",
		"order-of-nemo cancelled the carrier does not deliver there\n",
	}
	if !slices.EqualFunc(lines, want, strings.HasPrefix) {
		t.Errorf("%q; want %q", lines, want)
	}
}
