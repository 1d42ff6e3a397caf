// Command demo is a bank on Rossby: accounts, customers and money transfers.
//
//	go run ./cmd/demo                            everything in one process, with a server and a page
//	go run ./cmd/demo --servers 3                the same on a cluster of three, any of which may be killed
//	go run ./cmd/demo run MODULE… --nats URL     any of its modules, against your server
//	go run ./cmd/demo load --transfers 2000      drives it and checks the books
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, out, errOut io.Writer) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "run":
		return runModules(ctx, args[1:], out, errOut)
	case "server":
		return runServer(ctx, args[1:], out)
	case "load":
		return runLoad(ctx, args[1:], out, errOut)
	default:
		return runAll(ctx, args, out, errOut)
	}
}

func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
