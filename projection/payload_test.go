package projection_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestSmallPayload: a server that takes only small messages. Long lists and searches
// ask for fewer keys at once, and what must be asked for at once is refused at once.
func TestSmallPayload(t *testing.T) {
	t.Parallel()
	url, as := roles(t, nil, nil, 32<<10)
	f := fixtureOn(t, natstest.Conn(t, url, as("all")))
	const n = 1200
	long := strings.Repeat("x", 100)
	keys := make([]string, 0, n)
	for from := 0; from < n; from += 100 {
		events := make([]any, 0, 100)
		for i := range 100 {
			key := long + id(from+i)
			keys = append(keys, key)
			events = append(events, moved{From: key, To: key, Cents: 1})
		}
		f.append("x", events...)
	}
	start(t, f.store, accounts().Index("all", func(account) []string { return []string{"yes"} }), quiet())
	r := reader[account](t, f, "accounts")
	listed := map[string]bool{}
	for e, err := range r.List(t.Context(), projection.ListOptions{AtLeast: f.last}) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		listed[e.Key] = true
	}
	if got := find(t, r, "all", projection.FindOptions{Value: "yes"}); len(got) != n || len(listed) != n {
		t.Errorf("%d found, %d listed, wanted %d", len(got), len(listed), n)
	}
	var invalid *jetstream.InvalidError
	if _, err := r.GetMany(t.Context(), keys[:1000]); !errors.As(err, &invalid) {
		t.Errorf("GetMany: %v", err)
	}
}
