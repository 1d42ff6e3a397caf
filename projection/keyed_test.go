package projection_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/rossby-go/rossby/projection"
)

func TestKeyed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	up := start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")

	f.append("a1", opened{Owner: "ann"}, credited{Cents: 5})
	f.append("a2", opened{Owner: "bob"})
	pos := f.append("a1", credited{Cents: 7})
	e := get(t, r, "a1", projection.AtLeast(pos))
	if e.Value.Owner != "ann" || e.Value.Cents != 12 || e.Value.Events != 3 || !slices.Equal(e.Value.History, []int64{5, 7}) {
		t.Errorf("a1 is %+v", e)
	}
	if e.Position != pos || e.Generation != 1 || e.Revision == 0 || e.Sequence != 4 {
		t.Errorf("a1 is %+v, wanted position %v", e, pos)
	}
	pos = f.append("t1", moved{From: "a1", To: "a2", Cents: 2})
	if e := get(t, r, "a2", projection.AtLeast(pos)); e.Value.Cents != 2 || e.Value.Events != 2 {
		t.Errorf("a2 is %+v", e)
	}
	if e := get(t, r, "a1"); e.Value.Cents != 10 {
		t.Errorf("a1 is %+v", e)
	}
	pos = f.append("a2", closed{})
	e, err := r.Get(t.Context(), "a2", projection.AtLeast(pos))
	if !errors.Is(err, projection.ErrNotFound) || e.Position != pos {
		t.Errorf("a2 is %+v, %v", e, err)
	}
	pos = f.append("a2", opened{Owner: "cid"})
	if e := get(t, r, "a2", projection.AtLeast(pos)); e.Value.Events != 1 || e.Value.Owner != "cid" {
		t.Errorf("a2 is %+v", e)
	}
	if err := up.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}
