package jetstream_test

import (
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// TestVerifyTransactionsAndKeys: what the store writes itself is sound, and Rossby's
// own commits are no events of anybody's.
func TestVerifyTransactionsAndKeys(t *testing.T) {
	t.Parallel()
	s := editable(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	reserving := write("a1", "", jetstream.Head{})
	reserving.Reserve = []jetstream.Key{{Name: "email", Value: "ann@example.org"}}
	head, err := s.Append(t.Context(), reserving)
	if err != nil {
		t.Fatal(err)
	}
	heads, err := s.AppendAll(t.Context(), write("a1", "", head), write("b", "", jetstream.Head{}), write("c", "", jetstream.Head{}))
	if err != nil {
		t.Fatal(err)
	}
	releasing := write("a1", "", heads[0])
	releasing.Release = reserving.Reserve
	if _, err := s.Append(t.Context(), releasing); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, jetstream.Verification{}, "")
	wantFound(t, s, jetstream.Verification{Sample: 30}, "")
	wantFound(t, s, jetstream.Verification{Type: "account", ID: "b"}, "")
	commits, err := collect(s.Scan(t.Context(), "", jetstream.Range{}))
	if err != nil || len(commits) != 5 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
	for _, c := range commits {
		if strings.HasPrefix(c.Type, "_") {
			t.Errorf("%s %q is not an aggregate of anybody's", c.Type, c.ID)
		}
	}
	// One of a transaction's commits goes.
	if err := stream(t, s.Conn(), s.Name()).DeleteMsg(t.Context(), heads[2].Sequence); err != nil {
		t.Fatal(err)
	}
	gone := heads[2].Sequence
	all := verified(t, s, jetstream.Verification{})
	if len(all) != 2 || all[0].Kind != jetstream.DamageMissing || all[0].Sequence != gone || all[1].Kind != jetstream.DamageTransaction {
		t.Errorf("found %v", all)
	}
	all = verified(t, s, jetstream.Verification{Type: "account", ID: "b"})
	if len(all) != 1 || all[0].Kind != jetstream.DamageTransaction || all[0].Sequence != heads[1].Sequence {
		t.Errorf("found %v", all)
	}
}
