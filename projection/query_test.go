package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// roles starts a server with one user who may do everything, and one who may publish
// and subscribe to some subjects only.
func roles(t *testing.T, publish, subscribe []string, payload int32) (url string, as func(user string) nats.Option) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		MaxPayload: payload,
		Users: []*server.User{
			{Username: "all", Password: "x"},
			{Username: "role", Password: "x", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("not ready")
	}
	return srv.ClientURL(), func(user string) nats.Option { return nats.UserInfo(user, "x") }
}

func fixtureOn(t *testing.T, nc *nats.Conn) *fixture {
	t.Helper()
	store, err := jetstream.Open(patient(t), nc, jetstream.Config{Name: "bank", AppendTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, nc: nc, store: store, heads: map[string]jetstream.Head{}}
}

// TestReaderPermissions: what docs/queries.md says that a reader and a query client
// need is enough, for gets, long lists and watches.
func TestReaderPermissions(t *testing.T) {
	t.Parallel()
	url, as := roles(t, []string{
		"$JS.API.DIRECT.GET.KV_bank_tallies", "$JS.API.STREAM.MSG.GET.KV_bank_tallies", "$JS.API.STREAM.INFO.KV_bank_tallies",
		"bank.query.tallies.>",
	}, []string{"_INBOX.>", "$KV.bank_tallies._rossby.>"}, 0)
	f := fixtureOn(t, natstest.Conn(t, url, as("all")))
	f.append("x", opened{}) // more keys than one read can hold
	start(t, f.store, tallies(), quiet())
	nc := natstest.Conn(t, url, as("role"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Error(err) }))
	r, err := projection.NewReader[tally](t.Context(), nc, "bank", "tallies", projection.ReaderConfig{OpenWait: natstest.Patience, Wait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Get(t.Context(), "w7", projection.AtLeast(f.last)); err != nil || e.Value.N != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	n := 0
	for e, err := range r.List(t.Context(), projection.ListOptions{}) {
		if n++; err != nil || e.Value.N != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	puts := 0
	for c, err := range r.Watch(t.Context(), projection.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind == projection.Ready {
			break
		}
		puts++
	}
	if n != wide || puts != wide {
		t.Errorf("%d listed, %d watched", n, puts)
	}
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()
	c := projection.NewQueryClient[tally](nc, "bank", "tallies")
	if e, err := c.Get(patient(t), "w7"); err != nil || e.Value.N != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestReaderDenied: without them, the error names what is missing. Here the last one:
// gets work, and what asks the leader says so.
func TestReaderDenied(t *testing.T) {
	t.Parallel()
	url, as := roles(t, []string{"$JS.API.DIRECT.GET.KV_bank_tallies", "$JS.API.STREAM.MSG.GET.KV_bank_tallies"}, []string{"_INBOX.>"}, 0)
	f := fixtureOn(t, natstest.Conn(t, url, as("all")))
	f.append("a1", credited{})
	start(t, f.store, tallies(), quiet())
	nc := natstest.Conn(t, url, as("role"))
	r, err := projection.NewReader[tally](t.Context(), nc, "bank", "tallies", projection.ReaderConfig{OpenWait: natstest.Patience, Wait: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Get(t.Context(), "a1", projection.AtLeast(f.last)); err != nil || e.Value.N != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	var denied *jetstream.PermissionError
	var ended error
	for _, err := range r.Watch(t.Context(), projection.WatchOptions{}) {
		ended = err
	}
	if !errors.As(ended, &denied) || denied.Subject != "$JS.API.STREAM.INFO.KV_bank_tallies" {
		t.Errorf("watch: %v", ended)
	}
	if _, err := projection.NewReader[tally](t.Context(), nc, "bank", "others", projection.ReaderConfig{OpenWait: natstest.Patience}); !errors.As(err, &denied) {
		t.Errorf("another view: %v", err)
	}
}

// TestQueryServiceFromAnyClient: it is found, its answers are plain, and an answer
// that no server takes is an error, not silence.
func TestQueryServiceFromAnyClient(t *testing.T) {
	t.Parallel()
	const payload = 64 << 10
	url, as := roles(t, nil, nil, payload)
	nc := natstest.Conn(t, url, as("all"))
	f := fixtureOn(t, nc)
	for i := range 20 {
		f.append(id(i), opened{Owner: "<" + strings.Repeat("x", 5000) + ">"})
	}
	up := start(t, f.store, accounts(), lasting())
	r := reader[account](t, f, "accounts")
	get(t, r, "a1", projection.AtLeast(f.last))
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()

	msg, err := nc.Request("$SRV.INFO.bank-query", nil, natstest.Patience)
	var info micro.Info
	if err != nil || json.Unmarshal(msg.Data, &info) != nil || len(info.Endpoints) != 3 || info.Endpoints[0].Subject != "bank.query.accounts.get.>" ||
		info.Endpoints[1].Subject != "bank.query.accounts.list" || info.Endpoints[0].Metadata["view"] != "accounts" || info.Endpoints[1].Metadata["store"] != "bank" {
		t.Errorf("%+v, %v", info, err)
	}
	if msg, err := nc.Request("bank.query.accounts.get.a1", nil, natstest.Patience); err != nil || !strings.HasPrefix(string(msg.Data), `{"owner":"<xxx`) {
		t.Errorf("%.40s, %v", msg.Data, err)
	}
	// A page is as long as the server takes, whatever was asked for.
	c := projection.NewQueryClient[account](nc, "bank", "accounts")
	n := 0
	for e, err := range c.List(patient(t), projection.ListOptions{}) {
		if n++; err != nil || len(e.Value.Owner) != 5002 {
			t.Fatalf("%v", err)
		}
	}
	if n != 20 {
		t.Errorf("%d entries", n)
	}
	// How far behind.
	if err := up.stop(); err != nil {
		t.Fatal(err)
	}
	was := f.last
	f.append("a1", closed{})
	later := f.append("a2", closed{})
	// One that did not even see in that time how far the view is says so.
	for timeout := 100 * time.Millisecond; timeout < natstest.Patience; timeout *= 2 {
		m := nats.NewMsg("bank.query.accounts.get.a1")
		m.Header.Set(projection.HeaderAfter, later.String())
		m.Header.Set(projection.HeaderTimeout, timeout.String())
		msg, err = nc.RequestMsg(m, natstest.Patience)
		if err != nil || msg.Header.Get("Nats-Service-Error-Code") != projection.CodeUnavailable {
			break
		}
	}
	if err != nil || msg.Header.Get("Nats-Service-Error-Code") != projection.CodeStale || msg.Header.Get(projection.HeaderPosition) != was.String() ||
		msg.Header.Get(projection.HeaderBehind) != strconv.Itoa(2) || msg.Header.Get(projection.HeaderState) != "free" {
		t.Errorf("%v, %v", msg.Header, err)
	}
	if err := q.Stop(); err != nil {
		t.Fatal(err)
	}
	soon, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: 500 * time.Millisecond}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = soon.Stop() }()
	wait := patient(t) // The service's own bound is the sooner.
	stale := behind(t, func(context.Context) error {
		_, err := c.Get(wait, "a1", projection.AtLeast(later))
		return err
	})
	if stale.Behind != 2 || stale.Position != was || stale.Wanted != later || stale.Lag <= 0 || stale.State != projection.StateFree {
		t.Errorf("%+v", stale)
	}
}

// A service that ends answers all that came before, what it has not read yet, too. Of
// three servers it is another one that was asked.
func TestQueryServiceEnds(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		url := natstest.Run(t).URL()
		queryServiceEnds(t, fixtureAt(t, url, 1), url, url)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		urls := natstest.RunCluster(t).URLs()
		queryServiceEnds(t, fixtureAt(t, strings.Join(urls, ","), 3), urls[0], urls[1])
	})
}

func queryServiceEnds(t *testing.T, f *fixture, serves, asks string) {
	t.Helper()
	f.append("a1", opened{Owner: "o"})
	start(t, f.store, accounts(), quiet())
	r := reader[account](t, f, "accounts")
	get(t, r, "a1", projection.AtLeast(f.last))
	const queries = 20
	nc := natstest.Conn(t, asks)
	inbox := nc.NewRespInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	slow := &deafDialer{}
	q, err := projection.NewQueryService(natstest.Conn(t, serves, nats.SetCustomDialer(slow)),
		projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	subject := f.store.Name() + ".query.accounts.get.a1"
	passed := heardAt(t, nc, serves)
	natstest.Retry(t, "the server that is asked knows the service", func(ctx context.Context) error {
		_, err := nc.RequestWithContext(ctx, subject, nil)
		return err
	})
	hear := slow.deafen()
	for range queries {
		if err := nc.PublishRequest(subject, inbox, nil); err != nil {
			hear()
			t.Fatal(err)
		}
	}
	passed() // the servers have passed them on
	stopped := make(chan error, 1)
	go func() { stopped <- q.Stop() }()
	natstest.Retry(t, "the service takes no more", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := nc.RequestWithContext(ctx, subject, nil); !errors.Is(err, nats.ErrNoResponders) {
			return fmt.Errorf("it is asked yet: %w", err)
		}
		return nil
	})
	hear()
	for i := range queries {
		m, err := answers.NextMsg(natstest.Patience)
		if err != nil || m.Header.Get(micro.ErrorCodeHeader) != "" {
			t.Fatalf("answer %d: %v, %v", i, m, err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// heardAt returns what waits until all that a connection has sent has come to where
// another server hands it on: between two servers messages keep their order.
func heardAt(t *testing.T, from *nats.Conn, url string) (passed func()) {
	t.Helper()
	last := from.NewInbox()
	if _, err := natstest.Conn(t, url).Subscribe(last, func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	return func() {
		natstest.Retry(t, "what was sent has come", func(ctx context.Context) error {
			_, err := from.RequestWithContext(ctx, last, nil)
			return err
		})
	}
}

// deafDialer makes connections that hear nothing for a while.
type deafDialer struct{ mu sync.RWMutex }

func (d *deafDialer) deafen() (hear func()) {
	d.mu.Lock()
	return d.mu.Unlock
}

func (d *deafDialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return &deafConn{c, d}, err
}

type deafConn struct {
	net.Conn

	d *deafDialer
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.d.mu.RLock()
	defer c.d.mu.RUnlock()
	return n, err
}

// TestQueryAnswerTooLarge: a value that V writes longer than the server takes.
func TestQueryAnswerTooLarge(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.append("a1", opened{Owner: "o"})
	start(t, f.store, accounts(), quiet())
	r := reader[longer](t, f, "accounts")
	get(t, r, "a1", projection.AtLeast(f.last))
	q, err := projection.NewQueryService(f.nc, projection.QueryConfig{Timeout: natstest.Patience}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Stop() }()
	var refused *projection.QueryError
	if _, err := projection.NewQueryClient[longer](f.nc, f.store.Name(), "accounts").Get(patient(t), "a1"); !errors.As(err, &refused) || refused.Code != projection.CodeTooLarge {
		t.Errorf("%v", err)
	}
}

type longer struct{ Owner string }

func (l longer) MarshalJSON() ([]byte, error) { return json.Marshal(strings.Repeat(l.Owner, 2<<20)) }
