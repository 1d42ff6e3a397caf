package app

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/api"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/projection"
)

// Followers asks the servers how far each follower of the bank is, wherever it
// runs. Followers that never ran are left out.
func (a *App) Followers(ctx context.Context) ([]api.Follower, error) {
	var out []api.Follower
	for _, view := range []string{views.AccountsName, views.CustomersName, views.TransfersName, views.LedgerName} {
		s, err := projection.ReadStatus(ctx, a.cfg.Conn, StoreName, view)
		if errors.Is(err, projection.ErrViewNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f := api.Follower{
			Name: view, Kind: api.KindView, State: string(s.State), Owner: s.Owner,
			Position: s.Position.String(), Head: s.Head.String(),
			Lag: s.Lag, LagSeconds: s.Behind.Seconds(), LastError: s.Error,
		}
		out = append(out, f)
	}
	timers, openingTimers := aggregate.TimersName(a.Transfers.TypeName()), aggregate.TimersName(a.Openings.TypeName())
	for _, r := range []struct {
		name string
		kind string
		read func() (aggregate.Status, error)
	}{
		{commands.ReactorName, api.KindReactor, func() (aggregate.Status, error) {
			return aggregate.ReadStatus(ctx, a.store, commands.ReactorName)
		}},
		{timers, api.KindTimers, func() (aggregate.Status, error) {
			return aggregate.ReadStatus(ctx, a.store, timers)
		}},
		{opening.Name, api.KindReactor, func() (aggregate.Status, error) {
			return aggregate.ReadStatus(ctx, a.store, opening.Name)
		}},
		{openingTimers, api.KindTimers, func() (aggregate.Status, error) {
			return aggregate.ReadStatus(ctx, a.store, openingTimers)
		}},
		{notify.GatewayName, api.KindGateway, func() (aggregate.Status, error) {
			return gateway.ReadStatus(ctx, a.store, notify.GatewayName)
		}},
	} {
		s, err := r.read()
		if errors.Is(err, aggregate.ErrNeverRan) || errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f := api.Follower{
			Name: r.name, Kind: r.kind, State: string(s.State), Owner: s.Owner, Position: a.store.Position(s.Position).String(),
			Head: a.store.Position(s.Head).
				String(),
			Lag: s.Lag, LagSeconds: s.LagTime.Seconds(), Blocked: len(s.Blocked),
		}
		for _, l := range s.Blocked {
			f.LastError = l.Error
		}
		out = append(out, f)
	}
	return out, nil
}
