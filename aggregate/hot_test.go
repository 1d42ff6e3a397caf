package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// 200 clients debit one account 100 times each, half of them through a service,
// half in another process, on servers that sync every write. The balance is exact,
// every client has one outcome for each command, nobody starves.
func TestHotAggregate(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Helper()
		const clients = 200
		each := times(100, 10)
		cents := int64(clients * each * 9 / 10) // the last tenth is refused
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		served := newRepo(t, reopen(t, connect(), store))
		run(t, newService(t, served, aggregate.ServiceConfig{}))
		client := newClient(t, connect(), store)
		if _, err := surely(t.Context(), client, "hot", open{cents}); err != nil {
			t.Fatal(err)
		}
		var (
			wg            sync.WaitGroup
			done, refused atomic.Int64
			waits         [clients][]time.Duration
			mu            sync.Mutex
			versions      = map[uint64]bool{}
		)
		for c := range clients {
			to := aggregate.Target(repo)
			if c%2 == 0 {
				to = client
			}
			wg.Go(func() {
				for range each {
					id := aggregate.CommandID(jetstream.NewCommandID())
					began := time.Now()
					res, err := patiently(t.Context(), to, "hot", debit{1}, id)
					waits[c] = append(waits[c], time.Since(began))
					switch {
					case err == nil && len(res.Events) == 1:
						done.Add(1)
						mu.Lock()
						if versions[res.Version] {
							t.Errorf("two clients were told version %d", res.Version)
						}
						versions[res.Version] = true
						mu.Unlock()
					case errors.Is(err, aggregate.ErrRejected):
						refused.Add(1)
					default:
						t.Errorf("%+v %v", res, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if done.Load() != cents || refused.Load() != int64(clients*each)-cents || len(versions) != int(cents) {
			t.Errorf("%d done, %d refused, %d versions", done.Load(), refused.Load(), len(versions))
		}
		balance(t, newRepo(t, store), "hot", 0, uint64(cents)+1)
		all := slices.Concat(waits[:]...)
		slices.Sort(all)
		t.Logf("R%d: waited p50 %v, p99 %v, most %v; in process %s; served %s", replicas, all[len(all)/2], all[len(all)*99/100],
			all[len(all)-1], groupsOf(repo.Stats()), groupsOf(served.Stats()))
		if s := repo.Stats(); s.Decisions == s.Commits {
			t.Error("nothing was grouped")
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		srv := natstest.RunFsync(t)
		test(t, 1, func(o ...nats.Option) *nats.Conn { return natstest.Conn(t, srv.URL(), o...) })
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunFsyncCluster(t)
		test(t, 3, func(o ...nats.Option) *nats.Conn { return c.Conn(t, o...) })
	})
}

func groupsOf(s aggregate.Stats) string {
	return fmt.Sprintf("%.1f decisions a commit, %d conflicts", float64(s.Decisions)/float64(max(1, s.Commits)), s.Conflicts)
}

// patiently is surely for busy services, too.
func patiently(ctx context.Context, to aggregate.Target, id string, command any, opts ...aggregate.CallOption) (aggregate.Result, error) {
	for {
		res, err := surely(ctx, to, id, command, opts...)
		if !errors.Is(err, aggregate.ErrBusy) || ctx.Err() != nil {
			return res, err
		}
	}
}

// Clients that give up at once and ask again with the same id, while leaders resign
// and connections break: every command happens once.
func TestImpatientClients(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, replicas int, connect func(int, ...nats.Option) *nats.Conn, disturb func(*jetstream.Store)) {
		t.Helper()
		const processes, clients = 2, 24
		each := times(12, 6)
		store := newStore(t, connect(0), jetstream.Config{Replicas: replicas})
		repos := make([]*aggregate.Repository[account], 0, processes)
		for i := range processes {
			repos = append(repos, newRepo(t, reopen(t, connect(i), store)))
		}
		if _, err := surely(t.Context(), repos[0], "a1", open{0}); err != nil {
			t.Fatal(err)
		}
		var (
			wg       sync.WaitGroup
			unclear  atomic.Int64
			progress = make(chan struct{})
			done     = make(chan struct{})
		)
		for c := range clients {
			wg.Go(func() {
				for n := range each {
					id := aggregate.CommandID(jetstream.NewCommandID())
					if (c+n)%4 == 0 {
						id = aggregate.CommandID(fmt.Sprint("client ", c, " command ", n))
					}
					var first aggregate.Result
					for asked := 0; first.Version == 0 || asked < 2; asked++ {
						patience := time.Duration(1+rand.IntN(8)) * time.Millisecond << min(asked, 12)
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						res, err := repos[(c+asked)%processes].Execute(ctx, "a1", credit{1}, id)
						cancel()
						switch {
						case err == nil && first.Version == 0:
							first = res
						case err == nil && (!res.Duplicate || res.Version != first.Version || res.Events[0].EventID != first.Events[0].EventID):
							t.Errorf("%+v, first %+v", res, first)
						case errors.Is(err, jetstream.ErrUnknownOutcome), errors.Is(err, jetstream.ErrUnavailable),
							errors.Is(err, aggregate.ErrContended), errors.Is(err, context.DeadlineExceeded):
							unclear.Add(1)
						case err != nil:
							t.Error(err)
							return
						}
						select {
						case progress <- struct{}{}:
						default:
						}
					}
				}
			})
		}
		go func() {
			wg.Wait()
			close(done)
		}()
		for decided := 0; ; decided++ {
			select {
			case <-progress:
				if decided%100 == 50 {
					disturb(store)
				}
				continue
			case <-done:
			}
			break
		}
		t.Logf("%d answers left it open", unclear.Load())
		balance(t, newRepo(t, store), "a1", int64(clients*each), uint64(clients*each+1))
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		srv, e := natstest.Run(t), newEars()
		test(t, 1, func(i int, o ...nats.Option) *nats.Conn {
			if i > 0 {
				o = append(o, nats.SetCustomDialer(e))
			}
			return natstest.Conn(t, srv.URL(), o...)
		}, func(*jetstream.Store) { e.cut() })
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		test(t, 3, func(i int, o ...nats.Option) *nats.Conn { return natstest.Conn(t, c.URLs()[i], o...) },
			func(store *jetstream.Store) { c.StepDown(t, store.Name()) })
	})
}

// A handler that does not return holds its aggregate, and nothing else: those who
// wait for it get their answer when their time is over, other aggregates go on. Once
// it returns, its time is over, and nothing of it is stored.
func TestAHandlerThatBlocks(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	block, blocked := make(chan struct{}), make(chan struct{})
	type wait struct{}
	repo := repoOf(t, store, newAccounts(aggregate.Handle("wait", func(account, wait, aggregate.Decision) ([]any, error) {
		close(blocked)
		<-block
		return []any{credited{1_000_000}}, nil
	})))
	must(t, repo, "a1", open{100})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := repo.Execute(ctx, "a1", wait{})
		done <- err
	}()
	<-blocked
	must(t, repo, "a2", open{1})
	brief, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := repo.Execute(brief, "a1", debit{1}); !errors.Is(err, jetstream.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want nothing done in time", err)
	}
	cancel()
	close(block)
	if err := <-done; !errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, jetstream.ErrUnknownOutcome) {
		t.Errorf("%v, want nothing done", err)
	}
	must(t, repo, "a1", debit{1})
	balance(t, newRepo(t, store), "a1", 99, 2)
}

// A handler that is not pure decides something else when it is asked again. What
// it decided last is stored, and is what the caller is told; asked again with the
// same id, it is not called.
func TestADecisionThatChangesItsMind(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, other := newRepository(t, nc)
	type moody struct{}
	calls := int64(0)
	repo := repoOf(t, store, newAccounts(aggregate.Handle("moody", func(account, moody, aggregate.Decision) ([]any, error) {
		if calls++; calls == 1 {
			must(t, other, "a1", debit{1})
		}
		return []any{credited{calls * 10}}, nil
	})))
	must(t, repo, "a1", open{100})
	for range 2 {
		res := must(t, repo, "a1", moody{}, aggregate.CommandID("x"))
		if len(res.Events) != 1 || res.Events[0].Event != (credited{20}) || res.Version != 3 {
			t.Errorf("%+v", res)
		}
	}
	if calls != 2 {
		t.Errorf("called %d times", calls)
	}
	balance(t, newRepo(t, store), "a1", 119, 3)
}

// Whatever user code does, the caller gets an error, nothing is stored, and the
// next command is served – alone, and among others.
func TestUserCodeThatFails(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{100})
	for i, c := range []struct {
		command any
		want    string
	}{
		{fail{"panic"}, "on purpose"}, {fail{"nil"}, "not declared"}, {fail{"undeclared"}, "not declared"}, {fail{"plain"}, errPlain.Error()},
		{move{In: -1}, "a negative credit"},
	} {
		before := head(t, store)
		if _, err := repo.Execute(t.Context(), "a1", c.command); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.command, err)
		}
		got := grouped(t, repo, "a1", asked{command: debit{1}}, asked{command: c.command}, asked{command: debit{1}})
		if got[0].err != nil || got[2].err != nil || got[1].err == nil || !strings.Contains(got[1].err.Error(), c.want) {
			t.Errorf("%v: %+v", c.command, got)
		}
		if got[2].res.Version != uint64(3+2*i) || head(t, store) != before+1 {
			t.Errorf("%v: version %d", c.command, got[2].res.Version)
		}
	}
	balance(t, newRepo(t, store), "a1", 90, 11)
}
