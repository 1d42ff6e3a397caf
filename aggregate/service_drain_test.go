package aggregate_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// rolling restarts two instances of a service, one after the other, several times.
// Each is connected to the next of the servers, and all of them know it before the
// next instance goes.
func rolling(t *testing.T, store *jetstream.Store, urls []string, times int, ready, goOn func()) {
	t.Helper()
	n := 0
	start := func() func() {
		nc := natstest.Conn(t, urls[n%len(urls)])
		n++
		s := newService(t, newRepo(t, reopen(t, nc, store)), aggregate.ServiceConfig{})
		stop := run(t, s)
		received(t, s.Ready())
		known(t, nc, urls)
		return stop
	}
	instances := []func(){start(), start()}
	ready()
	for i := range times {
		goOn() // commands flow while an instance goes
		instances[i%2]()
		goOn()
		instances[i%2] = start()
	}
}

// known waits until every server has heard of what a connection listens to. A server
// hears of another's subscriptions in their order, some time after the client's flush:
// a request that comes in between finds nobody, or is lost on its way to an instance
// that has just gone.
func known(t *testing.T, nc *nats.Conn, urls []string) {
	t.Helper()
	last := nats.NewInbox()
	sub, err := nc.Subscribe(last, func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range urls {
		from := natstest.Conn(t, url)
		ok := natstest.Retry(t, "the servers know the instance", func(ctx context.Context) error {
			_, err := from.RequestWithContext(ctx, last, nil)
			return err
		})
		if !ok {
			t.FailNow()
		}
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
}

// A deploy loses no command and answers every one that an instance took. The
// callers of this test send each request once and never again: each gets one
// reply, that of a command that was executed.
func TestServiceRollingRestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replicas int
		start    func(t *testing.T) []string
	}{
		"R1": {1, func(t *testing.T) []string { return []string{natstest.Run(t).URL()} }},
		"R3": {3, func(t *testing.T) []string { return natstest.RunCluster(t).URLs() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			urls := c.start(t)
			store := newStore(t, natstest.Conn(t, urls[0]), jetstream.Config{Replicas: c.replicas})
			repo := newRepo(t, store)
			const accounts, callers = 4, 12
			restarts := times(6, 4)
			for i := range accounts {
				must(t, repo, strconv.Itoa(i), open{0})
			}
			var wg sync.WaitGroup
			done := make(chan struct{})
			progress := make(chan struct{})
			var sent [accounts]atomic.Int64
			caller := func(i int) {
				nc := natstest.Conn(t, urls[i%len(urls)])
				account := i % accounts
				subject := fmt.Sprint(store.Name(), ".command.account.credit.", account)
				// Its server may not have heard of the service yet.
				natstest.Retry(t, "the service is known", func(ctx context.Context) error {
					_, err := nc.RequestWithContext(ctx, subject, []byte(`{"cents":0}`))
					return err
				})
				for {
					select {
					case <-done:
						return
					default:
					}
					ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
					m, err := nc.RequestWithContext(ctx, subject, []byte(`{"cents":1}`))
					cancel()
					if err != nil {
						t.Error(err)
						return
					}
					if code, kind, _, reason := errorOf(t, m); code != "" {
						t.Error(code, kind, reason)
						return
					}
					sent[account].Add(1)
					select {
					case progress <- struct{}{}:
					case <-done:
						return
					}
				}
			}
			goOn := func() {
				for range 50 {
					received(t, progress)
				}
			}
			rolling(t, store, urls, restarts, func() {
				for i := range callers {
					wg.Go(func() { caller(i) })
				}
			}, goOn)
			close(done)
			wg.Wait()
			for i := range accounts {
				snap, err := repo.Load(t.Context(), strconv.Itoa(i))
				if want := sent[i].Load(); err != nil || snap.State.Cents != want || snap.Version != uint64(want)+1 {
					t.Errorf("%+v %v, want %d", snap, err, want)
				}
			}
		})
	}
}
