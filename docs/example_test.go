// Package docs_test has the code of the README and of the documents beside this file.
package docs_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the documents show defaults, and they log
	natstest.VerifyTestMain(m)
}

// must is the value, or the end of the program.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// check is what must is for errors alone.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// bank opens a store on a server in this process. Programs use jetstream.Connect.
func bank(ctx context.Context) (nc *nats.Conn, store *jetstream.Store, end func()) {
	srv := must(embedded.Start(embedded.Config{LazySync: true}))
	nc = must(nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1)))
	store = must(jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"}))
	return nc, store, func() {
		nc.Close()
		check(srv.Stop())
	}
}

// running runs parts until end is called.
func running(parts ...interface {
	Run(ctx context.Context) error
}) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(parts))
	for _, part := range parts {
		go func() { done <- part.Run(ctx) }()
	}
	return func() {
		cancel()
		for range parts {
			check(<-done)
		}
	}
}

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Error(args ...any)                 { fmt.Println(args...) }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatalf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
