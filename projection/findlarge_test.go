package projection_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// TestFindManyWhileWritten: a search that no single answer can hold, while its keys
// change: what matches all the time is yielded once, and every value has the index
// value that it was found by.
func TestFindManyWhileWritten(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprintf("R%d", replicas), func(t *testing.T) {
			t.Parallel()
			var url string
			if replicas == 1 {
				url = natstest.Run(t).URL()
			} else {
				url = strings.Join(natstest.RunCluster(t).URLs(), ",")
			}
			findWhileWritten(t, fixtureAt(t, url, replicas))
		})
	}
}

func findWhileWritten(t *testing.T, f *fixture) {
	t.Helper()
	const touched = 20
	n := 2400
	if testing.Short() {
		n = 1300 // as with the race detector
	}
	touch := func(from int, cents int64) {
		events := make([]any, 0, touched)
		for i := range touched {
			key := id((from + i) % n)
			events = append(events, moved{From: key, To: "x", Cents: cents})
		}
		f.append("x", events...)
	}
	for from := 0; from < n; from += touched {
		touch(from, int64(from))
	}
	start(t, f.store, accounts().Index("all", func(account) []string { return []string{"yes"} }).Index("cents", byCents), quiet())
	r := reader[account](t, f, "accounts")
	if _, err := r.Position(t.Context(), projection.AtLeast(f.last)); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var writer sync.WaitGroup
	writes, wrote := 0, make(chan struct{})
	writer.Go(func() {
		for ; paced(ctx, 2*time.Millisecond); writes++ {
			touch(writes*touched, int64(1+writes%7))
			if writes == 0 {
				close(wrote)
			}
		}
	})
	<-wrote
	for round := range 2 {
		seen := map[string]bool{}
		for e, err := range r.Find(t.Context(), "all", projection.FindOptions{Value: "yes", Reverse: round%2 == 1}) {
			if err != nil || seen[e.Key] {
				t.Errorf("%s: seen before: %v, %v", e.Key, seen[e.Key], err)
				break
			}
			seen[e.Key] = true
		}
		if len(seen) != n+1 {
			t.Errorf("%d keys, wanted %d", len(seen), n+1)
		}
		some, last := 0, ""
		for e, err := range r.Find(t.Context(), "cents", projection.FindOptions{}) {
			if err != nil || e.Indexed != projection.IntValue(e.Value.Cents) || e.Indexed < last {
				t.Errorf("%+v after %s: %v", e, last, err)
				break
			}
			last = e.Indexed
			some++
		}
		if some == 0 {
			t.Errorf("%d were found by their cents", some)
		}
	}
	end()
	writer.Wait()
	t.Logf("%d writes of %d keys each", writes, touched+1)
}
