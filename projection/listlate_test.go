package projection_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rossby-go/rossby/projection"
)

// TestListWaitsFirst: a list of a view that is too large for one request reaches its
// position before it says what is not there, however little the prefix leads to.
func TestListWaitsFirst(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		const n = 1200
		for from := 0; from < n; from += 200 {
			events := make([]any, 200)
			for i := range events {
				events[i] = moved{From: id(from + i), To: id(from + i), Cents: 1}
			}
			f.append("x", events...)
		}
		up := start(t, f.store, accounts(), quiet())
		r := reader[account](t, f, "accounts")
		get(t, r, id(0), projection.AtLeast(f.last))
		if err := up.stop(); err != nil {
			t.Fatal(err)
		}
		f.append("zz1", opened{Owner: "zoe"})
		o := projection.ListOptions{Prefix: "zz", AtLeast: f.last}
		hasty, err := projection.NewReader[account](t.Context(), f.nc, f.store.Name(), "accounts",
			projection.ReaderConfig{Wait: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var stale error
		for _, stale = range hasty.List(t.Context(), o) {
			break
		}
		if !errors.Is(stale, projection.ErrStale) {
			t.Errorf("without an updater: %v", stale)
		}
		start(t, f.store, accounts(), quiet())
		listed := 0
		for e, err := range r.List(t.Context(), o) {
			if listed++; err != nil || e.Key != "zz1" {
				t.Errorf("List: %q, %v", e.Key, err)
			}
		}
		if listed != 1 {
			t.Errorf("%d are listed", listed)
		}
	})
}
