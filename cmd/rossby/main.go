// Command rossby looks after event stores, views and followers from a terminal,
// and begins new services. docs/cli.md is its manual.
//
//	go install github.com/rossby-go/rossby/cmd/rossby@latest
//	rossby store ls
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/rossby-go/rossby/cmd/rossby/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once: what it would wait for may hang.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], cli.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, InTerminal: terminal(os.Stdin), ErrTerminal: terminal(os.Stderr),
	})
	stop()
	os.Exit(code)
}

func terminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
