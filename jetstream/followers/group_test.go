package followers_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// What differs, as a regular expression says it: that one took 90 microseconds for a
// failure, which a status has for each lane.
var (
	eventPrefix = regexp.MustCompile(`^event \S+ \((\S+) of (\S+) "[^"]*", version \d+\): `)
	variable    = regexp.MustCompile(`"[^"]*"|'[^']*'|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|\d+(?:[.:,]\d+)*`)
)

func pattern(failure string) string {
	failure = eventPrefix.ReplaceAllString(failure, "$2 $1: ")
	return variable.ReplaceAllString(failure, "…")
}

// Groups of failures keep their names, which people and programs know them by.
func TestPatternOfAnything(t *testing.T) {
	t.Parallel()
	check := func(s string) {
		t.Helper()
		if got, want := followers.Pattern(s), pattern(s); got != want {
			t.Fatalf("%q: %q, want %q", s, got, want)
		}
	}
	for _, s := range []string{
		"", `"`, `a "b" 'c' "`, "10.0.0.1:443", "1.", "1,2:3.4,", "0x", "0x1g", "0X12", "x0xff.7",
		"123e4567-e89b-12d3-a456-426614174000", "g123e4567-e89b-12d3-a456-42661417400", "00000000----------------------------",
		`event Ab.0 (paid of order "o1", version 12): status 503: "x"`, "event of 7", "\xff'\xff\n'…5",
	} {
		check(s)
	}
	parts := []string{`"`, "'", "0x", "0", "7", "af", "12345678", "-", "abcdef01-", ".", ":", ",", " ", "g", "…", "\xff", "\n"}
	for range 5_000 {
		var b strings.Builder
		for range rand.N(40) {
			b.WriteString(parts[rand.N(len(parts))])
		}
		check(b.String())
	}
}

// BenchmarkStatusOfMuch is what an owner does for each status of 700 parked lanes.
func BenchmarkStatusOfMuch(b *testing.B) {
	var s follow.Status
	for n := range 700 {
		s.Blocked = append(s.Blocked, follow.LaneStatus{
			Subject: fmt.Sprintf("bank.event.thing.3.a%d", n), From: uint64(n), To: uint64(n), Parked: true, Attempts: 1,
			Error: "thing happened: " + strings.Repeat("<", 300),
		})
	}
	for b.Loop() {
		if followers.Of(s).Parked != 700 {
			b.Fatal("not all")
		}
	}
}
