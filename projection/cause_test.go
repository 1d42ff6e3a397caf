package projection_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestEndedByAnotherViewsStop: a program that ends its views because one of them
// stopped ends the others, it does not stop them.
func TestEndedByAnotherViewsStop(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pos := f.append("a1", opened{Owner: "ann"})
	def := projection.NewKeyed("v", projection.On(accountEvents, func(a *account, _ opened, _ jetstream.Meta) { a.Events++ }))
	up, err := projection.NewUpdater(f.store, def, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()
	if e := get(t, reader[account](t, f, "v"), "a1", projection.AtLeast(pos)); e.Value.Events != 1 {
		t.Errorf("a1 is %+v", e)
	}
	cancel(fmt.Errorf("other module: %w", &projection.StoppedError{View: "other", Cause: errors.New("unreadable")}))
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if s := up.Status(); s.State != projection.StateFree || s.Err != nil {
		t.Errorf("status %+v", s)
	}
}
