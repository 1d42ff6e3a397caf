package check_test

import (
	"testing"

	"github.com/rossby-go/rossby/test/torture/check"
)

func handled(versions ...uint64) []check.Handled {
	list := make([]check.Handled, 0, len(versions))
	for _, v := range versions {
		list = append(list, check.Handled{Follower: "f", Aggregate: "a", Version: v})
	}
	return list
}

func TestOrder(t *testing.T) {
	t.Parallel()
	one(t, check.Order(handled(1, 2, 3)), "")
	one(t, check.Order(handled(1, 2, 1, 2, 3)), "") // after a crash
	one(t, check.Order(handled(2)), "event 2 of a after 0")
	one(t, check.Order(handled(1, 3, 2)), "event 3 of a after 1")
	other := append(handled(1), check.Handled{Follower: "g", Aggregate: "a", Version: 2})
	one(t, check.Order(other), "g handled event 2 of a after 0")
}

func TestComplete(t *testing.T) {
	t.Parallel()
	versions := map[string]uint64{"a": 2}
	one(t, check.Complete(handled(1, 2), []string{"f"}, versions), "")
	one(t, check.Complete(handled(1), []string{"f"}, versions), "f has not handled event 2")
	one(t, check.Complete(handled(1, 2, 3), []string{"f"}, versions), "handled 3 events of a, which has 2")
	one(t, check.Complete(handled(2, 2), []string{"f"}, versions), "f has not handled event 1")
}

func TestKeys(t *testing.T) {
	t.Parallel()
	call := func(event, key string) check.Handled { return check.Handled{EventID: event, Key: key} }
	for name, test := range map[string]struct {
		calls   []check.Handled
		finds   string
		repeats int
	}{
		"Once":      {[]check.Handled{call("e", "k"), call("f", "l")}, "", 0},
		"Repeated":  {[]check.Handled{call("e", "k"), call("e", "k")}, "", 1},
		"OtherKey":  {[]check.Handled{call("e", "k"), call("e", "l")}, "event e was delivered under the keys k and l", 0},
		"SharedKey": {[]check.Handled{call("e", "k"), call("f", "k")}, "key k was used for the events e and f", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, repeats := check.Keys(test.calls)
			one(t, found, test.finds)
			if repeats != test.repeats {
				t.Errorf("%d repeats, want %d", repeats, test.repeats)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	row := check.Row{Balance: 1, Events: 2, Sum: 3}
	want := map[string]check.Row{"a": row}
	one(t, check.Equal("v", map[string]check.Row{"a": row}, want), "")
	one(t, check.Equal("v", nil, want), "lacks a")
	one(t, check.Equal("v", map[string]check.Row{"a": {Balance: 1, Events: 2, Sum: 4}}, want), "its log says")
	one(t, check.Equal("v", map[string]check.Row{"a": row, "b": row}, want), "has b")
}
