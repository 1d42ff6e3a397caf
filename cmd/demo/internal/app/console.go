package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/api"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/jetstream/console"
)

// The bank's pages.
const (
	consolePath = "/console/"
	bankPath    = "/bank/"
)

// withConsole puts the console before the bank's own page and API.
func (a *App) withConsole(bank *api.API) (http.Handler, error) {
	states, err := a.states()
	if err != nil {
		return nil, err
	}
	con, err := console.New(console.Config{
		Actions: true, By: func(*http.Request) string { return "the bank's console" },
		Checks: []console.Check{{
			Name: "money", Title: "Money",
			Run: func(ctx context.Context) (console.Result, error) { return check(ctx, bank) },
		}},
		DurabilitySources: a.cfg.DurabilitySources, Links: []console.Link{
			{Title: "The bank", URL: bankPath}, {Title: "Traces", URL: tracePath},
		},
		Logger: a.cfg.Logger, Sagas: a.allSagas(), States: states, Store: a.store, Switches: a.switches(), Title: "The bank",
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(consolePath, http.StripPrefix("/console", con))
	mux.Handle("GET "+bankPath+"{$}", http.StripPrefix("/bank", bank))
	mux.Handle("GET /{$}", http.RedirectHandler(consolePath, http.StatusFound))
	a.signals.routes(mux)
	mux.Handle("/", bank)
	return mux, nil
}

// states are the bank's aggregates as of any version, wherever their commands run.
func (a *App) states() ([]console.State, error) {
	cfg := aggregate.RepositoryConfig{Logger: a.cfg.Logger}
	accounts, err1 := aggregate.NewRepository(a.store, commands.AccountType(), cfg)
	customers, err2 := aggregate.NewRepository(a.store, commands.CustomerType(), cfg)
	transfers, err3 := aggregate.NewRepository(a.store, commands.TransferType(), cfg)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return []console.State{console.StateOf(accounts), console.StateOf(customers), console.StateOf(transfers)}, nil
}

// allSagas are those whose process is in this one.
func (a *App) allSagas() []console.Saga {
	all := slices.Clone(a.sagas)
	for _, b := range a.cfg.Others {
		all = append(all, b.sagas...)
	}
	return all
}

// check looks whether any money was lost or made.
func check(ctx context.Context, bank *api.API) (console.Result, error) {
	b, err := bank.Books(ctx)
	if err != nil {
		return console.Result{}, err
	}
	euros := func(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }
	text := fmt.Sprintf("%s paid in = %s in accounts + %s under way in %d transfers",
		euros(b.DepositedCents), euros(b.BalancesCents), euros(b.UnderWayCents), b.UnderWay)
	return console.Result{Holds: b.Holds, Text: text}, nil
}

// The positions of a module's switch.
const (
	runs    = "runs"
	stopped = "stopped"
	killed  = "killed"
)

// switches are what can be broken: the service that the gateway notifies, and the
// modules of this process but those that show the page.
func (a *App) switches() []console.Switch {
	var out []console.Switch
	if s := a.cfg.Service; s != nil {
		moods := make([]string, 0, len(notify.Moods()))
		for _, m := range notify.Moods() {
			moods = append(moods, string(m))
		}
		out = append(out, console.Switch{
			Name: "service", Title: "Notification service", Gateway: notify.GatewayName, Options: moods,
			Help: "Break it: it fails, does its work and loses the answer, or refuses for good. Its key makes each effect one.",
			State: func() (string, string) {
				stats := s.Stats()
				mood, broken := s.Mood()
				return string(mood), fmt.Sprintf("%d effects, %d repeats recognized by their key, %d requests broken",
					stats.Received, stats.Duplicates, broken)
			},
			Set: func(_ context.Context, option string) error {
				s.SetMood(notify.Mood(option))
				return nil
			},
		})
	}
	out = append(out, a.cfg.Switches...)
	if a.cfg.Line != nil {
		out = append(out, a.cfg.Line.asSwitch())
	}
	for _, b := range append(slices.Clone(a.cfg.Others), a) {
		for _, p := range b.parts {
			if !slices.Contains([]string{string(HTTP), string(Queries)}, p.name) {
				out = append(out, p.asSwitch())
			}
		}
	}
	return out
}

func (p *part) asSwitch() console.Switch {
	s := console.Switch{
		Name: p.name, Group: "Modules", Title: p.name, Options: []string{runs, stopped},
		State: func() (string, string) {
			switch running, dead := p.state(); {
			case running:
				return runs, ""
			case dead:
				return killed, "its connection was cut in the middle of what it did; the rest waits in the store"
			}
			return stopped, "what it would do waits in the store"
		},
		Set: func(ctx context.Context, option string) error {
			switch option {
			case runs:
				return p.start(ctx)
			case killed:
				return p.kill(ctx)
			}
			return p.stop(ctx)
		},
	}
	if p.crashes {
		s.Options = append(s.Options, killed)
	}
	return s
}
