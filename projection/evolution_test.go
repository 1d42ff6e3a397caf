package projection_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

type (
	paidIn struct{ Euros int64 }
	both   struct{ Cents int64 }
	other  struct{ Cents int64 }
)

// formerEvents are the events as they were once declared: "paid-in" has become
// "credited" in its second version, "both" was split.
var (
	formerEvents = jetstream.NewSchema("account", jetstream.Event[opened]("opened"),
		jetstream.Event[paidIn]("paid-in"), jetstream.Event[both]("both"), jetstream.Event[other]("other"))
	latterEvents = jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[other]("other"),
		jetstream.Event[credited]("credited", jetstream.Version(2),
			jetstream.Upcast(func(o paidIn) credited { return credited{Cents: o.Euros * 100} })),
		jetstream.Renamed("paid-in", "credited"),
		jetstream.Retired("both", jetstream.UpcastMany(func(o both) []any { return []any{credited(o), other(o), credited(o)} })),
	)
)

// AC-S13: events that were renamed, upcast or split reach the views that handle
// what they have become, whatever else is passed over by name.
func TestRenamedEventsReachViews(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{})
	f.appendData("account", "a1", encode(t, formerEvents, other{1}))
	f.appendData("account", "a1", encode(t, formerEvents, paidIn{2}))
	f.appendData("account", "a1", encode(t, formerEvents, both{3}))
	f.appendData("account", "a1", encode(t, formerEvents, other{4}))
	f.appendData("account", "a1", encode(t, latterEvents, credited{5}))
	def := projection.NewKeyed("latter", projection.On(latterEvents, func(a *account, e credited, m jetstream.Meta) {
		if m.Name != "credited" {
			e.Cents = -1
		}
		a.History = append(a.History, e.Cents)
		a.Cents += e.Cents
	}))
	start(t, f.store, def, quiet())
	e := get(t, reader[account](t, f, "latter"), "a1", projection.AtLeast(f.last))
	if want := []int64{200, 3, 3, 5}; e.Value.Cents != 211 || len(e.Value.History) != len(want) {
		t.Errorf("a1 is %+v, want %v", e.Value, want)
	}
}

// A view reads everything in order, so it cannot let one aggregate wait.
func TestViewsDoNotPark(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for policy, ok := range map[jetstream.UnknownPolicy]bool{
		jetstream.StopOnUnknown: true, jetstream.SkipUnknown: true, jetstream.ParkUnknown: false, 9: false,
	} {
		_, err := projection.NewUpdater(f.store, accounts(), projection.UpdaterConfig{Unknown: policy})
		if (err == nil) != ok {
			t.Errorf("%v: %v", policy, err)
		}
	}
}

// What cannot be read stops the view with the event's place and name, even where
// unknown events are skipped.
func TestUnreadableEventStopsViews(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "Ann"})
	broken := encode(t, accountEvents, credited{5})
	broken.Data = []byte("\xc1")
	f.appendData("account", "a1", broken)
	cfg := quiet()
	cfg.Unknown = jetstream.SkipUnknown
	err := start(t, f.store, accounts(), cfg).wait()
	if err == nil || errors.Is(err, jetstream.ErrUnknownEvent) {
		t.Fatalf("Run: %v", err)
	}
	for _, want := range []string{`"credited"`, `account "a1"`, "version 2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %s", err, want)
		}
	}
}
