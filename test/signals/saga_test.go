package signals_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/monitor"
	"github.com/rossby-go/rossby/test/signals/shop"
)

// A saga is its reactor and its timers: neither is ready before it runs, and an
// instance that is parked counts.
func TestSaga(t *testing.T) {
	t.Parallel()
	s := shop.Start(t, natstest.Name(t), nil, nil)
	type gift struct{ Item string }
	process := shop.Need(saga.NewProcess(t.Context(), s.Store, saga.New("gift", saga.Step[gift]{
		Name: "place",
		Do: func(i saga.Instance[gift]) saga.Command {
			if i.Data.Item == "" {
				return saga.Create(s.Repo, i.ID, "no command")
			}
			return saga.Create(s.Repo, i.ID, shop.Place{Item: i.Data.Item})
		},
	}), saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning(), Logger: shop.Quiet},
		Timers:  aggregate.TimersConfig{Logger: shop.Quiet},
	}))(t)
	m, p := watch(t, monitor.Config{Store: s.Store})
	remove := m.Saga(process)
	code, r := ask(t, m.Ready())
	if code != http.StatusServiceUnavailable || len(r.Modules) != 2 {
		t.Fatalf("%d: %+v", code, r)
	}
	for i, kind := range []string{"reactor", "timers"} {
		if mod := r.Modules[i]; mod.Kind != kind || mod.Name != "gift" || mod.Ready {
			t.Errorf("before it runs: %+v", mod)
		}
	}

	shop.Run(t, process.Run)
	natstest.Eventually(t, "both are ready", func() error {
		if code, r := ask(t, m.Ready()); code != http.StatusOK {
			return fmt.Errorf("%d: %+v", code, r)
		}
		return nil
	})
	for id, item := range map[string]string{"good": "book", "bad": ""} {
		if _, err := process.Start(t.Context(), id, gift{Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	p.reaches(t, "rossby_follower_parked", is(1))

	remove()
	if code, r := ask(t, m.Ready()); code != http.StatusOK || len(r.Modules) != 0 {
		t.Errorf("%d: %+v", code, r)
	}
}
