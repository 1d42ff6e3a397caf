package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// One command id, from many goroutines of several processes at once: one effect,
// and everybody gets the same outcome.
func TestOneIDAtOnce(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, first := newRepository(t, nc)
	repos := []*aggregate.Repository[account]{first, newRepo(t, store), newRepo(t, store)}
	must(t, first, "a1", open{1000})
	for round := range 10 {
		id := jetstream.NewCommandID()
		if round%2 == 1 {
			id = "key " + id
		}
		var (
			wg  sync.WaitGroup
			mu  sync.Mutex
			all []aggregate.Result
		)
		for i := range 9 {
			wg.Go(func() {
				res, err := repos[i%3].Execute(t.Context(), "a1", debit{1}, aggregate.CommandID(id))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, res)
			})
		}
		wg.Wait()
		fresh := 0
		for _, r := range all {
			if !r.Duplicate {
				fresh++
			}
			if r.Version != uint64(round+2) || r.Position != all[0].Position || r.Events[0].EventID != all[0].Events[0].EventID {
				t.Errorf("%+v and %+v", r, all[0])
			}
		}
		if fresh != 1 {
			t.Errorf("%d of %d were the first", fresh, len(all))
		}
	}
	balance(t, first, "a1", 990, 11)
}

// Processes that take turns on one aggregate see each other's commits only when
// they look; walks backwards join what each has seen.
func TestDuplicatesAcrossProcesses(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, first := newRepository(t, nc)
	repos := []*aggregate.Repository[account]{first, newRepo(t, store), newRepo(t, store)}
	cause := must(t, first, "cause", open{1})
	trigger := func(n int) aggregate.CallOption {
		return aggregate.TriggeredBy(aggregate.Trigger{
			Subscriber: "s", EventID: cause.Events[0].EventID, Step: fmt.Sprint("step-", n), Position: cause.Position,
		})
	}
	must(t, first, "a1", open{0})
	const n = 60
	ids := make([]string, n)
	for i := range n {
		ids[i] = jetstream.NewCommandID()
		if i%5 == 0 {
			ids[i] = fmt.Sprint("foreign ", i)
		}
		must(t, repos[i%3], "a1", credit{1}, aggregate.CommandID(ids[i]))
		must(t, repos[i/2%3], "a1", credit{100}, trigger(i))
	}
	want := uint64(2*n + 1)
	cold := newRepo(t, store)
	for i := n - 1; i >= 0; i-- {
		for _, r := range append(repos, cold) {
			if res := must(t, r, "a1", credit{1}, aggregate.CommandID(ids[i])); !res.Duplicate || res.Version != uint64(2*i+2) {
				t.Fatalf("command %d: %+v", i, res)
			}
			if res := must(t, r, "a1", credit{100}, trigger(i)); !res.Duplicate || res.Version != uint64(2*i+3) {
				t.Fatalf("trigger %d: %+v", i, res)
			}
		}
	}
	balance(t, cold, "a1", n+100*n, want)
}

// More commits than are remembered, and a cache of one aggregate.
func TestDuplicatesBeyondTheMemory(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	small, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{CacheBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	cause := must(t, small, "cause", open{1})
	trigger := aggregate.TriggeredBy(aggregate.Trigger{
		Subscriber: "s", EventID: cause.Events[0].EventID, Step: "x", Position: cause.Position,
	})
	ids := []string{jetstream.NewCommandID(), "any string"}
	must(t, small, "a1", open{0})
	for _, id := range ids {
		must(t, small, "a1", credit{1}, aggregate.CommandID(id))
	}
	must(t, small, "a1", credit{1}, trigger)
	later := times(700, 200)
	grow(t, small, "a1", later)
	must(t, small, "a2", open{0}) // evicts a1
	for _, r := range []*aggregate.Repository[account]{small, newRepo(t, store)} {
		for _, id := range ids {
			if res := must(t, r, "a1", credit{1}, aggregate.CommandID(id)); !res.Duplicate {
				t.Fatalf("%q: %+v", id, res)
			}
			must(t, small, "a2", credit{1}) // evicts a1 again
		}
		if res := must(t, r, "a1", credit{1}, trigger); !res.Duplicate || res.Version != 4 {
			t.Fatalf("%+v", res)
		}
	}
	balance(t, small, "a1", int64(3+later), uint64(4+later))
}

// A trigger of another store is searched from its time, one without a position
// too.
func TestTriggersOfOtherStores(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	_, elsewhere := newRepository(t, nc)
	cause := must(t, elsewhere, "cause", open{1})
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{10})
	trig := aggregate.Trigger{Subscriber: "s", EventID: cause.Events[0].EventID, Step: "x", Position: cause.Position, Time: time.Now()}
	for range 3 {
		must(t, repo, "a1", debit{1}, aggregate.TriggeredBy(trig))
	}
	trig.Position = jetstream.Position{}
	must(t, newRepo(t, store), "a1", debit{1}, aggregate.TriggeredBy(trig))
	trig.Time = time.Time{}
	must(t, newRepo(t, store), "a1", debit{1}, aggregate.TriggeredBy(trig))
	balance(t, repo, "a1", 9, 2)
	// Without a time nothing bounds the search: refused rather than guessed.
	trig.Position = cause.Position
	_, err := repo.Execute(t.Context(), "a1", debit{1}, aggregate.TriggeredBy(trig))
	wantAs[*jetstream.ForeignPositionError](t, err)
}

// Outcomes that nobody heard of: the same id is safe, and what was remembered is
// not used.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	e := newEars()
	deaf := natstest.Conn(t, srv.URL(), nats.SetCustomDialer(e))
	store, repo := newRepository(t, deaf)
	watcher := newRepo(t, reopen(t, natstest.Conn(t, srv.URL()), store))
	must(t, repo, "a1", open{100})

	id := jetstream.NewCommandID()
	e.setDeaf(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := repo.Execute(ctx, "a1", debit{10}, aggregate.CommandID(id))
		done <- err
	}()
	natstest.Eventually(t, "the commit is stored", func() error {
		snap, err := watcher.Load(t.Context(), "a1")
		if err == nil && snap.Version != 2 {
			err = fmt.Errorf("version %d", snap.Version)
		}
		return err
	})
	cancel()
	err := <-done
	if u := as[*jetstream.UnknownError](t, err); u.ID != "a1" || !errors.Is(err, jetstream.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	must(t, watcher, "a1", credit{1})
	e.setDeaf(false)
	if res := must(t, repo, "a1", debit{10}, aggregate.CommandID(id)); !res.Duplicate || res.Version != 2 {
		t.Fatalf("%+v", res)
	}
	balance(t, repo, "a1", 91, 3)
}

// What was remembered does not outlive the connection: the next server may have
// something else.
func TestReconnectDropsWhatWasRemembered(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	e := newEars()
	nc := natstest.Conn(t, srv.URL(), nats.SetCustomDialer(e))
	store, repo := newRepository(t, nc)
	must(t, repo, "a1", open{100})
	gets := func() uint64 { return nc.Stats().OutMsgs }
	left := int64(100)
	costs(t, "a command with a cache", nc, 1, func() { // the publish
		must(t, repo, "a1", debit{1})
		left--
	})
	e.cut()
	natstest.Eventually(t, "reconnected", func() error {
		if nc.Stats().Reconnects == 0 || !nc.IsConnected() {
			return errors.New("not yet")
		}
		return nil
	})
	id := jetstream.NewCommandID()
	before := gets()
	must(t, repo, "a1", debit{1}, aggregate.CommandID(id))
	if n := gets() - before; n < 2 {
		t.Fatalf("%d requests after a reconnect, want a get and the publish", n)
	}
	if res := must(t, repo, "a1", debit{1}, aggregate.CommandID(id)); !res.Duplicate {
		t.Fatalf("%+v", res)
	}
	balance(t, newRepo(t, store), "a1", left-1, uint64(102-left))
}

func TestIDsOfTheFutureAreRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	_, repo := newRepository(t, nc)
	must(t, repo, "a1", open{100})
	// The ULID of a day in the year 2286.
	future := "cmd-" + "09ffffffff" + jetstream.NewID()[10:]
	_, err := repo.Execute(t.Context(), "a1", debit{1}, aggregate.CommandID(future))
	invalid(t, err, "command id")
	if !strings.Contains(err.Error(), "ahead of this machine's clock") {
		t.Fatal(err)
	}
}

// What a call carries arrives as it was given, or is refused by name – the same
// in this process as over the wire.
func TestCallOptionsThatCannotTravel(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	client := newClient(t, nc, store)
	must(t, repo, "a1", open{100})
	before := head(t, store)
	trigger := func(subscriber, event, step string) aggregate.CallOption {
		return aggregate.TriggeredBy(aggregate.Trigger{Subscriber: subscriber, EventID: event, Step: step})
	}
	meta := func(k, v string) aggregate.CallOption { return aggregate.Metadata(map[string]string{k: v}) }
	long := strings.Repeat("l", 20_000)
	for _, c := range []struct {
		field string
		opt   aggregate.CallOption
	}{
		{"command id", aggregate.CommandID("a\r\nRossby-Expect-Version: 9")},
		{"command id", aggregate.CommandID(" a")},
		{"command id", aggregate.CommandID(long)},
		{"command id", aggregate.CommandID("\xff")},
		{"correlation", aggregate.Correlation("a\nb")},
		{"correlation", aggregate.Correlation("a ")},
		{"causation", aggregate.Causation(long)},
		{"traceparent", aggregate.TraceParent("00 01")},
		{"trigger's subscriber", trigger("", "e", "s")},
		{"trigger's subscriber", trigger("a b", "e", "s")},
		{"trigger's event id", trigger("s", "e\n", "s")},
		{"trigger's step", trigger("s", "e", "two words")},
		{"trigger's step", trigger("s", "e", "")},
		{"metadata key", meta("a b", "v")},
		{"metadata key", meta("a:b", "v")},
		{"metadata key", meta("a\nb", "v")},
		{"metadata key", meta("", "v")},
		{"metadata key", meta("ü", "v")},
		{`metadata "k"`, meta("k", "two\nlines")},
		{`metadata "k"`, meta("k", "\xff")},
		{`metadata "k"`, meta("k", " blank")},
		{`metadata "k"`, meta("k", long)},
		{"metadata", aggregate.Metadata(map[string]string{"a": long[:9000], "b": long[:9000]})},
	} {
		for _, target := range []aggregate.Target{repo, client} {
			_, err := target.Execute(t.Context(), "a1", debit{1}, c.opt)
			invalid(t, err, c.field)
		}
	}
	if head(t, store) != before {
		t.Fatal("something was stored")
	}
	for i, target := range []aggregate.Target{repo, client} {
		res := must(t, target, "a1", debit{1}, aggregate.CommandID(fmt.Sprint("any – string: ", i)), aggregate.Correlation("grüße, παλι"),
			aggregate.Causation("a b"), aggregate.TraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
			aggregate.Metadata(map[string]string{"user.Name-x_1": "jürgen: a,b;c", "empty": ""}))
		for e, err := range repo.History(t.Context(), "a1") {
			if err != nil {
				t.Fatal(err)
			}
			if e.Version == res.Version && (e.Correlation != "grüße, παλι" || e.Causation != "a b" || len(e.Metadata) != 2 ||
				e.Metadata["user.Name-x_1"] != "jürgen: a,b;c" || e.TraceParent[:3] != "00-") {
				t.Errorf("%T: %+v", target, e.Meta)
			}
		}
	}
	for _, id := range []string{"", "a.b", "a b", "*", ">", "a\nb", "a\x00", strings.Repeat("i", 129)} {
		for _, target := range []aggregate.Target{repo, client} {
			_, err := target.Execute(t.Context(), id, debit{1})
			invalid(t, err, "aggregate id")
		}
	}
}
