package check

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation on an account asks for.
type Kind string

// The kinds.
const (
	Open     Kind = "open"     // make it with Amount
	Deposit  Kind = "deposit"  // add Amount, one event
	Twice    Kind = "twice"    // add Amount, in two events
	Withdraw Kind = "withdraw" // take Amount, or be rejected
	Claim    Kind = "claim"    // take a name that only one account may have
	Touch    Kind = "touch"    // change nothing
	Read     Kind = "read"
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	OK       Outcome = "ok"
	Rejected Outcome = "rejected" // the balance was too small
	NotFound Outcome = "not-found"
	Exists   Outcome = "exists"
	Conflict Outcome = "conflict" // the version was not Expect
	Failed   Outcome = "failed"   // it surely did not happen
	Unknown  Outcome = "unknown"  // it may have happened, or may yet
)

// Op is one operation on one account, with its time in nanoseconds since the run
// began. It is stored as JSON.
type Op struct {
	Client  int     `json:"client"`
	Account string  `json:"account"`
	Kind    Kind    `json:"kind"`
	Amount  int64   `json:"amount,omitempty"`
	Tag     string  `json:"tag,omitempty"`
	Path    string  `json:"path,omitempty"`
	ID      string  `json:"id,omitempty"`
	Expect  *uint64 `json:"expect,omitempty"`
	// Exact operations leave a commit whatever comes of them.
	Exact   bool    `json:"exact,omitempty"`
	Call    int64   `json:"call"`
	Return  int64   `json:"return"`
	Outcome Outcome `json:"outcome"`
	// Version and Balance are what the answer said. HasBalance tells that it did.
	Version    uint64 `json:"version,omitempty"`
	Balance    int64  `json:"balance,omitempty"`
	HasBalance bool   `json:"hasBalance,omitempty"`
	Position   string `json:"position,omitempty"`
	Error      string `json:"error,omitempty"`
}

// silent tells operations that left no commit, so that no expectation guarded what
// they answered.
func (o *Op) silent() bool {
	switch o.Outcome {
	case OK:
		return o.Kind == Read || o.Kind == Touch && !o.Exact
	case Rejected, NotFound, Exists, Conflict:
		return !o.Exact
	case Failed, Unknown:
	}
	return false
}

// Window is a stretch of a run in which an ex-leader may answer that does not know
// yet that it was replaced.
type Window struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Linearizable checks the operations on every account. Left out are silent ones
// within the windows: an ex-leader that was cut off may answer them for a while.
// checked and out count them.
func Linearizable(ops []Op, blind []Window, limit time.Duration) (violations []string, checked, out int) {
	accounts := map[string][]porcupine.Operation{}
	var order []string
	end := int64(0)
	for i := range ops {
		end = max(end, ops[i].Return, ops[i].Call)
	}
	for i := range ops {
		o := &ops[i]
		switch {
		case o.Outcome == Failed:
			continue // what it did nevertheless, nobody can explain
		case o.silent() && within(o, blind):
			out++
			continue
		}
		checked++
		back := o.Return
		if o.Outcome == Unknown {
			back = end + 1 // it may happen after everything
		}
		if accounts[o.Account] == nil {
			order = append(order, o.Account)
		}
		accounts[o.Account] = append(accounts[o.Account], porcupine.Operation{
			ClientId: o.Client, Input: o, Call: o.Call, Output: o, Return: back,
		})
	}
	for _, account := range order {
		history := accounts[account]
		switch porcupine.CheckOperationsTimeout(Model(), history, limit) {
		case porcupine.Ok:
		case porcupine.Unknown:
			violations = append(violations,
				fmt.Sprintf("account %s: %d operations not decided within %v", account, len(history), limit))
		default:
			violations = append(violations, fmt.Sprintf("account %s: %d operations are not linearizable", account, len(history)))
		}
	}
	return violations, checked, out
}

func within(o *Op, windows []Window) bool {
	for _, w := range windows {
		if o.Call <= w.To && o.Return >= w.From {
			return true
		}
	}
	return false
}

// account is the state of the model.
type account struct {
	version uint64
	balance int64
}

// Model is an account as a specification: what each answer can have come from.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return account{} },
		Step: func(state, input, _ any) (bool, any) {
			return step(state.(account), input.(*Op)) //nolint:forcetypeassert // ours
		},
		DescribeOperation: func(input, _ any) string {
			o := input.(*Op) //nolint:forcetypeassert // ours
			return fmt.Sprintf("%s %d by %s: %s (version %d, balance %d) %s", o.Kind, o.Amount, o.Path, o.Outcome, o.Version,
				o.Balance, o.Tag)
		},
		DescribeState: func(state any) string {
			a := state.(account) //nolint:forcetypeassert // ours
			return fmt.Sprintf("version %d, balance %d", a.version, a.balance)
		},
	}
}

// step tells whether the account can have given the answer, and what it is then.
func step(a account, o *Op) (bool, any) {
	next, refusal := decide(a, o)
	switch {
	case o.Outcome == Unknown:
		return true, next
	case o.Outcome != OK:
		return refusal == o.Outcome, a
	case refusal != "":
		return false, a
	}
	fits := o.Version == next.version && (!o.HasBalance || o.Balance == next.balance)
	return fits, next
}

// decide is what comes of an operation: the account after it, or a refusal.
func decide(a account, o *Op) (account, Outcome) {
	exists := a.version > 0
	switch {
	case o.Kind == Open && exists:
		return a, Exists
	case o.Kind != Open && !exists:
		return a, NotFound
	case o.Expect != nil && *o.Expect != a.version:
		return a, Conflict
	}
	switch o.Kind {
	case Open, Deposit:
		return account{a.version + 1, a.balance + o.Amount}, ""
	case Twice:
		return account{a.version + 2, a.balance + o.Amount}, ""
	case Withdraw:
		if a.balance < o.Amount {
			return a, Rejected
		}
		return account{a.version + 1, a.balance - o.Amount}, ""
	case Claim:
		return account{a.version + 1, a.balance}, ""
	case Touch, Read:
	}
	return a, ""
}
