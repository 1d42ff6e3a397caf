package projection_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// unstorables are folds after which an account with 100 cents or more cannot be
// stored.
var unstorables = map[string]func(a *projection.Definition[priced]) *projection.Definition[priced]{
	"Large": func(d *projection.Definition[priced]) *projection.Definition[priced] { return d },
	"NaN":   func(d *projection.Definition[priced]) *projection.Definition[priced] { return d },
	// Each of its index values may be, but not all of them: they stand in headers.
	"Headers": func(d *projection.Definition[priced]) *projection.Definition[priced] {
		return d.Index("many", func(a priced) (values []string) {
			if a.Cents >= 100 {
				for i := range 200 {
					values = append(values, fmt.Sprint(strings.Repeat("x", 400), i))
				}
			}
			return values
		})
	},
}

// priced is a value that may hold what JSON cannot.
type priced struct {
	Cents int64
	Price float64
	Text  string
}

func (p *priced) add(what string, cents int64) {
	p.Cents += cents
	p.Price, p.Text = 0, ""
	switch {
	case p.Cents < 100:
	case what == "NaN":
		p.Price = math.NaN()
	case what == "Large":
		p.Text = strings.Repeat("x", 2<<20)
	}
}

func pricedOf(kind, what string) *projection.Definition[priced] {
	if kind == "Lookup" {
		return projection.NewLookup("v", projection.OnTx(accountEvents,
			func(tx *projection.Tx[priced], e credited, m jetstream.Meta) error {
				p, _ := tx.Get(m.ID)
				p.add(what, e.Cents)
				tx.Put(m.ID, p)
				return nil
			}))
	}
	return projection.NewKeyed("v", projection.On(accountEvents, func(p *priced, e credited, _ jetstream.Meta) {
		p.add(what, e.Cents)
	}))
}

// TestUnstorable: a value that cannot be stored stops the view before the event that
// makes it so, among many in one page, and names it. It can be left out, on command
// and by policy.
func TestUnstorable(t *testing.T) {
	t.Parallel()
	url := natstest.Run(t).URL()
	for what, indexed := range unstorables {
		for _, kind := range []string{"Keyed", "Lookup"} {
			def := func() *projection.Definition[priced] { return indexed(pricedOf(kind, what)) }
			t.Run(what+kind, func(t *testing.T) {
				t.Parallel()
				f := fixtureAt(t, url, 1)
				for i := range 30 {
					second := int64(8)
					if i%3 == 0 {
						second = 9 // The last of them makes 100.
					}
					f.append(id(i%3), credited{Cents: 1}, credited{Cents: second})
				}
				f.append(id(0), credited{Cents: 1}, credited{Cents: 2})
				cfg := quiet()
				cfg.OnStop, cfg.FoldRetries = projection.WaitWhenStopped, 1
				start(t, f.store, def(), cfg)
				a := admin(t, f, "v")
				s := status(t, a, "stopped", inState(projection.StateStopped))
				if s.Failed == nil || s.Failed.ID != id(0) || s.Failed.Event != "credited" || s.Failed.EventID == "" ||
					s.Failed.Key != id(0) || s.Error == "" {
					t.Fatalf("%+v, failed %+v", s, s.Failed)
				}
				if !strings.HasSuffix(s.Failed.EventID, ".1") {
					t.Errorf("%+v", s.Failed)
				}
				r := reader[priced](t, f, "v")
				if e := get(t, r, id(0)); e.Value.Cents != 90 {
					t.Errorf("before it: %+v", e)
				}
				if err := a.Skip(patient(t), *s.Failed, "a test"); err != nil {
					t.Fatal(err)
				}
				if e := get(t, r, id(0), projection.AtLeast(f.last)); e.Value.Cents != 94 {
					t.Errorf("without it: %+v", e)
				}
			})
			t.Run(what+kind+"Skipped", func(t *testing.T) {
				t.Parallel()
				f := fixtureAt(t, url, 1)
				for i := range 30 {
					f.append(id(i%3), credited{Cents: 5}, credited{Cents: 5})
				}
				f.append(id(0), credited{Cents: -1}, credited{Cents: 20}, credited{Cents: -9}, credited{Cents: 2})
				cfg := quiet()
				cfg.OnError, cfg.FoldRetries = projection.SkipOnError, -1
				up := start(t, f.store, def(), cfg)
				r := reader[priced](t, f, "v")
				for i, want := range []int64{87, 95, 95} {
					if e, err := r.Get(t.Context(), id(i), projection.AtLeast(f.last)); err != nil || e.Value.Cents != want {
						t.Fatalf("%s: %+v, %v, wanted %d; updater: %+v", id(i), e, err, want, up.Status())
					}
				}
				if s := readStatus(t, f, "v"); s.Skipped != 4 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// TestUnstorableNamesTheEvent: the error that Run returns has both.
func TestUnstorableNamesTheEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a", credited{Cents: 99})
	f.append("a", credited{Cents: 1}, credited{Cents: 50})
	cfg := quiet()
	cfg.FoldRetries = -1
	err := start(t, f.store, pricedOf("Keyed", "Large"), cfg).wait()
	value, isValue := errors.AsType[*projection.ValueError](err)
	fold, isFold := errors.AsType[*projection.FoldError](err)
	if !isValue || !isFold || value.Key != "a" || fold.Event != "credited" || !strings.HasSuffix(fold.EventID, ".0") {
		t.Errorf("Run: %v", err)
	}
}

// TestIndexHangs: an index function that does not come back is noticed as a fold is.
func TestIndexHangs(t *testing.T) {
	t.Parallel()
	url := natstest.Run(t).URL()
	for kind, def := range map[string]*projection.Definition[account]{"Keyed": accounts(), "Lookup": plainLookup()} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := fixtureAt(t, url, 1)
			release := make(chan struct{})
			defer close(release)
			def := def.Index("bad", func(a account) []string {
				if a.Cents == 13 {
					<-release
				}
				return nil
			})
			f.append("a1", opened{Owner: "ann"}, credited{Cents: 1})
			f.append("a2", credited{Cents: 13})
			cfg := quiet()
			cfg.FoldTimeout, cfg.FoldRetries = 100*time.Millisecond, -1
			err := start(t, f.store, def, cfg).wait()
			fold, ok := errors.AsType[*projection.FoldError](err)
			for ok && fold.Key == "a1" && cfg.FoldTimeout < natstest.Patience { // The machine stood still in that.
				cfg.FoldTimeout *= 4
				err = start(t, f.store, def, cfg).wait()
				fold, ok = errors.AsType[*projection.FoldError](err)
			}
			if !errors.Is(err, projection.ErrFoldTimeout) || !ok || fold.Key != "a2" || f.store.Position(fold.Sequence) != f.last {
				t.Errorf("Run: %v", err)
			}
		})
	}
}
