package console_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
)

// wish is what a saga of the tests is started with: cents are paid into an account,
// and no cents are refused. Opening the account cannot be undone.
type wish struct {
	Cents int64 `json:"cents"`
}

func saving(accounts aggregate.Target) *saga.Saga[wish] {
	type instance = saga.Instance[wish]
	return saga.New("saving",
		saga.Step[wish]{
			Name: "open",
			Do:   func(i instance) saga.Command { return saga.Create(accounts, "of-"+i.ID, open{}) },
			Undo: func(i instance) saga.Command { return saga.Send(accounts, "of-"+i.ID, credit{}) },
		},
		saga.Step[wish]{
			Name: "pay", Timeout: time.Hour, Await: true,
			Do: func(i instance) saga.Command { return saga.Send(accounts, "of-"+i.ID, credit(i.Data)) },
		},
		saga.Step[wish]{
			Name: "tell",
			Do:   func(i instance) saga.Command { return saga.Send(accounts, "of-"+i.ID, credit{1}) },
		},
	)
}

// process is the saga over the world's store, which runs until the test ends.
func (w *world) process() *saga.Process[wish] {
	w.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	p, err := saga.NewProcess(w.t.Context(), w.store, saving(w.repo), saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: quiet, MaxBackoff: 50 * time.Millisecond},
		Timers:  aggregate.TimersConfig{Logger: quiet}, Repository: aggregate.RepositoryConfig{Logger: quiet},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(p.Run)
	return p
}

type sagaNow struct {
	Saga      string
	ID        string
	Phase     saga.Phase
	Step      string
	Done      []string
	StepSince time.Time
	Deadline  *time.Time
	Failure   *saga.Failure
	StuckOn   *saga.Failure
	Orders    bool
	Steps     []struct {
		Name        string
		Timeout     float64
		Undo, Await bool
	}
}

// instances are those in flight by their ids, once as many are.
func (w *world) instances(want int, ready func(map[string]sagaNow) bool) map[string]sagaNow {
	w.t.Helper()
	var out map[string]sagaNow
	if !natstest.Eventually(w.t, "sagas in flight", func() error {
		out = map[string]sagaNow{}
		for _, i := range get[struct{ Items []sagaNow }](w, "api/sagas").Items {
			out[i.ID] = i
		}
		if len(out) != want || ready != nil && !ready(out) {
			return fmt.Errorf("%+v", out)
		}
		return nil
	}) {
		w.t.FailNow()
	}
	return out
}

// Instances in flight are shown with their steps, and told what to do.
func TestSagas(t *testing.T) {
	t.Parallel()
	var cfg console.Config
	w := newWorld(t, func(c *console.Config) { cfg = *c })
	p := w.process()
	cfg.Sagas = []console.Saga{console.SagaOf(p)}
	cfg.By = func(*http.Request) string { return "ada" }
	w.mount(cfg)
	for id, cents := range map[string]int64{"waits": 5, "stuck": 0} {
		if _, err := p.Start(t.Context(), id, wish{cents}); err != nil {
			t.Fatal(err)
		}
	}
	now := w.instances(2, func(all map[string]sagaNow) bool {
		return all["stuck"].Phase == saga.Stuck && len(all["waits"].Done) == 2
	})
	waits, stuck := now["waits"], now["stuck"]
	if waits.Phase != saga.Running || waits.Step != "pay" || waits.Deadline == nil || waits.Failure != nil || !waits.Orders ||
		!waits.Deadline.Equal(waits.StepSince.Add(time.Hour)) || waits.Saga != "saving" {
		t.Errorf("%+v", waits)
	}
	if s := waits.Steps; len(s) != 3 || s[0].Name != "open" || !s[0].Undo || s[1].Timeout != 3600 || !s[1].Await || s[2].Undo {
		t.Errorf("%+v", s)
	}
	if stuck.Step != "open" || stuck.StuckOn == nil || stuck.StuckOn.Code != "too-little" || stuck.Failure.Step != "pay" {
		t.Errorf("%+v", stuck)
	}

	// Nobody takes commands for a saga; those who do for accounts are found all the same.
	found := get[struct{ Types []struct{ Type string } }](w, "api/commands").Types
	if len(found) != 1 || found[0].Type != "account" {
		t.Errorf("%+v", found)
	}

	// Without a saga in the configuration the commits tell.
	bare := cfg
	bare.Sagas = nil
	w.mount(bare)
	told := w.instances(2, nil)["stuck"]
	if told.Phase != saga.Stuck || told.Step != "open" || told.StuckOn == nil || told.Orders || told.Steps != nil {
		t.Errorf("%+v", told)
	}
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/sagas/saving/retry", map[string]any{"id": "stuck"}, nil)
	w.mount(cfg)

	// Again in vain, and then by hand.
	before, err := p.Instances().Load(t.Context(), "stuck")
	if err != nil {
		t.Fatal(err)
	}
	post[sagaNow](w, "api/sagas/saving/retry", map[string]any{"id": "stuck"})
	natstest.Eventually(t, "stuck again", func() error {
		snap, err := p.Instances().Load(t.Context(), "stuck")
		if err == nil && (snap.State.Phase != saga.Stuck || snap.Version != before.Version+2) {
			err = fmt.Errorf("%+v", snap)
		}
		return err
	})
	post[sagaNow](w, "api/sagas/saving/resolve", map[string]any{"id": "stuck"})
	w.instances(1, nil)
	history := string(w.do(http.MethodGet, "api/aggregates/saving/stuck", nil, nil).body)
	if !strings.Contains(history, `"by":"ada"`) || !strings.Contains(history, "compensated") {
		t.Error(history)
	}
	for do, id := range map[string]string{"retry": "waits", "resolve": "stuck"} {
		w.problem(http.StatusConflict, "conflict", http.MethodPost, "api/sagas/saving/"+do, map[string]any{"id": id}, nil)
	}
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/sagas/saving/retry", map[string]any{"id": "nobody"}, nil)
	w.problem(http.StatusNotFound, "not-found", http.MethodPost, "api/sagas/saving/forget", map[string]any{"id": "waits"}, nil)
	w.problem(http.StatusBadRequest, "invalid", http.MethodPost, "api/sagas/saving/retry", map[string]any{"id": "a.b"}, nil)
	cfg.Actions = false
	w.mount(cfg)
	w.problem(http.StatusForbidden, "read-only", http.MethodPost, "api/sagas/saving/retry", map[string]any{"id": "waits"}, nil)
}
