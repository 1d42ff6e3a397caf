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
func rolling(t *testing.T, store *jetstream.Store, conn func() *nats.Conn, times int, ready, goOn func()) {
	t.Helper()
	start := func() func() {
		s := newService(t, newRepo(t, reopen(t, conn(), store)), aggregate.ServiceConfig{})
		stop := run(t, s)
		received(t, s.Ready())
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

// A deploy loses no command and answers every one that an instance took. The
// callers of this test send each request once and never again: each gets one
// reply, that of a command that was executed.
func TestServiceRollingRestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replicas int
		start    func(t *testing.T) func(i int) string
	}{
		"R1": {1, func(t *testing.T) func(int) string {
			url := natstest.Run(t).URL()
			return func(int) string { return url }
		}},
		"R3": {3, func(t *testing.T) func(int) string {
			urls := natstest.RunCluster(t).URLs()
			return func(i int) string { return urls[i%len(urls)] }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := c.start(t)
			store := newStore(t, natstest.Conn(t, url(0)), jetstream.Config{Replicas: c.replicas})
			repo := newRepo(t, store)
			const accounts, callers, restarts = 4, 12, 6
			for i := range accounts {
				must(t, repo, strconv.Itoa(i), open{0})
			}
			var wg sync.WaitGroup
			done := make(chan struct{})
			progress := make(chan struct{})
			var sent [accounts]atomic.Int64
			caller := func(i int) {
				nc := natstest.Conn(t, url(i))
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
			n := 0
			rolling(t, store, func() *nats.Conn { n++; return natstest.Conn(t, url(n)) }, restarts, func() {
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
