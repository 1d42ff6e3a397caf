package aggregate_test

import (
	"cmp"
	"context"
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

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// newService gives a service that lets commands take their time.
func newService[S any](t testing.TB, repo *aggregate.Repository[S], cfg aggregate.ServiceConfig) *aggregate.Service {
	t.Helper()
	cfg.Logger, cfg.Timeout = quiet, cmp.Or(cfg.Timeout, natstest.Patience)
	s, err := aggregate.NewService(repo, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// request sends a raw command, once a service listens.
func request(t testing.TB, nc *nats.Conn, subject, body string, header nats.Header) *nats.Msg {
	t.Helper()
	var resp *nats.Msg
	natstest.Eventually(t, "an answer on "+subject, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
		defer cancel()
		var err error
		resp, err = nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: []byte(body)})
		return err
	})
	if resp == nil {
		t.FailNow()
	}
	return resp
}

// errorOf reads an error reply: the headers of the micro protocol and the body.
func errorOf(t testing.TB, m *nats.Msg) (code, kind, sub, reason string) {
	t.Helper()
	var b struct {
		Kind   string `json:"kind"`
		Code   string `json:"code"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(m.Data, &b); err != nil && m.Header.Get(micro.ErrorCodeHeader) != "" {
		t.Fatalf("%q: %v", m.Data, err)
	}
	return m.Header.Get(micro.ErrorCodeHeader), b.Kind, b.Code, b.Reason
}

// gated is a type whose commands wait until the test lets them go.
type (
	passed struct{ N int }
	passes struct{ N []int }
	pass   struct{ N int }
)

func newGated(entered chan<- int, gate <-chan struct{}) *aggregate.Type[passes] {
	return aggregate.New[passes](jetstream.NewSchema("gated", jetstream.Event[passed]("passed")),
		aggregate.Apply(func(p *passes, e passed, _ jetstream.Meta) { p.N = append(p.N, e.N) }),
		aggregate.Create("enter", func(begin, aggregate.Decision) ([]any, error) { return []any{passed{0}}, nil }),
		aggregate.Handle("pass", func(_ passes, c pass, _ aggregate.Decision) ([]any, error) {
			entered <- c.N
			<-gate
			return []any{passed(c)}, nil
		}),
	)
}

func TestServiceOrderBoundsAndStop(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	entered, gate := make(chan int, 100), make(chan struct{})
	typ := newGated(entered, gate)
	repo := repoOf(t, store, typ)
	must(t, repo, "a", begin{})
	must(t, repo, "b", begin{})
	must(t, repo, "c", begin{})
	service := newService(t, repo, aggregate.ServiceConfig{Workers: 2, Queue: 5, QueuePerID: 3})
	stop := run(t, service)
	command := store.Name() + ".command.gated."
	request(t, nc, command+"enter.a", "{}", nil) // it listens

	inbox := nc.NewRespInbox()
	replies, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	send := func(id string, n int) {
		msg := nats.NewMsg(command + "pass." + id)
		msg.Reply, msg.Data = inbox, []byte(`{"n":`+strconv.Itoa(n)+`}`)
		if err := nc.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	next := func() *nats.Msg {
		t.Helper()
		m, err := replies.NextMsg(natstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	busy := func() {
		t.Helper()
		if code, kind, _, _ := errorOf(t, next()); code != "429" || kind != "busy" {
			t.Fatal(code, kind)
		}
	}
	// One runs, two wait, the fourth is too many for one aggregate.
	for n := range 4 {
		send("a", n+1)
	}
	busy()
	if n := <-entered; n != 1 {
		t.Fatal(n)
	}
	// Another aggregate runs beside it; a third waits for a worker; then all is full.
	send("b", 1)
	if n := <-entered; n != 1 {
		t.Fatal(n)
	}
	send("c", 1)
	send("d", 1)
	busy()
	select {
	case n := <-entered:
		t.Fatal("a third at once", n)
	default:
	}
	// A stop answers what was taken, and what is on its way still.
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	close(gate)
	for range 5 {
		if code, _, _, reason := errorOf(t, next()); code != "" {
			t.Error(code, reason)
		}
	}
	<-stopped
	snap, err := repo.Load(t.Context(), "a")
	if err != nil || fmt.Sprint(snap.State.N) != "[0 1 2 3]" {
		t.Fatal(snap, err)
	}
}

// Requests that had arrived when the service was told to stop are executed, not
// turned away.
func TestServiceStopsBetweenNoRequests(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	nc := natstest.Conn(t, srv.URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{0})
	caller := natstest.Conn(t, srv.URL())
	client := newClient(t, caller, store)
	const rounds, callers, each = 3, 8, 10
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds * each {
				if _, err := client.Execute(t.Context(), "a1", credit{1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	// Instances come and go while commands flow; there is always one.
	stop := run(t, newService(t, repo, aggregate.ServiceConfig{}))
	for running := true; running; {
		before := stop
		stop = run(t, newService(t, newRepo(t, reopen(t, natstest.Conn(t, srv.URL()), store)), aggregate.ServiceConfig{}))
		before()
		select {
		case <-done:
			running = false
		default:
		}
	}
	balance(t, repo, "a1", rounds*callers*each, rounds*callers*each+1)
}

// lateCommand gives a command so much time, and lets its handler return when that is over.
// The error says that it was over too soon, or for too long, to tell anything.
func lateCommand(t *testing.T, nc *nats.Conn, given time.Duration) error {
	t.Helper()
	store := newStore(t, nc, jetstream.Config{})
	entered, gate := make(chan int, 1), make(chan struct{})
	repo := repoOf(t, store, newGated(entered, gate))
	stop := run(t, newService(t, repo, aggregate.ServiceConfig{}))
	release := sync.OnceFunc(func() { close(gate) })
	defer func() {
		release()
		stop()
	}()
	must(t, repo, "a", begin{})
	request(t, nc, store.Name()+".command.gated.enter.a", "{}", nil)
	done := make(chan *nats.Msg, 1)
	go func() {
		done <- request(t, nc, store.Name()+".command.gated.pass.a", `{"n":1}`, nats.Header{"Rossby-Timeout": {given.String()}})
	}()
	select {
	case <-entered:
	case m := <-done:
		return fmt.Errorf("it did not begin: %s", m.Data)
	}
	<-time.After(given + 50*time.Millisecond)
	release()
	code, kind, _, reason := errorOf(t, received(t, done))
	if code == "504" { // that nobody had noticed yet, or for too long
		return errors.New(reason)
	}
	if code != "503" || kind != "unavailable" {
		t.Error(code, kind, reason)
	}
	if snap, err := repo.Load(t.Context(), "a"); err != nil || snap.Version != 1 {
		t.Error(snap, err)
	}
	return nil
}

// The caller's time bounds the command; a reply too large comes without events.
func TestServiceLimits(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	given := time.Millisecond
	natstest.Eventually(t, "a command's time is over while it runs", func() error {
		given *= 2
		return lateCommand(t, nc, given)
	})

	store := newStore(t, nc, jetstream.Config{})
	big := repoOf(t, store, newNotes())
	run(t, newService(t, big, aggregate.ServiceConfig{}))
	must(t, big, "n1", begin{})
	client, err := aggregate.NewClient(nc, store.Name(), newNotes(), aggregate.ClientConfig{Codec: jetstream.JSON})
	if err != nil {
		t.Fatal(err)
	}
	// Quotes take two bytes in the JSON of a reply, one in the commit.
	times := int(nc.MaxPayload()) * 3 / 5
	res := must(t, client, "n1", shout{`"`, times}, aggregate.Metadata(map[string]string{"k": "v"}))
	if res.Version != 2 || res.ID != "n1" || res.Position != store.Position(head(t, store)) || res.Events != nil {
		t.Fatal(res.ID, res.Version, res.Position, len(res.Events))
	}
}

func TestConfigurationsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	_, err := aggregate.NewService(repo, aggregate.ServiceConfig{Queue: -1, QueuePerID: -1, Workers: -1, Timeout: -1})
	for _, field := range []string{"Queue", "QueuePerID", "Workers", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Error(err)
		}
	}
	if _, err := aggregate.NewService[account](nil, aggregate.ServiceConfig{}); err == nil {
		t.Error("a nil repository")
	}
	_, err = aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{CacheBytes: -1, MaxAttempts: -1})
	if err == nil || !strings.Contains(err.Error(), "CacheBytes") || !strings.Contains(err.Error(), "MaxAttempts") {
		t.Error(err)
	}
	if _, err := aggregate.NewRepository(nil, accounts, aggregate.RepositoryConfig{}); err == nil {
		t.Error("a nil store")
	}
	if _, err := aggregate.NewClient(nc, "No Name", accounts, aggregate.ClientConfig{}); err == nil {
		t.Error("a bad store name")
	}
	_, err = aggregate.NewClient(nc, "bank", accounts, aggregate.ClientConfig{AttemptTimeout: -1, Codec: 9, Timeout: -1})
	if err == nil || !strings.Contains(err.Error(), "AttemptTimeout") || !strings.Contains(err.Error(), "Codec") || !strings.Contains(err.Error(), "Timeout \"-1ns\"") {
		t.Error(err)
	}
	if _, err := aggregate.NewClient(nil, "bank", accounts, aggregate.ClientConfig{}); err == nil {
		t.Error("a nil connection")
	}
}
