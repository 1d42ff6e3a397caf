package aggregatetest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

type (
	Opened  struct{ Cents int64 }
	Debited struct {
		Cents int64
		Note  string
	}
	Account struct {
		Cents int64
		Notes []string
	}
	Open  struct{ Cents int64 }
	Debit struct {
		Cents int64
		Note  string
	}
)

var events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Debited]("debited"),
)

// accountType is a sound type; the mistakes replace parts of it.
func accountType(mistakes ...func(*mistaken)) *aggregate.Type[Account] {
	m := mistaken{
		debit: func(a Account, c Debit, _ aggregate.Decision) ([]any, error) {
			if a.Cents < c.Cents {
				return nil, aggregate.Reject("insufficient-funds", "the balance is %d", a.Cents)
			}
			if c.Cents == 0 {
				return nil, nil
			}
			return []any{Debited(c)}, nil
		},
		debited: func(a *Account, e Debited, m jetstream.Meta) {
			a.Cents -= e.Cents
			a.Notes = append(a.Notes, e.Note+m.Metadata["by"])
		},
	}
	for _, mistake := range mistakes {
		mistake(&m)
	}
	return aggregate.New[Account](events, append([]aggregate.Option{
		aggregate.Apply(func(a *Account, e Opened, _ jetstream.Meta) { a.Cents = e.Cents }),
		aggregate.Apply(m.debited),
		aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) { return []any{Opened(c)}, nil }),
		aggregate.Handle("debit", m.debit),
	}, m.more...)...)
}

type mistaken struct {
	debit   func(Account, Debit, aggregate.Decision) ([]any, error)
	debited func(*Account, Debited, jetstream.Meta)
	more    []aggregate.Option
}

// recorder is a test that may fail without failing the one it is part of.
type recorder struct {
	testing.TB

	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, text)
}

func (r *recorder) Error(args ...any)                 { r.add(fmt.Sprintln(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.add(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.add(fmt.Sprintln(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.add(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// failure runs a test and returns what it complained about, "" for nothing.
func failure(t *testing.T, test func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return strings.Join(r.lines, "\n")
}

// fails wants a test to fail, and to say the words.
func fails(t *testing.T, test func(testing.TB), words ...string) {
	t.Helper()
	got := failure(t, test)
	if got == "" {
		t.Error("it did not fail")
	}
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
}
