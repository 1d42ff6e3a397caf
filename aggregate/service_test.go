package aggregate_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

func newClient(t testing.TB, nc *nats.Conn, store *jetstream.Store) *aggregate.Client {
	t.Helper()
	return clientOf(t, nc, store.Name(), accounts)
}

// clientOf gives a client that waits for its answers.
func clientOf[S any](t testing.TB, nc *nats.Conn, store string, typ *aggregate.Type[S]) *aggregate.Client {
	t.Helper()
	return clientWith(t, nc, store, typ, natstest.Patience)
}

// clientWith gives a client that asks again after a time.
func clientWith[S any](t testing.TB, nc *nats.Conn, store string, typ *aggregate.Type[S], after time.Duration) *aggregate.Client {
	t.Helper()
	c, err := aggregate.NewClient(nc, store, typ, aggregate.ClientConfig{AttemptTimeout: after, Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// soon is how long a client waits for an answer that was lost.
const soon = 300 * time.Millisecond

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

// The same errors, whether the repository is in this process or not.
func TestClientErrorsAreTheRepositorys(t *testing.T) { // AC-A14
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	for _, target := range []aggregate.Target{repo, newClient(t, nc, store)} {
		name := strings.Trim(strings.ToLower(fmt.Sprintf("%T", target)[11:15]), ".")
		made, err := target.Create(t.Context(), name, open{100})
		if err != nil || made.Version != 1 || made.ID != name || made.Events[0].Event != (opened{100}) {
			t.Fatalf("%+v %v", made, err)
		}
		res := must(t, target, name, &debit{1}, aggregate.CommandID("id"))
		again := must(t, target, name, debit{1}, aggregate.CommandID("id"))
		if !again.Duplicate || again.Version != res.Version || again.Position != res.Position || again.Events[0].EventID != res.Events[0].EventID {
			t.Fatalf("%+v %+v", res, again)
		}
		for _, c := range []struct {
			want error
			id   string
			cmd  any
			opts []aggregate.CallOption
		}{
			{aggregate.ErrExists, name, open{1}, nil},
			{aggregate.ErrNotFound, "absent", debit{1}, nil},
			{aggregate.ErrRejected, name, debit{1000}, nil},
			{aggregate.ErrOtherPayload, name, debit{2}, []aggregate.CallOption{aggregate.CommandID("id")}},
		} {
			if _, err := target.Execute(t.Context(), c.id, c.cmd, c.opts...); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		_, err = target.Execute(t.Context(), name, debit{1000})
		if r := as[*aggregate.RejectedError](t, err); r.Code != "insufficient-funds" || r.Reason != "balance 99 is below 1000" {
			t.Errorf("%s: %+v", name, r)
		}
		_, err = target.Execute(t.Context(), name, debit{1}, aggregate.ExpectVersion(9))
		if v := as[*aggregate.VersionError](t, err); v.Expected != 9 || v.Actual != 2 || v.ID != name || v.Type != "account" {
			t.Errorf("%s: %+v", name, v)
		}
		_, err = target.Execute(t.Context(), name, struct{}{})
		invalid(t, err, "command")
		// Made twice without an id of its own: one aggregate.
		id := jetstream.NewCommandID()
		one, err1 := target.Create(t.Context(), "", open{1}, aggregate.CommandID(id))
		two, err2 := target.Create(t.Context(), "", open{1}, aggregate.CommandID(id))
		if err1 != nil || err2 != nil || one.ID != two.ID || !two.Duplicate {
			t.Errorf("%s: %+v %v %+v %v", name, one, err1, two, err2)
		}
	}
	client := newClient(t, nc, store)
	_, err := client.Execute(t.Context(), "repo", fail{"plain"})
	if !errors.Is(err, aggregate.ErrInternal) || strings.Contains(err.Error(), errPlain.Error()) {
		t.Error(err)
	}
	// What is too large never goes out.
	_, err = client.Execute(t.Context(), "repo", fail{strings.Repeat("x", int(nc.MaxPayload()))})
	wantAs[*jetstream.RefusedError](t, err)
}

// front stands before a service and decides what becomes of requests and
// replies.
func front(t testing.TB, nc *nats.Conn, store *jetstream.Store, pass func(n int64, req *nats.Msg, forward func() *nats.Msg) *nats.Msg) string {
	t.Helper()
	name := natstest.Name(t)
	var n atomic.Int64
	// Whoever asked may have gone, and the test be over, when an answer comes.
	var mu sync.Mutex
	over := false
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if !over && t.Context().Err() == nil {
			t.Error(err)
		}
	}
	sub, err := nc.Subscribe(name+".command.>", func(m *nats.Msg) {
		forward := func() *nats.Msg {
			resp, err := nc.RequestMsgWithContext(t.Context(), &nats.Msg{
				Subject: store.Name() + strings.TrimPrefix(m.Subject, name), Header: m.Header, Data: m.Data,
			})
			if err != nil {
				fail(err)
			}
			return resp
		}
		if resp := pass(n.Add(1), m, forward); resp != nil {
			if err := m.RespondMsg(&nats.Msg{Header: resp.Header, Data: resp.Data}); err != nil {
				fail(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sub.Unsubscribe()
		mu.Lock()
		defer mu.Unlock()
		over = true
	})
	return name
}

func errorReply(code, body string) *nats.Msg {
	return &nats.Msg{Header: nats.Header{micro.ErrorCodeHeader: {code}, micro.ErrorHeader: {"x"}}, Data: []byte(body)}
}

func TestClientAsksAgain(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	request(t, nc, store.Name()+".command.account.credit.absent", "", nil) // it listens

	t.Run("AfterALostReply", func(t *testing.T) {
		t.Parallel()
		must(t, repo, "lost", open{100})
		var mu sync.Mutex
		var ids []string
		client := clientWith(t, nc, front(t, nc, store, func(n int64, req *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, req.Header.Get("Rossby-Command-Id"))
			if left, err := time.ParseDuration(req.Header.Get("Rossby-Timeout")); err != nil || left > soon || left <= 0 {
				t.Errorf("timeout %q", req.Header.Get("Rossby-Timeout"))
			}
			switch n {
			case 1: // executed, but the reply is lost
				forward()
				return nil
			case 2: // done before, so "busy" says nothing
				return errorReply("429", `{"kind":"busy"}`)
			case 3:
				return errorReply("500", `{"kind":"internal"}`)
			case 4:
				return errorReply("503", `{"kind":"unavailable"}`)
			default:
				return forward()
			}
		}), accounts, soon)
		res := must(t, client, "lost", debit{10})
		if !res.Duplicate || res.Version != 2 || res.Events[0].Event != (debited{10}) {
			t.Fatalf("%+v", res)
		}
		balance(t, repo, "lost", 90, 2)
		mu.Lock()
		defer mu.Unlock()
		if len(ids) < 5 || ids[0] == "" || len(slices.Compact(ids)) != 1 {
			t.Fatal(ids)
		}
	})

	t.Run("AfterUnavailableAndUnknown", func(t *testing.T) { // AC-A14
		t.Parallel()
		must(t, repo, "away", open{100})
		client := clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			switch n {
			case 1:
				return errorReply("503", `{"kind":"unavailable"}`)
			case 2:
				return errorReply("504", `{"kind":"unknown"}`)
			default:
				return forward()
			}
		}), accounts)
		// The conflict after it is final, not repeated.
		_, err := client.Execute(t.Context(), "away", debit{10}, aggregate.ExpectVersion(5))
		wantAs[*aggregate.VersionError](t, err)
		must(t, client, "away", debit{10})
		balance(t, repo, "away", 90, 2)
	})

	t.Run("AfterBusy", func(t *testing.T) {
		t.Parallel()
		must(t, repo, "busy", open{100})
		var mu sync.Mutex
		var at []time.Time
		client := clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			switch n {
			case 1:
				return errorReply("429", `{"kind":"busy","retryAfter":"300ms"}`)
			case 2:
				return errorReply("429", `{"kind":"busy","code":"contended"}`)
			case 3:
				return errorReply("429", `{"kind":"busy","retryAfter":"soon"}`)
			default:
				return forward()
			}
		}), accounts)
		if res := must(t, client, "busy", debit{10}); res.Duplicate || res.Version != 2 {
			t.Errorf("%+v", res)
		}
		if len(at) < 4 || at[1].Sub(at[0]) < 150*time.Millisecond {
			t.Error("asked again too soon:", at) // half of it is the least
		}
		// Busy to the end of the caller's time: nothing was done, and that is what it hears.
		client = clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, _ func() *nats.Msg) *nats.Msg {
			return errorReply("429", `{"kind":"busy","retryAfter":"`+[]string{"10ms", "1h"}[n/3]+`","reason":"full"}`)
		}), accounts)
		_, err := client.Execute(t.Context(), "busy", debit{10})
		if b := as[*aggregate.BusyError](t, err); b.RetryAfter != time.Hour || b.Reason != "full" || !errors.Is(err, aggregate.ErrBusy) {
			t.Error(err)
		}
	})

	t.Run("ButReportsFaultsAtOnce", func(t *testing.T) {
		t.Parallel()
		for body, want := range map[string]error{
			`{"kind":"internal"}`: aggregate.ErrInternal, `no JSON`: aggregate.ErrInternal, `{"kind":"new"}`: aggregate.ErrInternal,
		} {
			client := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg {
				return errorReply("500", body)
			}), accounts)
			if _, err := client.Execute(t.Context(), "a", debit{1}); !errors.Is(err, want) {
				t.Errorf("%s: %v", body, err)
			}
		}
	})

	t.Run("UntilTheContextEnds", func(t *testing.T) {
		t.Parallel()
		// A request that was under way when the time was over is unknown, and one that
		// never went out unavailable: the next gets more time.
		ends := func(client *aggregate.Client, want, other error, asked func() bool) {
			t.Helper()
			short := 100 * time.Millisecond
			natstest.Eventually(t, "the time ends", func() error {
				short *= 2
				ctx, cancel := context.WithTimeout(t.Context(), short)
				defer cancel()
				_, err := client.Execute(ctx, "a", debit{1})
				switch {
				case !errors.Is(err, want) || errors.Is(err, other):
					return fmt.Errorf("after %v: %w", short, err)
				case !asked():
					return errors.New("nobody was asked")
				}
				return nil
			})
		}
		always := func() bool { return true }
		ends(clientOf(t, nc, "nobody", accounts), jetstream.ErrUnavailable, jetstream.ErrUnknownOutcome, always)
		silent := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg { return nil }), accounts)
		ends(silent, jetstream.ErrUnknownOutcome, jetstream.ErrUnavailable, always)
		// Open once, refused ever after: still unknown.
		var mu sync.Mutex
		asked, refused := map[string]int{}, false
		open := clientOf(t, nc, front(t, nc, store, func(_ int64, req *nats.Msg, _ func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			id := req.Header.Get("Rossby-Command-Id")
			if asked[id]++; asked[id] == 1 {
				return errorReply("504", `{"kind":"unknown"}`)
			}
			refused = true
			return errorReply("429", `{"kind":"busy"}`)
		}), accounts)
		ends(open, jetstream.ErrUnknownOutcome, aggregate.ErrBusy, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return refused
		})
	})
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
