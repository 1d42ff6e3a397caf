package aggregatetest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

var spent = aggregatetest.History{Name: "spent", Events: []any{
	Opened{700},
	Debited{200, "rent"},
	jetstream.Recorded{Meta: jetstream.Meta{
		Time: time.Date(2026, time.May, 4, 3, 2, 1, 0, time.UTC), Metadata: map[string]string{"by": "-ada"},
	}, Event: Debited{100, "food"}},
}}

// TestGolden guards this package's own account as users guard theirs.
func TestGolden(t *testing.T) {
	t.Parallel()
	aggregatetest.Golden(t, accountType(), "testdata/account", spent)
}

// What an Apply means cannot change unnoticed, and the files cannot be made to
// agree with it.
func TestGoldenFindsAnotherMeaning(t *testing.T) { //nolint:paralleltest // sets the environment
	dir := t.TempDir()
	check := func(typ *aggregate.Type[Account], histories ...aggregatetest.History) func(testing.TB) {
		return func(t testing.TB) { aggregatetest.Golden(t, typ, dir, histories...) }
	}
	natstest.Fails(t, check(accountType()), "no histories")
	natstest.Fails(t, check(accountType(), spent), `"spent"`, "not recorded yet", "ROSSBY_UPDATE=1")
	passes := func(check func(testing.TB)) {
		t.Helper()
		if text := natstest.Failure(t, check); text != "" {
			t.Error(text)
		}
	}
	recording := func(check func(testing.TB)) func(testing.TB) {
		return func(tb testing.TB) {
			t.Setenv("ROSSBY_UPDATE", "1")
			defer t.Setenv("ROSSBY_UPDATE", "0")
			check(tb)
		}
	}
	passes(recording(check(accountType(), spent)))
	passes(check(accountType(), spent))
	passes(check(accountType())) // the file alone counts, too
	first := spentIn(t, dir)

	twice := func(m *mistaken) {
		m.debited = func(a *Account, e Debited, m jetstream.Meta) {
			a.Cents -= 2 * e.Cents
			a.Notes = append(a.Notes, e.Note+m.Metadata["by"])
		}
	}
	for _, when := range []func(func(testing.TB)) func(testing.TB){recording, func(c func(testing.TB)) func(testing.TB) { return c }} {
		natstest.Fails(t, when(check(accountType(twice))), "event 2, debited, leads to another state", "raise aggregate.StateVersion", "Cents")
	}
	if spentIn(t, dir) != first {
		t.Error("the file was made to agree")
	}

	// A fold that is wrong only after states were stored: it relies on what is not.
	clock := func(m *mistaken) {
		m.debited = func(a *Account, e Debited, m jetstream.Meta) {
			a.Cents -= e.Cents
			a.Notes = append(a.Notes, e.Note+m.Metadata["by"])
			if m.Time.Month() == time.May {
				a.Notes = nil
			}
		}
	}
	natstest.Fails(t, check(accountType(clock)), "event 3, debited", "Notes")

	raised := accountType(twice, func(m *mistaken) { m.more = append(m.more, aggregate.StateVersion(2)) })
	natstest.Fails(t, check(raised, spent), "another fingerprint", "ROSSBY_UPDATE=1")
	passes(recording(check(raised, spent)))
	passes(check(raised, spent))
	if now := spentIn(t, dir); !strings.Contains(now, `"Cents": 300`) || strings.Contains(first, `"Cents": 300`) ||
		strings.Contains(first, raised.Fingerprint()) || !strings.Contains(now, raised.Fingerprint()) {
		t.Error(now)
	}
	natstest.Fails(t, check(accountType()), "another fingerprint") // back to version 1: recorded states are of 2

	other := aggregatetest.History{Name: "spent", Events: []any{Opened{1}}}
	natstest.Fails(t, recording(check(raised, other)), "recorded with other events", "another name")
	natstest.Fails(t, recording(check(raised, aggregatetest.History{Name: "Two Words"})), "history name")
	natstest.Fails(t, recording(check(raised, aggregatetest.History{Name: "none"})), "no events")
	natstest.Fails(t, recording(check(raised, aggregatetest.History{Name: "foreign", Events: []any{Open{}}})), "foreign", "not declared")
	natstest.Fails(t, recording(check(raised, spent, spent)), "two histories")
	natstest.Fails(t, check(aggregate.New[Account](events)), "no Apply")
}

// Files that do not tell what they must are named.
func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	whole := spentIn(t, "testdata/account")
	for what, c := range map[string]struct{ text, want string }{
		"torn":       {whole[:len(whole)/2], "broken.json"},
		"other type": {strings.Replace(whole, `"account"`, `"shelf"`, 1), `"shelf"`},
		"no event":   {strings.Replace(whole, `"opened"`, `"shut"`, 1), "shut"},
		"too new":    {strings.Replace(whole, `"version": 1`, `"version": 2`, 1), "unknown"},
		"bad data":   {strings.Replace(whole, `"Cents": 700`, `"Cents": "x"`, 1), "event 1"},
		"state":      {strings.Replace(whole, `"Cents": 500`, `"Cents": 501`, 1), "event 2, debited"},
		"bad state":  {strings.Replace(whole, `"Cents": 500`, `"Cents": []`, 1), "recorded state"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			natstest.Fails(t, func(t testing.TB) { aggregatetest.Golden(t, accountType(), dir) }, "broken", c.want)
		})
	}
}

// spentIn is the recorded history in a directory.
func spentIn(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "spent.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
