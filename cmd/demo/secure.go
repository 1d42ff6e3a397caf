package main

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
	"github.com/rossby-go/rossby/cmd/demo/internal/traces"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// secureUsers is a user for each module, with the roles that the module needs and
// no others.
func secureUsers() []roles.User {
	const account, customer, transfer = "account", "customer", "transfer"
	all := []string{account, customer, transfer, opening.Name}
	allViews := []string{views.AccountsName, views.CustomersName, views.TransfersName, views.LedgerName}
	queries, admins := make([]roles.Role, 0, len(allViews)), make([]roles.Role, 0, len(allViews))
	for _, v := range allViews {
		queries = append(queries, roles.Role{Kind: roles.Query, Name: v})
		admins = append(admins, roles.Role{Kind: roles.ProjectionAdmin, Name: v})
	}
	projection := func(view string) []roles.Role {
		return []roles.Role{{Kind: roles.Projection, Name: view, Makes: true}}
	}
	byModule := map[app.Module][]roles.Role{
		app.AccountCommands:  {{Kind: roles.Command, Name: account, Makes: true}},
		app.CustomerCommands: {{Kind: roles.Command, Name: customer, Makes: true}},
		app.TransferCommands: {{Kind: roles.Command, Name: transfer, Makes: true}},
		app.TransferProcess: {
			{Kind: roles.Reactor, Name: commands.ReactorName, Types: []string{account, transfer}, Makes: true},
			{Kind: roles.Timers, Types: []string{transfer}, Makes: true},
		},
		app.AccountOpening: {{Kind: roles.Saga, Name: opening.Name, Types: []string{account}, Makes: true}},
		app.AccountView:    projection(views.AccountsName),
		app.CustomerView:   projection(views.CustomersName),
		app.TransferView:   projection(views.TransfersName),
		app.LedgerView:     projection(views.LedgerName),
		app.Queries:        queries,
		app.Notifications:  {{Kind: roles.Gateway, Name: notify.GatewayName, Types: []string{transfer}, Makes: true}},
		// The page shows everything, and its console administers it.
		app.HTTP: append(append([]roles.Role{
			{Kind: roles.Client, Types: all, Views: allViews}, {Kind: roles.Console, Views: allViews},
			{Kind: roles.FollowersAdmin},
		}, queries...), admins...),
	}
	users := make([]roles.User, 0, len(byModule))
	for _, m := range app.Modules() {
		u := roles.User{Name: string(m), Roles: byModule[m]}
		for i := range u.Roles {
			u.Roles[i].Store = app.StoreName
		}
		users = append(users, u)
	}
	return users
}

// openBank gives the bank's parts: one that is all of it on one connection, or, of
// a server with users, one for each module on a connection of its own, the last of
// which is the page's.
func openBank(
	ctx context.Context, srv *natsServers, secure bool, cfg app.Config,
) (banks []*app.App, end func(), err error) {
	var conns []*nats.Conn
	end = func() {
		for _, nc := range conns {
			nc.Close()
		}
	}
	open := func(cc jetstream.ConnectConfig, modules ...app.Module) error {
		cc.Logger = cfg.Logger
		nc, err := jetstream.Connect(ctx, cc)
		if err != nil {
			return err
		}
		conns = append(conns, nc)
		own := cfg
		own.Conn, own.Modules = nc, modules
		own.ViewsOnly = secure && modules[0] == app.Queries
		own.Others = banks
		bank, err := app.New(ctx, own)
		if err != nil {
			return err
		}
		banks = append(banks, bank)
		return nil
	}
	if !secure {
		cc := jetstream.ConnectConfig{URL: srv.url, Name: "rossby-demo"}
		if srv.one != nil {
			cc.Options = []nats.Option{srv.one.Option()}
		}
		return banks, end, open(cc, app.Modules()...)
	}
	cfg.Recorder = traces.NewRecorder() // no user may send spans
	for _, m := range app.Modules() {
		cc, err := srv.one.ConnectConfig(string(m))
		if err != nil {
			return banks, end, err
		}
		if err := open(cc, m); err != nil {
			return banks, end, fmt.Errorf("module %s: %w", m, err)
		}
	}
	return banks, end, nil
}
