package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

func newTimers(t testing.TB, store *jetstream.Store, targets ...aggregate.Target) *aggregate.Timers {
	t.Helper()
	return leasedTimers(t, store, steady, targets...)
}

// leasedTimers gives timers that have, and want, such a lease.
func leasedTimers(t testing.TB, store *jetstream.Store, ttl time.Duration, targets ...aggregate.Target) *aggregate.Timers {
	t.Helper()
	var timers *aggregate.Timers
	// The stream may wait for a leader.
	ok := natstest.Eventually(t, "the timers are made", func() (err error) {
		timers, err = aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{TTL: ttl, Logger: quiet}, targets...)
		return err
	})
	if !ok {
		t.FailNow()
	}
	return timers
}

// timerMessages are the payloads on the stream of timers, by subject, as its leader has
// them.
func timerMessages(t testing.TB, nc *nats.Conn, store *jetstream.Store) map[string][]byte {
	t.Helper()
	var out map[string][]byte
	ok := natstest.Eventually(t, "look at the timers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
		defer cancel()
		out = map[string][]byte{}
		for from := uint64(1); ; {
			m, err := wire.LeaderNext(ctx, nc, store.Name()+"__timers", wire.Everything, from)
			if errors.Is(err, wire.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			out[m.Subject], from = m.Data, m.Sequence+1
		}
	})
	if !ok {
		t.FailNow()
	}
	return out
}

// due wants a timer to have fired.
func due(t testing.TB, nc *nats.Conn, store *jetstream.Store) {
	t.Helper()
	natstest.Eventually(t, "the timer fires", func() error {
		if waiting(t, nc, store)["due"] == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

func settles(t testing.TB, repo *aggregate.Repository[account], id string, cents int64) {
	t.Helper()
	natstest.Eventually(t, fmt.Sprint(id, " has ", cents), func() error {
		snap, err := repo.Load(t.Context(), id)
		if err == nil && snap.State.Cents != cents {
			err = fmt.Errorf("%d cents", snap.State.Cents)
		}
		return err
	})
}

func TestTimers(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	timers := newTimers(t, store, repo)
	must(t, repo, "a1", open{100})
	handled := make(chan struct{}, 10)
	attempts := 0
	run(t, newReactor(t, store, "remind", aggregate.On(events, func(ctx context.Context, _ debited, m jetstream.Meta, do *aggregate.Do) error {
		if m.Version != 2 {
			return nil
		}
		err := do.After(ctx, 100*time.Millisecond, repo, "a1", credit{1},
			aggregate.Metadata(map[string]string{"user": "u1"}), aggregate.Correlation("conv"))
		if err != nil {
			return err
		}
		// In the past: at once. Refused then, and that is that.
		if err := do.After(ctx, -time.Hour, repo, "a1", debit{5000}); err != nil {
			return err
		}
		if err := do.After(ctx, 0, repo, "a1", credit{1}); !errors.Is(err, aggregate.ErrStepTwice) {
			return fmt.Errorf("twice: %w", err)
		}
		if err := do.After(ctx, 0, repo, "a1", credit{1000}, aggregate.Step("versioned"), aggregate.ExpectVersion(77)); err != nil {
			return err
		}
		var bad *jetstream.InvalidError
		if err := do.After(ctx, 0, repo, "a b", credit{1}); !errors.As(err, &bad) {
			return fmt.Errorf("id: %w", err)
		}
		if err := do.After(ctx, 0, repo, "a1", credit{1}, aggregate.Step("two words")); !errors.As(err, &bad) {
			return fmt.Errorf("step: %w", err)
		}
		if attempts++; attempts < 3 {
			return errors.New("again")
		}
		tell(handled, struct{}{})
		return nil
	})))
	must(t, repo, "a1", debit{10})
	received(t, handled)
	stop := run(t, timers)
	settles(t, repo, "a1", 91)
	for e, err := range repo.History(t.Context(), "a1") {
		if err != nil || e.Version == 3 && (e.Metadata["user"] != "u1" || e.Correlation != "conv" || e.Causation == "") {
			t.Fatalf("%+v %v", e, err)
		}
	}
	// Fired again on the wire: by a redelivered trigger, or by a server that
	// forgot.
	js, err := natsjs.New(nc, natsjs.WithDefaultTimeout(natstest.Patience))
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "all have fired", func() error {
		fired := 0
		for subject := range timerMessages(t, nc, store) {
			if strings.Contains(subject, ".timer.due.") {
				fired++
			}
		}
		if fired != 3 {
			return fmt.Errorf("%d", fired)
		}
		return nil
	})
	var last uint64
	for subject, data := range timerMessages(t, nc, store) {
		for _, s := range []string{subject, subject + "-again"} {
			if !strings.Contains(s, ".due.") {
				continue
			}
			ack, err := js.Publish(t.Context(), s, data)
			if err != nil {
				t.Fatal(err)
			}
			last = ack.Sequence
		}
	}
	natstest.Eventually(t, "the timers are done", func() error {
		if s := timers.Status()["account"]; !s.CaughtUp || s.Position < last {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	balance(t, repo, "a1", 91, 3)
	if s, err := aggregate.ReadStatus(t.Context(), store, aggregate.TimersName("account")); err != nil || s.Name != "_timers-account" {
		t.Error(s, err)
	}
	stop()
	if _, err := aggregate.NewTimers(t.Context(), store, aggregate.TimersConfig{}); err == nil {
		t.Error("timers without targets")
	}
}

// A deadline outlives the server and every process.
func TestTimersAfterARestart(t *testing.T) {
	t.Parallel()
	addr, dir := natstest.Addr(t), t.TempDir()
	start := func() *embedded.Server {
		srv, err := embedded.Start(embedded.Config{Listen: addr, StoreDir: dir, ReadyTimeout: natstest.Patience})
		if err != nil {
			t.Fatal(err)
		}
		return srv
	}
	srv := start()
	nc := natstest.Conn(t, srv.URL())
	store, repo := newRepository(t, nc)
	newTimers(t, store, repo)
	must(t, repo, "a1", open{100})
	set := make(chan struct{}, 1)
	stop := run(t, newReactor(t, store, "remind", aggregate.On(events, func(ctx context.Context, _ opened, _ jetstream.Meta, do *aggregate.Do) error {
		if err := do.After(ctx, time.Second, repo, "a1", debit{1}); err != nil {
			return err
		}
		tell(set, struct{}{})
		return nil
	})))
	received(t, set)
	stop()
	nc.Close()
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	srv = start()
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	nc = natstest.Conn(t, srv.URL())
	store = newStore(t, nc, jetstream.Config{Name: store.Name()})
	repo = newRepo(t, store)
	due(t, nc, store)
	run(t, newTimers(t, store, repo))
	settles(t, repo, "a1", 99)
	balance(t, repo, "a1", 99, 2)
}
