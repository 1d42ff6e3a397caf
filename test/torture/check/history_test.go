package check_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/test/torture/check"
)

// at gives operations times: each begins when the one before has ended.
func at(ops ...check.Op) []check.Op {
	for i := range ops {
		ops[i].Account = "a"
		if ops[i].Return == 0 {
			ops[i].Call, ops[i].Return = int64(10*i+1), int64(10*i+5)
		}
	}
	return ops
}

func opened() check.Op {
	return check.Op{Kind: check.Open, Amount: 100, Outcome: check.OK, Version: 1}
}

func read(version uint64, balance int64) check.Op {
	return check.Op{Kind: check.Read, Outcome: check.OK, Version: version, Balance: balance, HasBalance: true}
}

func TestLinearizable(t *testing.T) {
	t.Parallel()
	three := uint64(3)
	deposit := check.Op{Kind: check.Deposit, Amount: 5, Outcome: check.OK, Version: 2}
	unknown := check.Op{Kind: check.Deposit, Amount: 5, Outcome: check.Unknown}
	failed := check.Op{Kind: check.Deposit, Amount: 5, Outcome: check.Failed}
	rejected := check.Op{Kind: check.Withdraw, Amount: 200, Outcome: check.Rejected}
	for name, test := range map[string]struct {
		ops  []check.Op
		fine bool
	}{
		"InOrder":             {at(opened(), deposit, read(2, 105)), true},
		"Twice":               {at(opened(), check.Op{Kind: check.Twice, Amount: 5, Outcome: check.OK, Version: 3}, read(3, 105)), true},
		"StaleRead":           {at(opened(), deposit, read(1, 100)), false},
		"WrongBalance":        {at(opened(), deposit, read(2, 100)), false},
		"AppliedTwice":        {at(opened(), deposit, read(3, 110)), false},
		"VersionTaken":        {at(opened(), deposit, deposit), false},
		"UnknownHappened":     {at(opened(), unknown, read(2, 105)), true},
		"UnknownDidNot":       {at(opened(), unknown, read(1, 100)), true},
		"UnknownLater":        {at(opened(), unknown, read(1, 100), read(2, 105)), true},
		"UnknownUndone":       {at(opened(), unknown, read(2, 105), read(1, 100)), false},
		"FailedHappened":      {at(opened(), failed, read(2, 105)), false},
		"Rejected":            {at(opened(), rejected, read(1, 100)), true},
		"RejectedThoughRich":  {at(opened(), check.Op{Kind: check.Withdraw, Amount: 50, Outcome: check.Rejected}), false},
		"AcceptedThoughPoor":  {at(opened(), check.Op{Kind: check.Withdraw, Amount: 200, Outcome: check.OK, Version: 2}), false},
		"NotFoundThoughThere": {at(opened(), check.Op{Kind: check.Read, Outcome: check.NotFound}), false},
		"ExistsThoughNot":     {at(check.Op{Kind: check.Open, Outcome: check.Exists}), false},
		"OpenedTwice":         {at(opened(), opened()), false},
		"ConflictThoughNone":  {at(opened(), deposit, check.Op{Kind: check.Deposit, Outcome: check.Conflict, Expect: &deposit.Version}), false},
		"Conflict":            {at(opened(), deposit, check.Op{Kind: check.Deposit, Outcome: check.Conflict, Expect: &three}), true},
		"TouchAtOldVersion":   {at(opened(), deposit, check.Op{Kind: check.Touch, Outcome: check.OK, Version: 1}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			violations, checked, out := check.Linearizable(test.ops, nil, time.Minute)
			if (len(violations) == 0) != test.fine {
				t.Errorf("violations %q, want fine = %v", violations, test.fine)
			}
			if out != 0 || checked == 0 {
				t.Errorf("%d checked, %d left out", checked, out)
			}
		})
	}
}

// TestBlind: what an ex-leader may say is left out, and nothing else.
func TestBlind(t *testing.T) {
	t.Parallel()
	deposit := check.Op{Kind: check.Deposit, Amount: 5, Outcome: check.OK, Version: 2}
	window := []check.Window{{From: 20, To: 30}}
	rejected := check.Op{Kind: check.Withdraw, Amount: 102, Outcome: check.Rejected}
	exact := rejected
	exact.Exact = true
	for name, test := range map[string]struct {
		ops  []check.Op
		fine bool
	}{
		"StaleRead":      {at(opened(), deposit, read(1, 100)), true},
		"Later":          {at(opened(), deposit, read(2, 105), read(1, 100)), false},
		"StaleRejection": {at(opened(), deposit, rejected), true},
		"Recorded":       {at(opened(), deposit, exact), false},
		"Write":          {at(opened(), deposit, deposit), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			violations, _, _ := check.Linearizable(test.ops, window, time.Minute)
			if (len(violations) == 0) != test.fine {
				t.Errorf("violations %q, want fine = %v", violations, test.fine)
			}
		})
	}
}

// one tells whether exactly one violation was found, that holds the text; with no
// text, that none was.
func one(t *testing.T, violations []string, text string) {
	t.Helper()
	switch {
	case text == "" && len(violations) > 0:
		t.Errorf("found %q", violations)
	case text != "" && (len(violations) != 1 || !strings.Contains(violations[0], text)):
		t.Errorf("found %q, want one with %q", violations, text)
	}
}
