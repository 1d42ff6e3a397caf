package projection_test

import (
	"context"
	"errors"
	"testing"

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
		stale := behind(t, func(ctx context.Context) error {
			for _, err := range r.List(ctx, o) {
				return err
			}
			return errors.New("without an updater: nothing is there")
		})
		if stale.Wanted != f.last {
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
