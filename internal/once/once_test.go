package once_test

import (
	"context"
	"errors"
	"testing"

	"github.com/rossby-go/rossby/internal/once"
)

// TestDo: who waits for another's attempt is not held up by it beyond its own time, and
// what has failed is tried again until it has succeeded.
func TestDo(t *testing.T) {
	t.Parallel()
	var o once.Once
	began, end, ended := make(chan struct{}), make(chan error), make(chan error, 1)
	go func() {
		ended <- o.Do(t.Context(), func(context.Context) error {
			close(began)
			return <-end
		})
	}()
	<-began
	tries := 0
	try := func(ctx context.Context) error {
		tries++
		return context.Cause(ctx)
	}
	cause := errors.New("the time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := o.Do(ctx, try); !errors.Is(err, cause) || tries != 0 {
		t.Errorf("beside a slow attempt: %v, %d tries", err, tries)
	}
	waited := make(chan error, 1)
	go func() { waited <- o.Do(t.Context(), try) }()
	failed := errors.New("failed")
	end <- failed
	if err := <-ended; !errors.Is(err, failed) {
		t.Error(err)
	}
	if err := <-waited; err != nil || tries != 1 {
		t.Errorf("after one that failed: %v, %d tries", err, tries)
	}
	if err := o.Do(ctx, try); err != nil || tries != 1 { // needs no time
		t.Errorf("after one that succeeded: %v, %d tries", err, tries)
	}
	o.Forget()
	if err := o.Do(t.Context(), try); err != nil || tries != 2 {
		t.Errorf("once it is forgotten: %v, %d tries", err, tries)
	}
}
