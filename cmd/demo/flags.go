package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/rossby-go/rossby/jetstream"
)

// parse reads flags that may stand between the arguments, and returns the
// arguments.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest = append(rest, args[0])
		args = args[1:]
	}
}

func newFlags(name, synopsis string, out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		_, _ = fmt.Fprintf(out, "usage: %s\n\n", synopsis)
		fs.PrintDefaults()
	}
	return fs
}

// natsFlags are how a process that joins an existing server reaches it.
type natsFlags struct{ url, context, creds string }

func (n *natsFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&n.url, "nats", "", "address of the NATS server or cluster, comma separated")
	fs.StringVar(&n.context, "context", "", "name of a context of the nats CLI")
	fs.StringVar(&n.creds, "creds", "", "credentials file")
}

func (n *natsFlags) given() bool { return n.url != "" || n.context != "" }

func (n *natsFlags) config(name string) (jetstream.ConnectConfig, error) {
	if !n.given() {
		return jetstream.ConnectConfig{}, errors.New(
			"say where NATS is: --nats nats://127.0.0.1:4222, or --context NAME",
		)
	}
	return jetstream.ConnectConfig{
		URL:     n.url,
		Context: n.context,
		Creds:   n.creds,
		Name:    strings.TrimSpace("rossby-demo " + name),
	}, nil
}
