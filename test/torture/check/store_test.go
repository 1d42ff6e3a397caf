package check_test

import (
	"testing"

	"github.com/rossby-go/rossby/test/torture/check"
)

func TestSet(t *testing.T) {
	t.Parallel()
	wanted := func(o check.Outcome, sequence uint64, times int) []check.Element {
		return []check.Element{{Tag: "x", Outcome: o, Sequence: sequence, Times: times}}
	}
	stored := func(at ...uint64) []check.Stored {
		list := make([]check.Stored, 0, len(at))
		for _, s := range at {
			list = append(list, check.Stored{Tag: "x", Sequence: s})
		}
		return list
	}
	for name, test := range map[string]struct {
		elements []check.Element
		stored   []check.Stored
		finds    string
	}{
		"Stored":          {wanted(check.OK, 7, 1), stored(7), ""},
		"Lost":            {wanted(check.OK, 7, 1), nil, "is lost"},
		"Twice":           {wanted(check.OK, 7, 1), stored(7, 9), "is stored 2 times"},
		"InPart":          {wanted(check.OK, 7, 2), stored(7), "in part"},
		"UnknownInPart":   {wanted(check.Unknown, 0, 2), stored(7), "in part"},
		"Elsewhere":       {wanted(check.OK, 7, 1), stored(8), "stands at"},
		"UnknownStored":   {wanted(check.Unknown, 0, 1), stored(8), ""},
		"UnknownLost":     {wanted(check.Unknown, 0, 1), nil, ""},
		"UnknownTwice":    {wanted(check.Unknown, 0, 1), stored(8, 9), "is stored 2 times"},
		"FailedStored":    {wanted(check.Failed, 0, 1), stored(8), "did not happen"},
		"RejectedStored":  {wanted(check.Rejected, 0, 1), stored(8), "did not happen"},
		"FailedNotStored": {wanted(check.Failed, 0, 1), nil, ""},
		"Foreign":         {nil, stored(8), "nobody wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one(t, check.Set(test.elements, test.stored), test.finds)
		})
	}
}

// TestManyFindings: the first are told, the others counted.
func TestManyFindings(t *testing.T) {
	t.Parallel()
	elements := make([]check.Element, 12)
	for i := range elements {
		elements[i] = check.Element{Tag: string(rune('a' + i)), Outcome: check.OK, Sequence: 3, Times: 1}
	}
	found := check.Set(elements, nil)
	if len(found) != 6 || found[5] != "… and 7 more: acknowledged and lost" {
		t.Errorf("%q", found)
	}
}

func TestAgree(t *testing.T) {
	t.Parallel()
	replica := func(name string, digests ...string) check.Replica {
		r := check.Replica{Name: name, Digests: map[uint64]string{}}
		for i, d := range digests {
			r.Digests[uint64(i+1)] = d
		}
		return r
	}
	a := replica("a", "1", "2")
	one(t, check.Agree(nil), "")
	one(t, check.Agree([]check.Replica{a}), "")
	one(t, check.Agree([]check.Replica{a, replica("b", "1", "2")}), "")
	one(t, check.Agree([]check.Replica{a, replica("b", "1")}), "b has not")
	one(t, check.Agree([]check.Replica{a, replica("b", "1", "2", "3")}), "a has not")
	one(t, check.Agree([]check.Replica{a, replica("b", "1", "x")}), "different messages at 2")
}

func TestUnique(t *testing.T) {
	t.Parallel()
	one(t, check.Unique([]check.Owner{{"n", "a"}, {"m", "b"}, {"n", "a"}}), "")
	one(t, check.Unique([]check.Owner{{"n", "a"}, {"n", "b"}}), "n has the owners a and b")
}

func TestLost(t *testing.T) {
	t.Parallel()
	elements := []check.Element{
		{Tag: "a", Outcome: check.OK}, {Tag: "b", Outcome: check.OK}, {Tag: "c", Outcome: check.Unknown},
	}
	if n := check.Lost(elements, []check.Stored{{Tag: "a", Sequence: 1}}); n != 1 {
		t.Errorf("%d lost, want 1", n)
	}
}
