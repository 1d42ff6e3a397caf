package projection_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// errAmount is a failure of an event, and nothing that passes.
var errAmount = errors.New("such an amount cannot be")

// TestSinkHandlerFails: an event that cannot be folded stops the view before it,
// with what stands before it written, and says so everywhere; a person lets it be
// left out, or it goes on when the cause is gone.
func TestSinkHandlerFails(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"Error": func() error { return errAmount },
		"Panic": func() error { panic("amount") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m, want := newMemory(), model{}
			def := sinkFailing(func(e credited) error {
				if e.Cents == 13 {
					return fail()
				}
				return nil
			})
			for i := range 20 {
				f.append(id(i%3), credited{Cents: int64(i)}, credited{Cents: 100})
				if i < 13 {
					want.apply(id(i%3), credited{Cents: int64(i)})
					want.apply(id(i%3), credited{Cents: 100})
				}
			}
			cfg := lastingSink()
			cfg.OnStop, cfg.FoldRetries = projection.WaitWhenStopped, 1
			up := startSink(t, f.store, def, m, cfg)
			// It tries again from time to time.
			var stopped error
			natstest.Eventually(t, "it stops", func() error {
				s := up.Status()
				if stopped = s.Err; s.State != projection.StateStopped {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			fold, ok := errors.AsType[*projection.FoldError](stopped)
			if !ok || fold.Event != "credited" || fold.ID != id(13%3) || fold.Sequence == 0 {
				t.Fatalf("status: %v", stopped)
			}
			var s projection.ViewStatus
			natstest.Eventually(t, "the record says so", func() error {
				if s = sinkStatus(t, f, m); s.State != projection.StateStopped {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			if s.Failed == nil || s.Failed.EventID != fold.EventID || s.Error == "" || s.Lag == 0 || s.Behind == 0 || s.Owner != "" {
				t.Fatalf("%+v", s)
			}
			rows, _ := m.snapshot("")
			for key, w := range want {
				if got := rows[key]; !reflect.DeepEqual(got, *w) {
					t.Errorf("%s: %+v, wanted %+v", key, got, *w)
				}
			}
			a := sinkAdmin(t, f, m)
			if err := a.Skip(patient(t), *s.Failed, ""); err == nil {
				t.Error("Skip took no reason")
			}
			if err := a.Skip(patient(t), projection.FailedEvent{Sequence: 1}, "x"); !errors.Is(err, projection.ErrGeneration) {
				t.Errorf("Skip of another event: %v", err)
			}
			if err := a.Skip(patient(t), *s.Failed, "a test"); err != nil {
				t.Fatal(err)
			}
			want.apply(id(13%3), credited{Cents: 100})
			for i := 14; i < 20; i++ {
				want.apply(id(i%3), credited{Cents: int64(i)})
				want.apply(id(i%3), credited{Cents: 100})
			}
			f.checkSink(m, want)
			skips, err := a.Skips(patient(t))
			if err != nil || len(skips) != 1 || skips[0].Reason != "a test" || skips[0].EventID != fold.EventID {
				t.Errorf("Skips: %+v, %v", skips, err)
			}
			if s := sinkStatus(t, f, m); s.Skipped != 1 || s.Failed != nil || s.Error != "" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSinkSkipOnError: events that fail are left out, one by one, also several of
// one transaction, and the record says which and why.
func TestSinkSkipOnError(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	def := sinkFailing(func(e credited) error {
		if e.Cents < 0 {
			return fmt.Errorf("%w: %d", errAmount, e.Cents)
		}
		return nil
	})
	feed := func(events ...any) {
		f.append("a", events...)
		for _, e := range events {
			if e, ok := e.(credited); ok && e.Cents >= 0 {
				want.apply("a", e)
			}
		}
	}
	feed(credited{Cents: 1}, credited{Cents: -1}, credited{Cents: 2}, credited{Cents: -2}, credited{Cents: 3})
	feed(credited{Cents: -3})
	feed(credited{Cents: 4})
	cfg := quietSink()
	cfg.OnError, cfg.FoldRetries = projection.SkipOnError, -1
	startSink(t, f.store, def, m, cfg)
	f.checkSink(m, want)
	skips, err := sinkAdmin(t, f, m).Skips(patient(t))
	if err != nil || len(skips) != 3 {
		t.Fatalf("Skips: %+v, %v", skips, err)
	}
	for i, s := range skips {
		if s.Reason != fmt.Sprintf("%v: %d", errAmount, -1-i) || s.EventID == "" || s.Time.IsZero() {
			t.Errorf("%+v", s)
		}
	}
	if s := sinkStatus(t, f, m); s.Skipped != 3 || s.State != projection.StateRunning {
		t.Errorf("%+v", s)
	}
}

// TestSinkCommitRefused: what the database refuses only at the commit, such as a
// constraint that is checked late, is led back to the one commit that it comes
// from.
func TestSinkCommitRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	for i := range 30 {
		f.append(id(i), credited{Cents: int64(i)})
		if i < 17 {
			want.apply(id(i), credited{Cents: int64(i)})
		}
	}
	def := sinkFailing(func(credited) error { return nil })
	refusing := &refuser{memory: m, key: id(17)}
	cfg := quietSink()
	cfg.FoldRetries = -1
	up, err := projection.NewSinkUpdater(f.store, def, refusing, cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = launchSink(t, up).wait()
	fold, ok := errors.AsType[*projection.FoldError](err)
	if !ok || fold.ID != id(17) || !errors.Is(err, errAmount) {
		t.Fatalf("Run: %v", err)
	}
	if rows, _ := m.snapshot(""); len(rows) != len(want) {
		t.Errorf("%d rows, wanted %d: %v", len(rows), len(want), rows)
	}
}

// refuser commits no transaction that leaves a row under a key.
type refuser struct {
	*memory

	key string
}

func (r *refuser) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *memoryTx) error,
) error {
	refused := false
	err := r.memory.Transact(ctx, name, expected, data, func(tx *memoryTx) error {
		if err := apply(tx); err != nil {
			return err
		}
		if _, refused = tx.rows[r.key]; refused {
			return errAmount // The updater's own function did not fail.
		}
		return nil
	})
	return err
}

// TestSinkFoldTimeout: a handler that does not come back is named, whether it heeds
// its context or not, and what it leaves is never committed.
func TestSinkFoldTimeout(t *testing.T) {
	t.Parallel()
	for name, heeds := range map[string]bool{"HeedsContext": true, "DoesNot": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m := newMemory()
			release := make(chan struct{})
			def := projection.NewSinkDefinition("accounts", func(context.Context, *memoryTx) error { return nil },
				projection.OnSink(accountEvents, func(ctx context.Context, tx *memoryTx, e credited, m jetstream.Meta) error {
					tx.rows[m.ID] = account{Cents: e.Cents}
					if e.Cents != 2 {
						return nil
					}
					if !heeds {
						<-release
						return nil
					}
					<-ctx.Done()
					return context.Cause(ctx)
				}))
			cfg := mortalSink() // A handler that does not come back is waited for as long as half of the lease.
			cfg.FoldTimeout, cfg.FoldRetries = 50*time.Millisecond, -1
			f.append("a", credited{Cents: 1})
			f.append("b", credited{Cents: 2})
			err := startSink(t, f.store, def, m, cfg).wait()
			for isFold(err, "a") && cfg.FoldTimeout < natstest.Patience { // The machine stood still in that.
				cfg.FoldTimeout *= 4
				err = startSink(t, f.store, def, m, cfg).wait()
			}
			close(release)
			if !errors.Is(err, projection.ErrFoldTimeout) || !isFold(err, "b") {
				t.Errorf("Run: %v", err)
			}
			if rows, _ := m.snapshot(""); rows["b"].Cents != 0 || rows["a"].Cents != 1 {
				t.Errorf("%v", rows)
			}
		})
	}
}

func isFold(err error, id string) bool {
	fold, ok := errors.AsType[*projection.FoldError](err)
	return ok && fold.ID == id
}

// TestSinkUndecodable: a commit that cannot be read stops the view before it.
func TestSinkUndecodable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	f.feed(want, 5, 2)
	other := jetstream.NewSchema("account", jetstream.Event[noted]("noted"))
	f.appendData("account", "z", encode(t, other, noted{N: 1}))
	err := startSink(t, f.store, sinkAccounts(), m, lastingSink()).wait()
	if !isFold(err, "z") {
		t.Fatalf("Run: %v", err)
	}
	if s := sinkStatus(t, f, m); s.Lag != 1 || s.Failed == nil || s.Failed.ID != "z" {
		t.Errorf("%+v", s)
	}
	cfg := quietSink()
	cfg.Unknown = jetstream.SkipUnknown
	startSink(t, f.store, sinkAccounts(), m, cfg)
	f.checkSink(m, want)
}

// TestSinkPause: a paused view stays where it is, in all processes, and goes on
// when it is resumed.
func TestSinkPause(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	up := startSink(t, f.store, sinkAccounts(), m, quietSink())
	f.feed(want, 5, 2)
	f.checkSink(m, want)
	at := f.last
	a := sinkAdmin(t, f, m)
	if err := a.Pause(patient(t), "a test"); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "it is paused", func() error {
		if s := sinkStatus(t, f, m); s.State != projection.StatePaused || s.Pause == nil || s.Pause.Reason != "a test" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.feed(want, 5, 2)
	if s := sinkStatus(t, f, m); s.Position != at || s.Lag == 0 || up.Status().State != projection.StatePaused {
		t.Errorf("%+v, %+v", s, up.Status())
	}
	if err := a.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	f.checkSink(m, want)
}

// TestSinkVersion: a higher version empties the rows and writes them anew, each
// event once; programs of the older one stop and can no longer write; a
// definition that changed under its version is refused.
func TestSinkVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	f.feed(want, 20, 3)
	f.append("kept", credited{Cents: 1}) // Is never closed: it would show events that count twice.
	want.apply("kept", credited{Cents: 1})
	older := startSink(t, f.store, sinkAccounts(), m, quietSink())
	f.checkSink(m, want)
	other := sinkFailing(func(credited) error { return nil })
	if err := startSink(t, f.store, other, m, quietSink()).wait(); !errors.Is(err, projection.ErrDefinition) {
		t.Errorf("other events under the same version: %v", err)
	}
	startSink(t, f.store, sinkAccounts().Version(2), m, quietSink())
	if err := older.wait(); !errors.Is(err, projection.ErrSuperseded) || older.Status().State != projection.StateSealed {
		t.Errorf("the older version: %v, %+v", err, older.Status())
	}
	f.feed(want, 20, 3)
	f.checkSink(m, want)
	if s := sinkStatus(t, f, m); s.Version != 2 || s.Epoch != 2 {
		t.Errorf("%+v", s)
	}
	if err := startSink(t, f.store, sinkAccounts(), m, quietSink()).wait(); !errors.Is(err, projection.ErrSuperseded) {
		t.Errorf("the older version again: %v", err)
	}
}

// TestSinkOfAnotherStore: rows that were made from another store, or from more of
// it than there is, stop the view.
func TestSinkOfAnotherStore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := newMemory()
	f.feed(model{}, 5, 2)
	up := startSink(t, f.store, sinkAccounts(), m, quietSink())
	f.until(m)
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	name := projection.SinkName(f.store.Name(), "accounts")
	_, rec := m.snapshot(name)
	at := fmt.Sprintf(`"position":%d`, positionOf(t, rec))
	for what, change := range map[string][2]string{"AnotherStore": {f.store.ID(), "zzzz"}, "WentBack": {at, `"position":9999`}} {
		changed := strings.ReplaceAll(string(rec.Data), change[0], change[1])
		if changed == string(rec.Data) {
			t.Fatalf("%s: %s is not in %s", what, change[0], rec.Data)
		}
		m.records[name] = projection.SinkRecord{Revision: rec.Revision, Data: []byte(changed)}
		if err := startSink(t, f.store, sinkAccounts(), m, quietSink()).wait(); !errors.Is(err, projection.ErrStoreRestored) {
			t.Errorf("%s: %v", what, err)
		}
	}
	m.records[name] = projection.SinkRecord{Revision: 1, Data: []byte("{")}
	if err := startSink(t, f.store, sinkAccounts(), m, quietSink()).wait(); !errors.Is(err, projection.ErrSink) {
		t.Errorf("a record that is none: %v", err)
	}
}

func TestSinkMistakes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := newMemory()
	bad := projection.NewSinkDefinition[*memoryTx]("Accounts!", nil).Version(0)
	cfg := projection.SinkConfig{PageEvents: -1, LeaseTTL: 1, OnStop: 9}
	_, err := projection.NewSinkUpdater(f.store, bad, m, projection.SinkConfig{})
	for _, part := range []string{"view name", "prepare is nil", "no event is handled", "version 0"} {
		if err == nil || !strings.Contains(err.Error(), part) || bad.Err() == nil {
			t.Errorf("%v, wanted %q in it", err, part)
		}
	}
	_, err = projection.NewSinkUpdater(f.store, sinkAccounts(), m, cfg)
	for _, part := range []string{"SinkConfig.PageEvents -1", "SinkConfig.LeaseTTL 1ns", "SinkConfig.OnStop 9"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, wanted %q in it", err, part)
		}
	}
	if _, err := projection.NewSinkUpdater[*memoryTx](f.store, nil, m, projection.SinkConfig{}); err == nil {
		t.Error("an updater without a definition")
	}
	if _, err := sinkAdmin(t, f, m).Status(patient(t)); !errors.Is(err, projection.ErrViewNotFound) {
		t.Errorf("status of no view: %v", err)
	}
	failing := projection.NewSinkDefinition("accounts", func(context.Context, *memoryTx) error { return errAmount },
		projection.OnSink(accountEvents, func(context.Context, *memoryTx, credited, jetstream.Meta) error { return nil }))
	if err := startSink(t, f.store, failing, m, quietSink()).wait(); !errors.Is(err, projection.ErrSink) || !errors.Is(err, errAmount) {
		t.Errorf("prepare fails: %v", err)
	}
}

func TestSinkRecord(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t), newFixture(t)
	m := newMemory()
	first := f.append("a", credited{Cents: 1})
	up := startSink(t, f.store, sinkAccounts(), m, quietSink())
	f.until(m)
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	later := f.append("a", credited{Cents: 1})
	_, rec := m.snapshot(projection.SinkName(f.store.Name(), "accounts"))
	if p, err := rec.Position(); err != nil || p != first {
		t.Errorf("Position: %v, %v", p, err)
	}
	for p, want := range map[jetstream.Position]bool{{}: true, first: true, later: false} {
		if got, err := rec.Reached(p); err != nil || got != want {
			t.Errorf("Reached(%v): %v, %v", p, got, err)
		}
	}
	foreign := other.append("a", credited{Cents: 1})
	if _, err := rec.Reached(foreign); err == nil {
		t.Error("reached a position of another store")
	}
	if reached, err := (projection.SinkRecord{}).Reached(first); err != nil || reached {
		t.Errorf("no record has reached %v: %v", reached, err)
	}
}
