package aggregate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// publish sends a command without waiting for its reply.
func publish(t testing.TB, nc *nats.Conn, subject, inbox, body string) {
	t.Helper()
	if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Data: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func replies(t testing.TB, nc *nats.Conn) (inbox string, next func() *nats.Msg) {
	t.Helper()
	inbox = nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	return inbox, func() *nats.Msg {
		t.Helper()
		m, err := sub.NextMsg(natstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// What waits for one aggregate is decided in the order it came, and stored
// together, however few aggregates may run at once.
func TestServiceLetsCommandsWaitTogether(t *testing.T) { // C48
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	entered, gate := make(chan int, 1000), make(chan struct{})
	repo := repoOf(t, store, newGated(entered, gate))
	must(t, repo, "a", begin{})
	run(t, newService(t, repo, aggregate.ServiceConfig{Workers: 1}))
	command := store.Name() + ".command.gated."
	request(t, nc, command+"enter.a", "{}", nil) // it listens
	inbox, next := replies(t, nc)
	const n = 200
	publish(t, nc, command+"pass.a", inbox, `{"n":1}`)
	received(t, entered)
	for i := 2; i <= n; i++ {
		publish(t, nc, command+"pass.a", inbox, `{"n":`+strconv.Itoa(i)+`}`)
	}
	natstest.Eventually(t, "all of them wait in the repository", func() error {
		if waiting := repo.Stats().Waiting; waiting != n-1 {
			return fmt.Errorf("%d wait", waiting)
		}
		return nil
	})
	before := repo.Stats().Commits
	close(gate)
	for range n {
		ok(t, next())
	}
	snap, err := repo.Load(t.Context(), "a")
	if err != nil || snap.Version != n+1 {
		t.Fatal(snap.Version, err)
	}
	for i, got := range snap.State.N {
		if got != i {
			t.Fatalf("%d stands in place %d", got, i)
		}
	}
	if commits := repo.Stats().Commits - before; commits > n/10 {
		t.Errorf("%d commits for %d commands", commits, n)
	}
}

// A handler that does not return costs its own aggregate and nothing else: its
// caller is told, others are served even where only one may run, and a stop ends. Times
// grow until they are long enough for this machine.
func TestServiceOutlivesAHandler(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	entered, gate := make(chan int, 100), make(chan struct{})
	t.Cleanup(func() { close(gate) })
	repo := repoOf(t, store, newGated(entered, gate))
	must(t, repo, "a", begin{})
	stop := run(t, newService(t, repo, aggregate.ServiceConfig{Workers: 1}))
	command := store.Name() + ".command.gated."
	request(t, nc, command+"enter.a", "{}", nil) // it listens
	send := func(command string, timeout time.Duration) chan *nats.Msg {
		answer := make(chan *nats.Msg, 1)
		go func() { answer <- request(t, nc, command, "{}", h("Rossby-Timeout", timeout.String())) }()
		return answer
	}
	var blocked chan *nats.Msg
	given := 10 * time.Millisecond
	natstest.Eventually(t, "a handler begins in its time", func() error {
		given *= 2
		blocked = send(command+"pass.a", given)
		select {
		case <-entered:
			return nil
		case m := <-blocked:
			if code, _, _, _ := errorOf(t, m); code == "504" { // it has begun, and was given up
				blocked <- m
				return nil
			}
			return fmt.Errorf("within %v: %s", given, m.Data)
		}
	})
	other := send(command+"enter.b", natstest.Patience) // waits for a worker
	// The one behind it hears at its own deadline that nothing was done; half a second
	// later nobody could be sure.
	natstest.Eventually(t, "the one behind it hears in time", func() error {
		given *= 2
		m := received(t, send(command+"pass.a", given))
		code, kind, _, reason := errorOf(t, m)
		if code == "504" && strings.Contains(reason, "does not return") {
			return errors.New(reason)
		}
		if code != "503" || kind != "unavailable" {
			t.Error(code, kind, reason)
		}
		return nil
	})
	// The handler is given up, and the one for b has its worker.
	if code, kind, _, reason := errorOf(t, received(t, blocked)); code != "504" || kind != "unknown" || !strings.Contains(reason, "does not return") {
		t.Error(code, kind, reason)
	}
	if r := ok(t, received(t, other)); r.Version != 1 {
		t.Errorf("%+v", r)
	}
	stop()
}

// What a service counts, and tells to whoever asks NATS for its statistics.
func TestServiceStats(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	s := newService(t, repo, aggregate.ServiceConfig{})
	run(t, s)
	received(t, s.Ready())
	command := store.Name() + ".command.account."
	ok(t, request(t, nc, command+"open.a", `{"cents":1}`, nil))
	request(t, nc, command+"debit.a", `{"cents":5}`, nil) // rejected
	request(t, nc, command+"debit.b", `{"cents":5}`, nil) // not found
	request(t, nc, command+"debit.a", `{"cent":5}`, nil)  // invalid
	var stats aggregate.ServiceStats
	natstest.Eventually(t, "what was taken is counted", func() error { // perhaps after the answer
		if stats = s.Stats(); stats.Taken != 4 {
			return fmt.Errorf("%+v", stats)
		}
		return nil
	})
	if stats.Refused != 2 || stats.Failed != 1 || stats.Busy != 0 || stats.Overdue != 0 || stats.Waiting != 0 || stats.Lately <= 0 {
		t.Errorf("%+v", stats)
	}
	var told struct {
		Endpoints []struct {
			Data aggregate.ServiceStats `json:"data"`
		} `json:"endpoints"`
	}
	m := request(t, nc, "$SRV.STATS."+store.Name()+"-account", "", nil)
	if err := json.Unmarshal(m.Data, &told); err != nil || len(told.Endpoints) == 0 || told.Endpoints[0].Data != stats {
		t.Errorf("%s %v", m.Data, err)
	}
}

func TestServiceBusySaysWhen(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	entered, gate := make(chan int, 10), make(chan struct{})
	repo := repoOf(t, store, newGated(entered, gate))
	must(t, repo, "a", begin{})
	service := newService(t, repo, aggregate.ServiceConfig{QueuePerID: 1})
	run(t, service)
	command := store.Name() + ".command.gated."
	request(t, nc, command+"enter.a", "{}", nil) // it listens
	inbox, next := replies(t, nc)
	publish(t, nc, command+"pass.a", inbox, `{"n":1}`)
	received(t, entered)
	publish(t, nc, command+"pass.a", inbox, `{"n":2}`)
	var b struct {
		Kind       string `json:"kind"`
		Reason     string `json:"reason"`
		RetryAfter string `json:"retryAfter"`
	}
	if err := json.Unmarshal(next().Data, &b); err != nil {
		t.Fatal(err)
	}
	after, err := time.ParseDuration(b.RetryAfter)
	if b.Kind != "busy" || !strings.Contains(b.Reason, "for the aggregate") || err != nil || after <= 0 || after > 2*time.Second {
		t.Errorf("%+v %v", b, err)
	}
	if busy := service.Stats().Busy; busy != 1 {
		t.Error(busy)
	}
	// A client waits it out.
	done := make(chan error, 1)
	go func() {
		_, err := clientOf(t, nc, store.Name(), newGated(entered, gate)).Execute(t.Context(), "a", pass{3})
		done <- err
	}()
	close(gate)
	ok(t, next())
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type (
	// order is a command with most of what a command may have.
	order struct {
		Lines []struct {
			SKU   string `json:"sku"`
			Count uint16 `json:"count"`
		} `json:"lines"`
		Due   *time.Time        `json:"due,omitempty"`
		Notes map[string]string `json:"notes,omitempty"`
	}
	ordered struct{}
	orders  struct{}
)

// The endpoints tell what they take: a validator of others, given the schema,
// agrees with the service about what is right.
func TestServiceDescribesItsCommands(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	typ := aggregate.New[orders](jetstream.NewSchema("orders", jetstream.Event[ordered]("ordered")),
		aggregate.Ignore[ordered](),
		aggregate.Create("order", func(order, aggregate.Decision) ([]any, error) { return []any{ordered{}}, nil }),
		aggregate.RenamedCommand("place", "order"),
	)
	run(t, newService(t, repoOf(t, store, typ), aggregate.ServiceConfig{}))
	request(t, nc, store.Name()+".command.orders.order.a", "[]", nil) // it listens
	var info micro.Info
	if err := json.Unmarshal(request(t, nc, "$SRV.INFO."+store.Name()+"-orders", "", nil).Data, &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Endpoints) != 2 {
		t.Fatalf("%+v", info)
	}
	for _, e := range info.Endpoints {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(e.Metadata["schema"])))
		if err != nil || e.Metadata["creates"] != "true" {
			t.Fatalf("%+v %v", e, err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("mem:///command.json", doc); err != nil {
			t.Fatal(err)
		}
		schema, err := c.Compile("mem:///command.json")
		if err != nil {
			t.Fatal(err)
		}
		for i, body := range []string{
			`{}`, `{"lines":[{"sku":"a","count":2},{}],"due":"2026-05-04T03:02:01Z","notes":{"a":"b"}}`, `{"lines":null,"due":null}`,
			`{"lines":[{"sku":"a","count":-1}]}`, `{"lines":{}}`, `{"due":"soon"}`, `{"notes":{"a":1}}`, `{"line":[]}`, `[]`,
		} {
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			invalid := schema.Validate(value)
			m := request(t, nc, strings.Replace(e.Subject, "*", fmt.Sprint(e.Name, i), 1), body, nil)
			if code, _, _, reason := errorOf(t, m); (code == "400") != (invalid != nil) || code != "" && code != "400" {
				t.Errorf("%s: the service says %s %s, the schema %v", body, code, reason, invalid)
			}
		}
	}
}

// TestWaitingCommandsAreAnswered: a command that waits for a place is answered when its
// time is over, and does not begin any more.
func TestWaitingCommandsAreAnswered(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	block, blocked := make(chan struct{}), make(chan struct{})
	type wait struct{}
	repo := repoOf(t, store, newAccounts(aggregate.Handle("wait", func(account, wait, aggregate.Decision) ([]any, error) {
		close(blocked)
		<-block
		return []any{credited{7}}, nil
	})))
	must(t, repo, "a1", open{100})
	must(t, repo, "a2", open{100})
	run(t, newService(t, repo, aggregate.ServiceConfig{Workers: 1, Timeout: time.Hour}))
	request(t, nc, store.Name()+".command.account.credit.absent", `{"cents":1}`, nil) // it listens
	release := sync.OnceFunc(func() { close(block) })
	t.Cleanup(release)
	done := make(chan *nats.Msg, 1)
	go func() { done <- request(t, nc, store.Name()+".command.account.wait.a1", "{}", nil) }()
	<-blocked
	resp := request(t, nc, store.Name()+".command.account.credit.a2", `{"cents":5}`, nats.Header{"Rossby-Timeout": {"50ms"}})
	if code, kind, _, reason := errorOf(t, resp); kind != "unavailable" {
		t.Errorf("%s %s: %s", code, kind, reason)
	}
	release()
	if resp := <-done; resp.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("%s", resp.Data)
	}
	must(t, repo, "a1", debit{1})
	balance(t, newRepo(t, store), "a1", 106, 3)
	balance(t, newRepo(t, store), "a2", 100, 1)
}
