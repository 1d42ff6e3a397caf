package main

import (
	"context"
	"io"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/load"
	"github.com/rossby-go/rossby/jetstream"
)

// runLoad drives a running bank and checks its books.
func runLoad(ctx context.Context, args []string, out, errOut io.Writer) error {
	fs := newFlags(
		"demo load",
		"demo load [--transfers N] [--clients C] [--http URL | --nats URL | --context NAME]",
		errOut,
	)
	var where natsFlags
	where.add(fs)
	cfg := load.Config{Out: out, Store: app.StoreName, Logger: newLogger(errOut, false)}
	fs.IntVar(&cfg.Transfers, "transfers", 1000, "transfers to make")
	fs.IntVar(&cfg.Clients, "clients", 16, "clients at once")
	fs.IntVar(&cfg.Accounts, "accounts", 50, "accounts to open for them")
	fs.StringVar(&cfg.HTTP, "http", "http://127.0.0.1:8080", "base address of the HTTP API")
	if _, err := parse(fs, args); err != nil {
		return err
	}
	if where.given() {
		cc, err := where.config("load")
		if err != nil {
			return err
		}
		nc, err := jetstream.Connect(ctx, cc)
		if err != nil {
			return err
		}
		defer nc.Close()
		cfg.HTTP, cfg.NATS = "", nc
	}
	return load.Run(ctx, cfg)
}
