package cli_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestCluster: what a person does with a store and its modules works on three servers
// as on one, also right after their leaders have resigned.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t)
	b := newBankAt(t, strings.Join(cluster.URLs(), ","), 3)
	b.service()
	b.view()
	b.gateway()
	for _, url := range cluster.URLs() { // a command goes to any of them, which have to know the service
		known(t, b.nc, url)
	}
	send := func(args ...string) result {
		return b.rossby(append([]string{"command", "send", "account"}, args...)...)
	}

	send("open", "a1", `{"Cents":700}`).ends(0).says("account/a1 is at version 1")
	cluster.StepDown(t, "bank")
	send("debit", "a1", `{"Cents":17}`).ends(0).says("account/a1 is at version 2")
	send("debit", "a1", `{"Cents":9999}`).ends(6).fails("insufficient-funds")
	b.rossby("aggregate", "show", "account/a1").ends(0).says("Version:    2", `State after it: {"Cents":683}`)
	b.rossby("aggregate", "at", "account/a1", "--version", "1").ends(0).says(`{"Cents":700}`)
	b.rossby("aggregate", "history", "account/a1").ends(0).says("v1  opened", "v2  debited")
	b.rossby("events", "tail", "--no-follow", "-n", "1").ends(0).says("v2  debited")

	b.rossby("store", "info").ends(0).says("3")
	b.rossby("store", "verify").ends(0).says("0 faults")
	b.rossby("store", "durability", "--require", "quorum-lazy").ends(0)
	file := filepath.Join(t.TempDir(), "bank.archive")
	b.rossby("store", "export", file, "--store", "bank").ends(0)
	b.rossby("store", "import", file, "--store", "copy", "--replicas", "3", "--compare").ends(0).says("0 differences")

	at, err := b.store.LastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	get := []string{"view", "get", "accounts", "a1", "--store", "bank", "--at-least", at.String()}
	b.rossby(get...).ends(0)
	cluster.StepDown(t, "KV_bank_accounts")
	b.rossby("view", "rebuild", "accounts", "--store", "bank").ends(0).says("generation 2 has caught up")
	b.rossby("view", "compare", "accounts", "1", "2", "--store", "bank").ends(0).says("0 differences")
	b.rossby("view", "switch", "accounts", "2", "--store", "bank", "--yes").ends(0)
	b.rossby(get...).ends(0).says(`{"cents":683}`)

	natstest.Eventually(t, "it is parked", func() error {
		if r := b.rossby("parked", "ls", "letters", "--store", "bank"); !strings.Contains(r.out, "no such address") {
			return errors.New(r.out + r.err)
		}
		return nil
	})
	b.rossby("follower", "ls", "--store", "bank").ends(0).says("letters")
	discard(b, "letters", "account/a1", "no address")
	b.until(words("parked ls --store bank"), "Nothing is parked")
}

// known waits until a server has heard of what a connection to another one listens to:
// it hears of it in the same order, some time later.
func known(t *testing.T, nc *nats.Conn, url string) {
	t.Helper()
	sub, err := nc.Subscribe(nats.NewInbox(), func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		t.Fatal(err)
	}
	from := natstest.Conn(t, url)
	natstest.Retry(t, "the server knows the service", func(ctx context.Context) error {
		_, err := from.RequestWithContext(ctx, sub.Subject, nil)
		return err
	})
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
}
