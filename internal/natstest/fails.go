package natstest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a test that may fail without failing the one it is part of.
type recorder struct {
	testing.TB

	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.TrimSuffix(text, "\n"))
}

func (r *recorder) Error(args ...any)                 { r.add(fmt.Sprintln(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.add(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.add(fmt.Sprintln(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.add(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// Failure runs a test that may fail without failing t, and returns what it complained
// about, "" for nothing: for tests of what tests call.
func Failure(t testing.TB, test func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// Fails wants a test to fail, and to say the words.
func Fails(t testing.TB, test func(testing.TB), words ...string) {
	t.Helper()
	got := Failure(t, test)
	if got == "" {
		t.Error("it did not fail")
	}
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
}
