package projection_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// TestPauseWithoutItsOwner: the owner has died when the view is told to wait, and
// nobody gives the view free: the status says all the same that it waits.
func TestPauseWithoutItsOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 10, 3)
	cfg := quiet()
	cfg.LeaseTTL = 300 * time.Millisecond
	nc, store := f.attach()
	owner := start(t, store, accounts(), cfg)
	f.check(m)
	nc.Close()
	_ = owner.wait()
	a := admin(t, f, "accounts")
	if err := a.Pause(patient(t), "looking at something"); err != nil {
		t.Fatal(err)
	}
	start(t, f.store, accounts(), cfg)
	if s := status(t, a, "paused", inState(projection.StatePaused)); s.Owner != "" || s.Pause == nil {
		t.Errorf("%+v", s)
	}
	f.feed(m, 10, 3)
	if err := a.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	f.check(m)
}

// TestSinkPauseWithoutItsOwner: the owner has died when the view is told to wait.
func TestSinkPauseWithoutItsOwner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m, want := newMemory(), model{}
	nc, store := f.attach()
	cfg := quietSink()
	cfg.LeaseTTL = 300 * time.Millisecond
	g := newGate(m)
	owner, err := projection.NewSinkUpdater(store, sinkAccounts(), g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	run := launchSink(t, owner)
	f.feed(want, 5, 2)
	f.checkSink(m, want)
	open := g.shut() // It cannot give the view free.
	nc.Close()
	defer func() {
		open()
		_ = run.wait()
	}()
	a := sinkAdmin(t, f, m)
	if err := a.Pause(patient(t), "a test"); err != nil {
		t.Fatal(err)
	}
	startSink(t, f.store, sinkAccounts(), m, cfg)
	natstest.Eventually(t, "it is paused", func() error {
		if s := sinkStatus(t, f, m); s.State != projection.StatePaused || s.Owner != "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.feed(want, 5, 2)
	if err := a.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	f.checkSink(m, want)
}

// TestListAsksAgain: a list that goes on after a token asks the bucket's leader how far
// the replicas are. While nobody answers it asks again, as long as reads wait.
func TestListAsksAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "ann"})
	f.append("a2", opened{Owner: "bob"})
	start(t, f.store, accounts(), quiet())
	p := newProxy(t, f.url)
	r, err := projection.NewReader[account](t.Context(), natstest.Conn(t, p.url), f.store.Name(), "accounts",
		projection.ReaderConfig{Wait: natstest.Patience, OpenWait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	first := get(t, r, "a1", projection.AtLeast(f.last))
	p.hold(false, true)
	done := make(chan error, 1)
	go func() {
		n := 0
		for e, err := range r.List(t.Context(), projection.ListOptions{After: first.Token()}) {
			if n++; err != nil || e.Key != "a2" {
				done <- fmt.Errorf("%q: %w", e.Key, err)
				return
			}
		}
		if n != 1 {
			done <- fmt.Errorf("%d are listed", n)
			return
		}
		done <- nil
	}()
	select { // Longer than one request may take.
	case err := <-done:
		t.Fatalf("while nobody answers: %v", err)
	case <-time.After(3 * time.Second):
	}
	p.hold(false, false)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
