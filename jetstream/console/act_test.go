package console_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
)

type viewNow struct {
	State, PauseReason, Error string
	Position, Head, Lag       uint64
	Generations               []struct {
		Number                   int
		Live, Building, CaughtUp bool
		Done                     float64
	}
}

// view waits until the view is as it should be.
func (w *world) view(what string, is func(v viewNow) bool) {
	w.t.Helper()
	natstest.Eventually(w.t, what, func() error {
		v, err := read[viewNow](w.do(http.MethodGet, "api/views/"+view, nil, nil))
		if err == nil && !is(v) {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
}

func TestViewsAreToldWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.fill(3, 1)
	w.view("it has caught up", func(v viewNow) bool { return v.Lag == 0 && v.Position > 0 })
	nothing := map[string]any{}

	post[any](w, "api/views/"+view+"/pause", map[string]any{"reason": "lunch"})
	w.view("it is paused", func(v viewNow) bool { return v.State == "paused" && v.PauseReason == "lunch" })
	post[any](w, "api/views/"+view+"/resume", nothing)
	w.view("it goes on", func(v viewNow) bool { return v.State == "running" })

	built := post[struct{ Generation int }](w, "api/views/"+view+"/rebuild", nothing)
	w.problem(http.StatusConflict, "conflict", http.MethodPost, "api/views/"+view+"/rebuild", nothing, nil)
	w.view("both are there", func(v viewNow) bool {
		return len(v.Generations) == 2 && v.Generations[0].Live && v.Generations[1].Building && v.Generations[1].CaughtUp
	})
	if built.Generation == 0 { // it was asked twice, and told that it was done before
		built.Generation = 2
	}
	two := map[string]any{"generation": 1, "other": built.Generation}
	compared := post[struct {
		Keys        int
		Differences []any
		Cut         bool
	}](w, "api/views/"+view+"/compare", two)
	if compared.Keys != 3 || len(compared.Differences) != 0 || compared.Cut {
		t.Errorf("%+v", compared)
	}
	post[any](w, "api/views/"+view+"/switch", map[string]any{"generation": built.Generation})
	w.view("it was switched", func(v viewNow) bool { return v.Generations[1].Live })
	// Not repeated where it is not live in time: a second one would take the first one back.
	got := w.do(http.MethodPost, "api/views/"+view+"/rollback", nothing, nil)
	if got.status != http.StatusGatewayTimeout {
		if back, err := read[struct{ Generation int }](got); err != nil || back.Generation != 1 {
			t.Errorf("%+v, %v", back, err)
		}
	}
	w.view("it was rolled back", func(v viewNow) bool { return v.Generations[0].Live })
	w.problem(http.StatusConflict, "conflict", http.MethodPost, "api/views/"+view+"/remove",
		map[string]any{"generation": 1}, nil)
	post[any](w, "api/views/"+view+"/remove", map[string]any{"generation": built.Generation})
	w.view("one is left", func(v viewNow) bool { return len(v.Generations) == 1 })
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/views/"+view+"/dance", nothing, nil)
	w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/views/nothing", nil, nil)
	w.problem(http.StatusBadRequest, "invalid", http.MethodGet, "api/views/No", nil, nil)
}

type entryNow struct {
	Key    string
	Value  account
	Events []struct {
		ID, Name string
		Version  uint64
	}
}

func TestEntriesStandBesideTheirEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.fill(3, 2)
	w.view("it has caught up", func(v viewNow) bool { return v.Lag == 0 && v.Position > 0 })
	var keys []string
	for path := "api/views/" + view + "/entries?limit=2"; path != ""; {
		page := get[struct {
			Entries []entryNow
			After   string
		}](w, path)
		for _, e := range page.Entries {
			keys = append(keys, e.Key)
		}
		if path = ""; page.After != "" {
			path = "api/views/" + view + "/entries?limit=2&after=" + page.After
		}
	}
	if !slices.Equal(keys, []string{"a0", "a1", "a2"}) {
		t.Error(keys)
	}
	e := get[entryNow](w, "api/views/"+view+"/entry?key=a1")
	if e.Value.Cents != 21 || len(e.Events) != 3 || e.Events[0].Name != "credited" || e.Events[2].Name != "opened" {
		t.Errorf("%+v", e)
	}
	w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/views/"+view+"/entry?key=nobody", nil, nil)
	w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/views/nothing/entries", nil, nil)
}

type followerNow struct {
	Kind, State string
	Parked      int
	Paused      *struct{ By, Reason string }
	Groups      []struct {
		ID            string
		Count, Parked int
		Lanes         []struct {
			Lane, Error string
			Sequence    uint64
		}
	}
	Details struct {
		Destinations []struct {
			Name, Breaker     string
			Delivered, Failed int
		}
	}
}

// mail waits until the gateway is as it should be.
func (w *world) mail(what string, is func(f followerNow) bool) followerNow {
	w.t.Helper()
	var f followerNow
	natstest.Eventually(w.t, what, func() error {
		var err error
		f, err = read[followerNow](w.do(http.MethodGet, "api/followers/mail", nil, nil))
		if err == nil && (f.Kind == "" || !is(f)) { // without, the owner did not answer in time
			err = fmt.Errorf("%+v", f)
		}
		return err
	})
	return f
}

func TestFollowersAreToldWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *console.Config) { c.By = func(*http.Request) string { return "ada" } })
	var broken atomic.Bool
	broken.Store(true)
	g, err := gateway.New(w.store, "mail", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
		TTL: 30 * time.Second, // what a machine that stands still can renew
	},
		gateway.On(events(), func(context.Context, opened, gateway.Delivery) error {
			if broken.Load() {
				return gateway.Permanent(errors.New("no such address"))
			}
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	w.run(g.Run)
	w.fill(3, 0)
	f := w.mail("three are parked", func(f followerNow) bool { return f.Parked == 3 })
	if f.Kind != "gateway" || len(f.Groups) != 1 || f.Groups[0].Count != 3 || f.Groups[0].Parked != 3 ||
		len(f.Details.Destinations) != 1 || f.Details.Destinations[0].Breaker != "closed" || f.Details.Destinations[0].Failed < 3 {
		t.Fatalf("%+v", f)
	}
	lane := f.Groups[0].Lanes[0]
	discard := map[string]any{"lane": lane.Lane, "sequence": lane.Sequence}
	w.problem(http.StatusBadRequest, "invalid", http.MethodPost, "api/followers/mail/discard", discard, nil)
	discard["reason"] = "sent by post"
	post[any](w, "api/followers/mail/discard", discard)
	w.problem(http.StatusConflict, "conflict", http.MethodPost, "api/followers/mail/discard", discard, nil)
	broken.Store(false)
	for _, which := range []map[string]any{{"lane": f.Groups[0].Lanes[1].Lane}, {"all": true}} {
		got, _, again := w.decided(http.StatusOK, http.MethodPost, "api/followers/mail/retry", which, nil)
		if !again && (got.status != http.StatusOK || !strings.Contains(string(got.body), `"lanes":1`)) {
			t.Errorf("%v: %d %s", which, got.status, got.body)
		}
	}
	w.mail("nothing waits", func(f followerNow) bool { return f.Parked == 0 && len(f.Groups) == 0 })

	post[any](w, "api/followers/mail/pause", map[string]any{"reason": "the partner moves"})
	f = w.mail("it is paused", func(f followerNow) bool { return f.State == "paused" })
	if f.Paused == nil || f.Paused.By != "ada" || f.Paused.Reason != "the partner moves" {
		t.Errorf("%+v", f.Paused)
	}
	post[any](w, "api/followers/mail/resume", map[string]any{})
	w.mail("it goes on", func(f followerNow) bool { return f.State == "active" })
	w.problem(http.StatusNotFound, "not-found", http.MethodGet, "api/followers/nobody", nil, nil)
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/followers/mail/dance", map[string]any{}, nil)

	natstest.Eventually(t, "all of it is told", func() error { // but for what does not answer in time
		status := get[struct {
			Followers []struct{ Name string }
			Views     []struct{ Name string }
			Errors    []string
			Head      uint64
			Connected bool
		}](w, "api/status")
		if len(status.Followers) != 1 || len(status.Views) != 1 || status.Views[0].Name != view || len(status.Errors) > 0 ||
			status.Head == 0 || !status.Connected {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
}

// A saga whose step waits, with a deadline: both are listed.
func TestWhatWaitsForItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	type page struct {
		Items []struct {
			Type, ID, Command, Subscriber, Saga string
			Due                                 time.Time
		}
		Left uint64
	}
	if got := get[page](w, "api/deadlines"); len(got.Items) != 0 {
		t.Errorf("%+v", got)
	}
	if got := get[page](w, "api/sagas"); len(got.Items) != 0 {
		t.Errorf("%+v", got)
	}
	w.fill(1, 0)
	process, err := saga.NewProcess(t.Context(), w.store, saga.New("order", saga.Step[string]{
		Name: "credit", Await: true, Timeout: time.Hour,
		Do: func(saga.Instance[string]) saga.Command { return saga.Send(w.repo, "a0", credit{Cents: 1}) },
	}), saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.run(process.Run)
	if _, err := process.Start(t.Context(), "o1", "data"); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the deadline is set", func() error {
		deadlines, sagas := get[page](w, "api/deadlines"), get[page](w, "api/sagas")
		if len(deadlines.Items) != 1 || len(sagas.Items) != 1 {
			return fmt.Errorf("%+v %+v", deadlines, sagas)
		}
		d, s := deadlines.Items[0], sagas.Items[0]
		if d.Type != "order" || d.ID != "o1" || time.Until(d.Due) < 50*time.Minute || s.Saga != "order" || s.ID != "o1" {
			return fmt.Errorf("%+v %+v", d, s)
		}
		return nil
	})
}

func TestSwitchesAndChecks(t *testing.T) {
	t.Parallel()
	var at atomic.Value
	at.Store("runs")
	w := newWorld(t, func(c *console.Config) {
		c.Switches = []console.Switch{{
			Name: "worker", Title: "Worker", Options: []string{"runs", "stopped"},
			State: func() (string, string) { return at.Load().(string), "a line" }, //nolint:forcetypeassert // it is one
			Set: func(_ context.Context, option string) error {
				at.Store(option)
				return nil
			},
		}}
		c.Checks = []console.Check{
			{Name: "good", Title: "Good", Run: func(context.Context) (console.Result, error) {
				return console.Result{Holds: true, Text: "1 = 1"}, nil
			}},
			{Name: "odd", Title: "Odd", Run: func(context.Context) (console.Result, error) {
				return console.Result{}, errors.New("nobody knows")
			}},
		}
	})
	type now struct {
		Switches []struct{ Name, State, Note string }
		Checks   []struct {
			Name, Text, Error string
			Holds             bool
		}
	}
	post[any](w, "api/switches/worker", map[string]any{"option": "stopped"})
	got := get[now](w, "api/status")
	if len(got.Switches) != 1 || got.Switches[0].State != "stopped" || got.Switches[0].Note != "a line" {
		t.Errorf("%+v", got.Switches)
	}
	if len(got.Checks) != 2 || !got.Checks[0].Holds || got.Checks[0].Text != "1 = 1" || got.Checks[1].Error != "nobody knows" {
		t.Errorf("%+v", got.Checks)
	}
	w.problem(http.StatusBadRequest, "invalid", http.MethodPost, "api/switches/worker", map[string]any{"option": "x"}, nil)
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/switches/other", map[string]any{"option": "x"}, nil)
}
