// Command queryonly is a program that holds one view query and nothing else: it
// prints an account from the view as JSON. A test checks what it links.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

type account struct {
	AccountID    string `json:"accountId"`
	BalanceCents int64  `json:"balanceCents"`
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "queryonly:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: queryonly NATS-URL ACCOUNT-ID")
	}
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: args[0]})
	if err != nil {
		return err
	}
	defer nc.Close()
	accounts, err := projection.NewReader[account](ctx, nc, "bank", "accounts", projection.ReaderConfig{})
	if err != nil {
		return err
	}
	entry, err := accounts.Get(ctx, args[1])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(entry.Value)
}
