package projection_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// credits appends to accounts that are there until it is told to stop.
func (f *fixture) credits(m model, keys []string) (stop func()) {
	f.t.Helper()
	ctx, end := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for paced(ctx, 2*time.Millisecond) {
			key, e := keys[rand.IntN(len(keys))], credited{Cents: rand.Int64N(100)}
			m.apply(key, e)
			f.append(key, e) //nolint:contextcheck // it appends until the test ends
		}
	}()
	stop = sync.OnceFunc(func() { end(); <-ended })
	f.t.Cleanup(stop)
	return stop
}

// dying is an updater whose connection ends once, at a step. It tells when.
func dying(
	t *testing.T, nc *nats.Conn, store *jetstream.Store, def projection.AnyDefinition, cfg projection.UpdaterConfig, step string,
) (*running, <-chan struct{}) {
	t.Helper()
	up, err := projection.NewUpdater(store, def, cfg)
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{})
	var once sync.Once
	projection.Steps(up, func(s string) {
		if s == step {
			once.Do(func() { nc.Close(); close(reached) })
		}
	})
	return launch(t, up), reached
}

// TestBuilderDiesBehindTheSeal: the one that replaces the live generation dies
// after it has sealed that. The live one's updater takes the seal back, or another
// builder finishes; commands go on, no read fails or is older than one before, and
// nothing is lost.
func TestBuilderDiesBehindTheSeal(t *testing.T) {
	t.Parallel()
	setup := func(f *fixture) (model, []string) {
		m, keys := model{}, make([]string, 8)
		for i := range keys {
			keys[i] = id(i)
			f.append(keys[i], opened{})
			m.apply(keys[i], opened{})
		}
		return m, keys
	}
	cfg := mortal()
	cfg.OnStop = projection.WaitWhenStopped
	t.Run("NewVersion", func(t *testing.T) {
		t.Parallel()
		everywhere(t, func(t *testing.T, f *fixture) {
			t.Helper()
			m, keys := setup(f)
			old := start(t, f.store, accounts(), cfg)
			get(t, reader[account](t, f, "accounts"), keys[7], projection.AtLeast(f.last))
			watch, stop := readAllTheTime(t, f, keys), f.credits(m, keys)
			nc, store := f.attach()
			up, reached := dying(t, nc, store, accounts().Version(2), cfg, "sealed")
			if err := up.wait(); !errors.Is(err, projection.ErrUnavailable) {
				t.Errorf("Run: %v", err)
			}
			<-reached
			a := admin(t, f, "accounts")
			sealed := f.store.Position(1)
			gens, err := a.Generations(patient(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range gens {
				if g.Live {
					sealed = g.Position
				}
			}
			// Nobody builds any more: the live generation goes on.
			natstest.Eventually(t, "the old generation goes on", func() error {
				s, err := a.Status(t.Context())
				if err == nil && (s.State != projection.StateRunning || s.Generation != 1 || s.Position == sealed) {
					err = fmt.Errorf("%+v", s)
				}
				return err
			})
			f.mu.Lock()
			at := f.last
			f.mu.Unlock()
			get(t, reader[account](t, f, "accounts"), keys[0], projection.AtLeast(at))
			natstest.Eventually(t, "the old updater runs", func() error {
				if s := old.Status(); s.State != projection.StateRunning || s.Err != nil {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			if g := generation(t, a, 2, "still building", func(g projection.Generation) bool { return g.Building }); g.Live {
				t.Errorf("%+v", g)
			}
			// The new version comes back, and finishes.
			_, store = f.attach()
			start(t, store, accounts().Version(2), cfg)
			generation(t, a, 2, "live", live)
			stop()
			watch.stop()
			f.check(m)
			natstest.Eventually(t, "the old updater stands back", func() error {
				if s := old.Status(); s.State != projection.StateSealed {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		})
	})
	t.Run("AnotherBuilder", func(t *testing.T) {
		t.Parallel()
		everywhere(t, func(t *testing.T, f *fixture) {
			t.Helper()
			m, keys := setup(f)
			ups, reached := make([]*running, 2), make([]<-chan struct{}, 2)
			for i := range ups {
				nc, store := f.attach()
				ups[i], reached[i] = dying(t, nc, store, accounts(), cfg, "sealed")
			}
			get(t, reader[account](t, f, "accounts"), keys[7], projection.AtLeast(f.last))
			watch, stop := readAllTheTime(t, f, keys), f.credits(m, keys)
			a := admin(t, f, "accounts")
			if _, err := a.Rebuild(patient(t), projection.RebuildOptions{Switch: true}); err != nil {
				t.Fatal(err)
			}
			select {
			case <-reached[0]:
			case <-reached[1]:
			case <-patient(t).Done():
				t.Error("nobody sealed the generation")
			}
			_, store := f.attach()
			start(t, store, accounts(), cfg)
			generation(t, a, 2, "live", live)
			stop()
			watch.stop()
			f.check(m)
		})
	})
}
