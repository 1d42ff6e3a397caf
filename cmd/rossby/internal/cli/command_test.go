package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.rossby("command", "ls").ends(0).says("No service takes commands")
	b.rossby("command", "send", "account", "open", "a1", "--wait", "0").ends(3).fails(`a service for type "account": not found`)
	b.service()

	b.until(words("command ls"), "account  open", "Cents:integer")
	natstest.Eventually(t, "the service answers in time", func() error {
		if r := b.rossby("command", "ls", "acount").ends(3); !strings.Contains(r.err, "did you mean account?") {
			return errors.New(r.err)
		}
		return nil
	})
	var rows []struct {
		Command string
		Creates bool
		Schema  json.RawMessage
	}
	b.until(words("command ls account"), "account")
	b.rossby("command", "ls", "account", "--json").ends(0).decode(&rows)
	if len(rows) != 2 || rows[1].Command != "open" || !rows[1].Creates || !strings.Contains(string(rows[1].Schema), "properties") {
		t.Errorf("%+v", rows)
	}

	b.rossby("command", "send", "account", "open", "a1", `{"Cents":700}`, "--id", "mine", "--meta", "by=ada").ends(0).
		says("account/a1 is at version 1", "opened", `{"Cents":700}`, "Command id:  mine")
	b.rossby("command", "send", "account", "open", "a1", `{"Cents":700}`, "--id", "mine").ends(0).says("had happened before")
	b.rossby("command", "send", "account", "open", "a1", `{"Cents":701}`, "--id", "mine").ends(6)
	b.rossby("command", "send", "account", "open", "a1", `{"Cents":700}`).ends(6).fails("exists")
	b.rossby("events", "show", "2").ends(0).says("by=ada", "Command id:  mine")
	b.in = `{"Cents":100}`
	var got struct {
		ID      string
		Version int
		Events  []struct{ Name string }
	}
	b.rossby("command", "send", "account", "debit", "a1", "-", "--json").ends(0).decode(&got)
	if got.ID != "a1" || got.Version != 2 || len(got.Events) != 1 || got.Events[0].Name != "debited" {
		t.Errorf("%+v", got)
	}
	b.rossby("command", "send", "account", "debit", "a1", `{"Cents":9999}`).ends(6).fails("insufficient-funds: the balance is 600")
	b.rossby("command", "send", "account", "debit", "a1", `{"Cents":1}`, "--expect-version", "0").ends(6).fails("version")
	b.rossby("command", "send", "account", "debit", "a1", `{"Cents":1}`, "--expect-version", "2").ends(0)
	b.rossby("command", "send", "account", "debit", "a2", `{"Cents":1}`).ends(3).fails("not found")
	b.rossby("command", "send", "account", "debit", "a1", `{"Sense":1}`).ends(2).fails("Sense")
	b.rossby("command", "send", "account", "debt", "a1", "--wait", natstest.Patience.String()).ends(3).fails("did you mean debit?")
	b.rossby("command", "send", "account", "open", "--new", `{"Cents":5}`, "--json").ends(0).decode(&got)
	if jetstream.ValidateID(got.ID) != nil || got.ID == "a1" {
		t.Errorf("%+v", got)
	}
}

// TestCommandWaits: a service that starts a moment later gets the command; one that never
// does is missed when the wait is over.
func TestCommandWaits(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.rossby("command", "send", "account", "open", "a1", "--wait", "300ms").ends(3).fails(`a service for type "account"`)
	sent := make(chan result, 1)
	looked, err := b.nc.SubscribeSync("$SRV.INFO")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	go func() {
		sent <- b.rossby("command", "send", "account", "open", "a1", `{"Cents":7}`, "--wait", natstest.Patience.String())
	}()
	if _, err := looked.NextMsgWithContext(t.Context()); err != nil { // it asks who is there: nobody
		t.Fatal(err)
	}
	b.service()
	(<-sent).ends(0).says("account/a1 is at version 1")
}

// TestCommandOutcomes: a lost answer is asked for again with the same id; one that never
// comes is an unknown outcome; one that is no answer is an error.
func TestCommandOutcomes(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	ids := make(chan string, 100)
	sub, err := b.nc.Subscribe("bank.command.account.lose.*", func(m *nats.Msg) {
		ids <- m.Header.Get("Rossby-Command-Id")
		if len(ids) > 1 {
			_ = m.Respond([]byte(`{"id":"a1","version":3,"position":"","events":[]}`))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{}, 100)
	if _, err := b.nc.Subscribe("bank.command.account.hold.*", func(*nats.Msg) { held <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.nc.Subscribe("bank.command.account.break.*", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"500"}, "Nats-Service-Error": {"oops"}}})
	}); err != nil {
		t.Fatal(err)
	}
	refusal := make(chan string, 100)
	for command, later := range map[string]string{"refuse": "not-found", "balk": "invalid"} {
		asked := 0
		if _, err := b.nc.Subscribe("bank.command.account."+command+".*", func(m *nats.Msg) {
			kind := later
			if asked++; asked == 1 {
				kind = "unknown"
			} else if command == "refuse" {
				refusal <- m.Header.Get("Rossby-Record-Rejections")
			}
			_ = m.RespondMsg(&nats.Msg{
				Header: nats.Header{"Nats-Service-Error-Code": {"4xx"}, "Nats-Service-Error": {kind}},
				Data:   []byte(`{"kind":"` + kind + `","reason":"so"}`),
			})
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	// An attempt that is still on its way must find the refusal of a later one.
	b.rossby("command", "send", "account", "refuse", "a1").ends(3)
	if recorded := <-refusal; recorded != "true" {
		t.Errorf("the refusal is to be recorded: %q", recorded)
	}
	// What is no outcome says nothing of the attempts before.
	b.rossby("command", "send", "account", "balk", "a1", "--timeout", "300ms").ends(7).fails("it may have happened")
	b.rossby("command", "send", "account", "lose", "a1").ends(0).says("account/a1 is at version 3")
	if first, second := <-ids, <-ids; first != second || first == "" {
		t.Errorf("sent as %q, then as %q", first, second)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	b.rossby("command", "send", "account", "hold", "a1", "--id", "i1", "--timeout", "300ms").ends(7).
		fails("it may have happened", "--id i1")
	b.rossby("command", "send", "account", "break", "a1").ends(1).fails("oops")

	// An interrupt while it is on its way.
	for len(held) > 0 {
		<-held
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-held
		cancel()
	}()
	b.rossbyIn(ctx, "command", "send", "account", "hold", "a1").ends(7)
}

// TestBench: it measures all three, and leaves nothing behind.
func TestBench(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	var rows []struct {
		Name  string
		N     int
		Ours  float64 `json:"oursMicros"`
		Raw   float64 `json:"rawMicros"`
		Ratio float64
	}
	b.rossby("bench", "-n", "20", "--json").ends(0).decode(&rows)
	if len(rows) != 3 {
		t.Fatalf("%+v", rows)
	}
	for i, name := range []string{"append", "load", "command"} {
		if r := rows[i]; r.Name != name || r.N != 20 || r.Ours <= 0 || r.Raw <= 0 || r.Ratio <= 0 {
			t.Errorf("%+v", r)
		}
	}
	js, err := b.nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames() {
		if strings.Contains(name, "bench") {
			t.Errorf("stream %q is left", name)
		}
	}
}
