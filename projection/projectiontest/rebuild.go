package projectiontest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Patience bounds [Rebuild]. It is for views that would never be there, not for
// those that are slow.
const Patience = time.Minute

// tick is how often it looks.
const tick = 10 * time.Millisecond

// Rebuild has a view of a store built anew beside the one that is there, compares
// the two key by key, and removes the new one again. The test fails for every key
// that differs. It runs an updater of its own meanwhile, so that it makes the view
// when there is none; others may run, too, and events may go on.
func Rebuild[V any](t testing.TB, store *jetstream.Store, def *projection.Definition[V]) {
	t.Helper()
	up, err := projection.NewUpdater(store, def, projection.UpdaterConfig{
		Logger: slog.New(slog.DiscardHandler), OnStop: projection.ReturnWhenStopped,
	})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := projection.NewAdmin(store.Conn(), store.Name(), def.View())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	running, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop(up.Run(running))
	}()
	defer func() {
		stop(nil)
		<-ended
	}()
	if err := rebuild(running, store, admin, t.Errorf); err != nil {
		t.Fatalf("rebuild of view %q: %v", def.View(), err)
	}
}

func rebuild(ctx context.Context, store *jetstream.Store, admin *projection.Admin, differs func(string, ...any)) error {
	live, err := caughtUp(ctx, store, admin, func(g *projection.Generation) bool { return g.Live })
	if err != nil {
		return err
	}
	number, err := admin.Rebuild(ctx, projection.RebuildOptions{})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Patience)
		defer cancel()
		if err := remove(ctx, admin, number); err != nil {
			differs("the rebuilt generation cannot be removed: %v", err)
		}
	}()
	built := func(g *projection.Generation) bool { return g.Number == number }
	if _, err := caughtUp(ctx, store, admin, built); err != nil {
		return err
	}
	for d, err := range admin.Compare(ctx, live, number, projection.CompareOptions{Wait: Patience}, nil) {
		if err != nil {
			return err
		}
		differs("key %q: rebuilt it is another (- live, + rebuilt):\n- %s\n+ %s%s", d.Key, d.A, d.B, impure)
	}
	return nil
}

// remove removes a generation, again and again until that succeeds.
func remove(ctx context.Context, admin *projection.Admin, number int) error {
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		err := admin.Remove(ctx, number)
		if err == nil || errors.Is(err, projection.ErrGeneration) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

// caughtUp waits until a generation holds every event that the store has now, and
// returns its number.
func caughtUp(
	ctx context.Context, store *jetstream.Store, admin *projection.Admin, which func(*projection.Generation) bool,
) (int, error) {
	head, err := store.LastSequence(ctx)
	if err != nil {
		return 0, err
	}
	again := time.NewTicker(tick)
	defer again.Stop()
	state := errors.New("there is none")
	for {
		all, err := admin.Generations(ctx)
		for i := range all {
			g := &all[i]
			if !which(g) {
				continue
			}
			at, err := store.Sequence(g.Position)
			if err == nil && at >= head {
				return g.Number, nil
			}
			state = fmt.Errorf("generation %d is %s at %d of %d %s", g.Number, g.State, at, head, g.Error)
		}
		if err != nil && !errors.Is(err, projection.ErrViewNotFound) {
			state = err
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(context.Cause(ctx), state)
		case <-again.C:
		}
	}
}
