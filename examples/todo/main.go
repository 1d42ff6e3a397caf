// Command todo is a to-do list: one aggregate, one view, bulk deletion, over HTTP.
//
//	go run ./examples/todo                                with a NATS server of its own
//	go run ./examples/todo -nats nats://127.0.0.1:4222    with yours
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/rossby-go/rossby/examples/todo/todo"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

func main() {
	listen := flag.String("http", "127.0.0.1:8080", "the `address` to serve HTTP at")
	url := flag.String("nats", "", "the `address` of your NATS; none: a server of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *listen, *url)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "todo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, listen, url string) (err error) {
	if url == "" {
		srv, err := embedded.Start(embedded.Config{Listen: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, srv.Stop()) }()
		url = srv.URL()
	}
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: url, Name: "todo"})
	if err != nil {
		return err
	}
	defer nc.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, `The list is empty. In another terminal:

  curl -X POST http://%[1]s/do/todo/milk/add -d '{"title":"Buy milk"}' -H 'Content-Type: application/json'
  curl -X POST http://%[1]s/do/todo/milk/complete -d '{}' -H 'Content-Type: application/json'
  curl http://%[1]s/todos/milk
  curl -X POST http://%[1]s/clear
  curl -N http://%[1]s/todos/ -H 'Accept: text/event-stream'

What happens is stored at %[2]s, in the stream "todo".
`, listener.Addr(), url)
	return todo.Serve(ctx, nc, "todo", listener)
}
