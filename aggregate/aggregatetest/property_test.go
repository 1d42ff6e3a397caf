package aggregatetest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// sound is a property that holds of accounts.
func sound() aggregatetest.Property[Account] {
	return aggregatetest.Property[Account]{
		Command: func(r *rand.Rand, _ Account, exists bool) any {
			if !exists && r.IntN(3) > 0 || r.IntN(20) == 0 {
				return Open{Cents: r.Int64N(100)}
			}
			return Debit{Cents: r.Int64N(40), Note: strings.Repeat("x", r.IntN(3))}
		},
		Invariant: func(a Account) error {
			if a.Cents < 0 {
				return fmt.Errorf("overdrawn: %d", a.Cents)
			}
			return nil
		},
		Transition: func(before Account, command any, events []any, after Account) error {
			if d, ok := command.(Debit); ok && len(events) > 0 && before.Cents-d.Cents != after.Cents {
				return errors.New("money was lost")
			}
			if len(events) == 0 && before.Cents != after.Cents {
				return errors.New("nothing happened, and the state changed")
			}
			return nil
		},
	}
}

// T10.
func TestCheck(t *testing.T) {
	t.Parallel()
	aggregatetest.Check(t, accountType(), sound())
}

// commandsOf counts the commands of a report, and returns them.
func commandsOf(report string) []string {
	var out []string
	for line := range strings.SplitSeq(report, "\n") {
		if _, command, ok := strings.Cut(line, ". aggregatetest_test."); ok {
			out = append(out, command)
		}
	}
	return out
}

// Whatever is wrong is found, and shown with the fewest commands that do.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mistake  func(*mistaken)
		property func(*aggregatetest.Property[Account])
		commands []string // without their values
		words    []string
	}{
		"Overdrawn": {mistake: func(m *mistaken) {
			m.debit = func(_ Account, c Debit, _ aggregate.Decision) ([]any, error) { return []any{Debited(c)}, nil }
		}, commands: []string{"Open", "Debit", "Debit", "Debit"}, words: []string{"overdrawn", "seed 7"}},
		"LostMoney": {mistake: func(m *mistaken) {
			m.debited = func(a *Account, e Debited, _ jetstream.Meta) {
				if e.Note != "xx" {
					a.Cents -= e.Cents
				}
			}
		}, commands: []string{"Open", "Debit"}, words: []string{"money was lost"}},
		"ThirdDebit": {mistake: func(m *mistaken) {
			m.debited = func(a *Account, _ Debited, _ jetstream.Meta) {
				if a.Notes = append(a.Notes, ""); len(a.Notes) == 3 {
					a.Cents = -1
				}
			}
		}, property: func(p *aggregatetest.Property[Account]) { p.Transition = nil }, commands: []string{"Open", "Debit", "Debit", "Debit"}, words: []string{"overdrawn"}},
		"Panic": {mistake: func(m *mistaken) {
			m.debit = func(a Account, _ Debit, _ aggregate.Decision) ([]any, error) {
				if a.Cents > 50 {
					panic("too rich")
				}
				return nil, nil
			}
		}, commands: []string{"Open", "Debit"}, words: []string{"too rich"}},
		"PlainError": {mistake: func(m *mistaken) {
			m.debit = func(Account, Debit, aggregate.Decision) ([]any, error) { return nil, errors.New("plain") }
		}, commands: []string{"Open", "Debit"}, words: []string{"plain"}},
		"FickleHandler": {mistake: func(m *mistaken) {
			n := int64(0)
			m.debit = func(Account, Debit, aggregate.Decision) ([]any, error) {
				n++
				return []any{Debited{Cents: n}}, nil
			}
		}, property: func(p *aggregatetest.Property[Account]) { p.Transition, p.Invariant = nil, nil }, commands: []string{"Open", "Debit"}, words: []string{"not pure"}},
		"FickleRefusal": {mistake: func(m *mistaken) {
			n := 0
			m.debit = func(Account, Debit, aggregate.Decision) ([]any, error) {
				if n++; n%2 == 0 {
					return nil, aggregate.Reject("even", "")
				}
				return nil, nil
			}
		}, commands: []string{"Open", "Debit"}, words: []string{"not pure"}},
		"FickleApply": {mistake: func(m *mistaken) {
			n := int64(0)
			m.debited = func(a *Account, _ Debited, _ jetstream.Meta) { n++; a.Cents = n }
		}, property: func(p *aggregatetest.Property[Account]) { p.Transition = nil }, commands: []string{"Open", "Debit"}, words: []string{"replayed"}},
		"InvariantPanics": {property: func(p *aggregatetest.Property[Account]) {
			p.Invariant = func(Account) error { panic("in the invariant") }
		}, commands: []string{"Open"}, words: []string{"in the invariant"}},
		"TransitionPanics": {property: func(p *aggregatetest.Property[Account]) {
			p.Transition = func(Account, any, []any, Account) error { panic("in the transition") }
		}, words: []string{"in the transition"}},
		"CommandPanics": {property: func(p *aggregatetest.Property[Account]) {
			p.Command = func(*rand.Rand, Account, bool) any { panic("in the command") }
		}, words: []string{"in the command"}},
		"NoCommand":    {property: func(p *aggregatetest.Property[Account]) { p.Command = nil }, words: []string{"Command is nil"}},
		"NegativeRuns": {property: func(p *aggregatetest.Property[Account]) { p.Runs = -1 }, words: []string{"-1"}},
		"NotACommandType": {property: func(p *aggregatetest.Property[Account]) {
			p.Command = func(*rand.Rand, Account, bool) any { return 7 }
		}, words: []string{"is not a command"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mistakes []func(*mistaken)
			if c.mistake != nil {
				mistakes = append(mistakes, c.mistake)
			}
			p := sound()
			p.Seed = 7
			if c.property != nil {
				c.property(&p)
			}
			report := natstest.Failure(t, func(t testing.TB) { aggregatetest.Check(t, accountType(mistakes...), p) })
			for _, w := range c.words {
				if !strings.Contains(report, w) {
					t.Errorf("it does not say %q:\n%s", w, report)
				}
			}
			if c.commands == nil {
				return
			}
			var got []string
			for _, command := range commandsOf(report) {
				kind, _, _ := strings.Cut(command, "{")
				got = append(got, kind)
			}
			if !slices.Equal(got, c.commands) {
				t.Errorf("the commands are %v, want %v:\n%s", got, c.commands, report)
			}
		})
	}
	natstest.Fails(t, func(t testing.TB) { aggregatetest.Check(t, aggregate.New[Account](events), sound()) }, "no Apply")
}

// A seed repeats everything that was drawn.
func TestCheckRepeats(t *testing.T) {
	t.Parallel()
	report := func(seed uint64) string {
		p := sound()
		p.Seed = seed
		return natstest.Failure(t, func(t testing.TB) {
			aggregatetest.Check(t, accountType(func(m *mistaken) {
				m.debit = func(_ Account, c Debit, _ aggregate.Decision) ([]any, error) { return []any{Debited(c)}, nil }
			}), p)
		})
	}
	if a, b := report(3), report(3); a != b || a == report(4) {
		t.Errorf("%s\n%s", a, b)
	}
}
