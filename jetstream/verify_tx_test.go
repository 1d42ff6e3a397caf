package jetstream_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
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

// TestVerifyDuringTransactions: a verification ends where the store ended when it
// began, which is never within a transaction: nothing is found while they are stored.
func TestVerifyDuringTransactions(t *testing.T) {
	t.Parallel()
	s := editable(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	const rounds, size = 20, 400
	ctx, done := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done()
		heads := make([]jetstream.Head, size)
		for range rounds {
			writes := make([]jetstream.Write, size)
			for i := range writes {
				writes[i] = write("a"+strconv.Itoa(i), "", heads[i])
			}
			var err error
			if heads, err = s.AppendAll(t.Context(), writes...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	last := "a" + strconv.Itoa(size-1)
	for after := uint64(0); ctx.Err() == nil; {
		for _, v := range []jetstream.Verification{{After: after}, {Type: "account", ID: "a0"}, {Type: "account", ID: last}} {
			wantFound(t, s, v, "")
		}
		seq, err := s.LastSequence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		after = seq - seq%size // somewhere in the last transactions
	}
}

// TestVerifySample: a sample looks at as many aggregates as it says, where there
// are as many, and is told of each.
func TestVerifySample(t *testing.T) {
	t.Parallel()
	s := editable(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	var did jetstream.Verified
	note := func(v jetstream.Verified) { did = v }
	wantFound(t, s, jetstream.Verification{Sample: 1, Progress: note}, "")
	if did.Aggregates != 0 {
		t.Errorf("in an empty store: %+v", did)
	}
	appendN(t, s, "a1", 1)
	for range 8 {
		wantFound(t, s, jetstream.Verification{Sample: 1, Progress: note}, "")
		if did.Aggregates != 1 || did.Sequence != 1 || did.Last != 1 {
			t.Fatalf("one of one: %+v", did)
		}
	}
	appendN(t, s, "a2", 1)
	appendN(t, s, "a3", 1)
	wantFound(t, s, jetstream.Verification{Sample: 2, Progress: note}, "")
	if did.Aggregates != 2 || did.Sequence != 2 {
		t.Errorf("two of three: %+v", did)
	}
}
