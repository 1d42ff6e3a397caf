package projection_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// TestRemoveWhileItIsBuilt: that a generation is given up is no fault of who builds it.
func TestRemoveWhileItIsBuilt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 50, 10)
	log := &logged{}
	cfg := quiet()
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	up := start(t, f.store, accounts(), cfg)
	f.check(m)
	a := admin(t, f, "accounts")
	for range 5 {
		number := 0
		natstest.Eventually(t, "it is to be rebuilt", func() (err error) {
			number, err = a.Rebuild(patient(t), projection.RebuildOptions{})
			return err
		})
		generation(t, a, number, "built", func(g projection.Generation) bool { return g.CaughtUp() && g.Owner != "" })
		remove(t, a, number)
		natstest.Eventually(t, "nothing is built", func() error {
			if s := up.Status(); s.Building != nil {
				return fmt.Errorf("%+v", *s.Building)
			}
			return nil
		})
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

// TestRebuildAnswerLost: the server has stored that the view is to be rebuilt, and its
// answer is lost: that is no other rebuild.
func TestRebuildAnswerLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 10, 3)
	start(t, f.store, accounts(), quiet())
	f.check(m)
	p := newProxy(t, f.url)
	behind := natstest.Conn(t, p.url)
	a, err := projection.NewAdmin(behind, f.store.Name(), "accounts")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Generations(patient(t)); err != nil {
		t.Fatal(err)
	}
	bucket := f.store.Name() + "_accounts"
	tap := func(subject string, do func()) {
		t.Helper()
		sub, err := f.nc.Subscribe(subject, func(*nats.Msg) { do() })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sub.Unsubscribe() })
	}
	var held atomic.Bool
	tap("$KV."+bucket+"._rossby.2", func() {
		if held.CompareAndSwap(false, true) {
			p.hold(false, true)
		}
	})
	if err := f.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	type result struct {
		number int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		number, err := a.Rebuild(ctx, projection.RebuildOptions{})
		done <- result{number, err}
	}()
	other := admin(t, f, "accounts")
	generation(t, other, 2, "there", func(projection.Generation) bool { return true })
	select { // Until it was told nothing for so long that it asks again.
	case r := <-done:
		done <- r // The answer was faster.
	case <-time.After(3 * time.Second):
	}
	p.hold(false, false)
	if r := <-done; r.err != nil || r.number != 2 {
		t.Errorf("Rebuild: %d, %v", r.number, r.err)
	}
}

// TestAdminWhileLeadersAreElected: what is asked of a bucket whose leader has gone
// is asked again.
func TestAdminWhileLeadersAreElected(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t)
	f := fixtureAt(t, strings.Join(cluster.URLs(), ","), 3)
	m := model{}
	f.feed(m, 20, 5)
	f.append("a1", credited{Cents: 1}) // which the others need not have come to
	m.apply("a1", credited{Cents: 1})
	start(t, f.store, accounts(), quiet())
	f.check(m)
	a := admin(t, f, "accounts")
	cluster.Stop(0)
	cluster.Stop(1)
	asked := make(chan error, 3)
	go func() { _, err := a.Generations(patient(t)); asked <- err }()
	go func() { _, err := a.Skips(patient(t)); asked <- err }()
	go func() { _, err := a.RebuildAggregate(patient(t), "account", "a1", ""); asked <- err }()
	cluster.Restart(t, 0)
	cluster.Restart(t, 1)
	for range 3 {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
}
