package projection_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// TestValueTooLarge: a value that the server does not take stops the view with its
// key, and what was there stays; it goes on when the fold keeps within the limit.
func TestValueTooLarge(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		var mended atomic.Bool
		def := projection.NewKeyed("v", projection.On(accountEvents, func(a *account, e opened, _ jetstream.Meta) {
			if a.Owner += e.Owner; mended.Load() && len(a.Owner) > 10 {
				a.Owner = a.Owner[:10]
			}
			a.Events++
		}))
		cfg, log := waiting()
		up := start(t, f.store, def, cfg)
		r := reader[account](t, f, "v")
		large := strings.Repeat("x", 400_000)
		for range 2 {
			f.append("a1", opened{Owner: large})
			get(t, r, "a1", projection.AtLeast(f.last))
		}
		f.append("a1", opened{Owner: large})
		a := admin(t, f, "v")
		s := status(t, a, "stopped", inState(projection.StateStopped))
		natstest.Eventually(t, "the updater names the key", func() error {
			var value *projection.ValueError
			if s := up.Status(); !errors.As(s.Err, &value) || value.Key != "a1" {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if !strings.Contains(s.Error, "the server takes") || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%+v, log:\n%s", s, log)
		}
		if e := get(t, r, "a1"); e.Value.Events != 2 || len(e.Value.Owner) != 800_000 {
			t.Errorf("a1 has %d events", e.Value.Events)
		}
		mended.Store(true)
		if err := a.Resume(patient(t)); err != nil {
			t.Fatal(err)
		}
		if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Events != 3 || len(e.Value.Owner) != 10 {
			t.Errorf("a1 has %d events", e.Value.Events)
		}
	})
}

// TestPositionPassesOthers: the position goes over events that the view does not
// follow, of its aggregate type and of others, and none that it follows is missed.
func TestPositionPassesOthers(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, f *fixture) {
		t.Helper()
		notes := jetstream.NewSchema("note", jetstream.Event[noted]("noted"))
		start(t, f.store, projection.NewKeyed("v", projection.On(accountEvents, func(a *account, e credited, _ jetstream.Meta) {
			a.Cents, a.Events = a.Cents+e.Cents, a.Events+1
		})), quiet())
		r := reader[account](t, f, "v")
		for i := range 12 {
			f.append("a1", credited{Cents: int64(i)})
			for n := range i {
				f.append("a1", opened{})
				f.appendData("note", "n1", encode(t, notes, noted{n}))
			}
			if e := get(t, r, "a1", projection.AtLeast(f.last)); e.Value.Events != i+1 {
				t.Errorf("after %d: %+v", i, e)
			}
		}
	})
}

// TestStatusOfTheWay: the status tells how far the view is, behind in commits and
// in time, and how fast it goes.
func TestStatusOfTheWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := model{}
	f.feed(m, 10, 3)
	start(t, f.store, accounts(), quiet())
	f.check(m)
	a := admin(t, f, "accounts")
	status(t, a, "caught up", func(s projection.ViewStatus) bool { return s.CaughtUp() && s.Behind == 0 })
	if err := a.Pause(patient(t), ""); err != nil {
		t.Fatal(err)
	}
	status(t, a, "paused", inState(projection.StatePaused))
	// However long the store was quiet: the view is behind since the event came.
	before := time.Now()
	f.append("a1", opened{})
	s := status(t, a, "behind", func(s projection.ViewStatus) bool { return s.Lag == 1 })
	if most := time.Since(before); s.Behind <= 0 || s.Behind > most {
		t.Errorf("behind for %v, it was appended %v ago", s.Behind, most)
	}
	if err := a.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the rate is known", func() error {
		f.append("a1", credited{Cents: 1})
		s, err := a.Status(t.Context())
		if err == nil && (s.Rate <= 0 || s.Generation != 1 || s.Owner == "" || s.Head.IsZero() || s.Position.IsZero()) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}
