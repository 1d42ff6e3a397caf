package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// Leases of followers: a steady one lasts while the machine stands still. A brief one is
// for those that die and those that take over from them: their events may be handled
// again, and what the server has promised the dead soon ends.
const (
	steady = 15 * time.Second
	brief  = 500 * time.Millisecond
)

// reactorConfig is quick to retry.
func reactorConfig() aggregate.ReactorConfig {
	return aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), MaxBackoff: 10 * time.Millisecond, TTL: steady, Logger: quiet,
	}
}

func newReactor(t testing.TB, store *jetstream.Store, name string, handlers ...aggregate.ReactorOption) *aggregate.Reactor {
	t.Helper()
	return leased(t, store, name, steady, handlers...)
}

// leased gives a reactor that has, and wants, such a lease.
func leased(
	t testing.TB, store *jetstream.Store, name string, ttl time.Duration, handlers ...aggregate.ReactorOption,
) *aggregate.Reactor {
	t.Helper()
	cfg := reactorConfig()
	cfg.TTL = ttl
	r, err := aggregate.NewReactor(store, name, cfg, handlers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// received waits for a value.
func received[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(natstest.Patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A handler that runs again finds what came of its effects the first time,
// whatever has changed meanwhile.
func TestReactorRunsAgain(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "poor", open{10})
	must(t, repo, "rich", open{100})
	type outcome struct {
		debit, absent, exists, version error
		twice                          error
		rich                           aggregate.Result
		made                           string
		epoch                          jetstream.Meta
	}
	outcomes := make(chan outcome, 10)
	attempts := 0
	run(t, newReactor(t, store, "again", aggregate.On(events, func(ctx context.Context, e debited, m jetstream.Meta, do *aggregate.Do) error {
		if m.ID != "start" {
			return nil
		}
		var o outcome
		o.epoch = m
		_, o.debit = do.Update(ctx, repo, "poor", debit{50})
		_, o.absent = do.Update(ctx, repo, "absent", debit{1})
		_, o.exists = do.Create(ctx, repo, "rich", open{1})
		_, o.version = do.Update(ctx, repo, "rich", debit{1}, aggregate.Step("expecting"), aggregate.ExpectVersion(9))
		_, o.twice = do.Update(ctx, repo, "poor", debit{1})
		var err error
		if o.rich, err = do.Update(ctx, repo, "rich", debit{1}); err != nil {
			return err
		}
		// A second effect of the same command has a name of its own.
		if _, err := do.Update(ctx, repo, "rich", debit{2}, aggregate.Step("second")); err != nil {
			return err
		}
		made, err := do.Create(ctx, repo, "", open(e))
		if err != nil {
			return err
		}
		o.made = made.ID
		outcomes <- o
		if attempts++; attempts < 3 {
			// Everything that was refused would be accepted now.
			if _, err := repo.Execute(ctx, "poor", credit{1000}); err != nil {
				return err
			}
			if attempts == 1 {
				if _, err := repo.Create(ctx, "absent", open{1000}); err != nil {
					return err
				}
			}
			return errors.New("crashed after the effects")
		}
		return nil
	})))
	must(t, repo, "start", open{1})
	res := must(t, repo, "start", debit{1}, aggregate.Correlation("conv"), aggregate.Metadata(map[string]string{"k": "v"}))
	var first outcome
	for i := range 3 {
		o := received(t, outcomes)
		wantAs[*aggregate.RejectedError](t, o.debit)
		wantAs[*aggregate.VersionError](t, o.version)
		if !errors.Is(o.absent, aggregate.ErrNotFound) || !errors.Is(o.exists, aggregate.ErrExists) || !errors.Is(o.twice, aggregate.ErrStepTwice) {
			t.Fatalf("attempt %d: %+v", i+1, o)
		}
		if o.rich.Duplicate != (i > 0) || o.epoch.EventID != res.Events[0].EventID || o.epoch.Metadata["k"] != "v" { // AC-A11
			t.Fatalf("attempt %d: %+v", i+1, o)
		}
		if i == 0 {
			first = o
		}
		if o.made != first.made || o.rich.Version != first.rich.Version {
			t.Fatalf("attempt %d: %+v, first %+v", i+1, o, first)
		}
	}
	balance(t, repo, "rich", 97, 3)
	balance(t, repo, "poor", 2010, 3)
	balance(t, repo, first.made, 1, 1)
	for e, err := range repo.History(t.Context(), first.made) {
		if err != nil || e.Causation != res.Events[0].EventID || e.Correlation != "conv" {
			t.Fatalf("%+v %v", e, err)
		}
	}
}

// Effects go over the wire as they go to a repository.
func TestReactorThroughAService(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	client := newClient(t, nc, store)
	must(t, repo, "to", open{0})
	var attempts atomic.Int32
	done := make(chan aggregate.Result, 10)
	run(t, newReactor(t, store, "wired", aggregate.On(events, func(ctx context.Context, e debited, _ jetstream.Meta, do *aggregate.Do) error {
		if _, err := do.Update(ctx, client, "absent", credit{1}); !errors.Is(err, aggregate.ErrNotFound) {
			return fmt.Errorf("not found: %w", err)
		}
		made, err := do.Create(ctx, client, "", open(e))
		if err != nil {
			return err
		}
		res, err := do.Update(ctx, client, "to", credit(e))
		if err != nil {
			return err
		}
		if attempts.Add(1) < 3 {
			return errors.New("again")
		}
		res.ID = made.ID
		done <- res
		return nil
	})))
	must(t, repo, "from", open{10})
	must(t, repo, "from", debit{4})
	res := received(t, done)
	if !res.Duplicate {
		t.Fatalf("%+v", res)
	}
	balance(t, repo, "to", 4, 2)
	balance(t, repo, res.ID, 4, 1)
}

// A refusal that the handler returns parks the aggregate's events, and only
// those; a person lets them go on.
func TestReactorParks(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	var mended atomic.Bool
	seen := make(chan string, 10)
	r := newReactor(t, store, "parks", aggregate.On(events, func(_ context.Context, _ opened, m jetstream.Meta, _ *aggregate.Do) error {
		if strings.HasPrefix(m.ID, "bad") && !mended.Load() {
			return map[string]error{
				"bad1": aggregate.Reject("no", "never"), "bad2": &aggregate.VersionError{},
				"bad3": &jetstream.RefusedError{Cause: nats.ErrMaxPayload}, "bad4": &jetstream.InvalidError{},
			}[m.ID]
		}
		seen <- m.ID
		return nil
	}))
	run(t, r)
	for _, id := range []string{"bad1", "bad2", "bad3", "bad4", "good"} {
		must(t, repo, id, open{1})
	}
	if id := received(t, seen); id != "good" {
		t.Fatal(id)
	}
	natstest.Eventually(t, "four lanes parked", func() error {
		n := 0
		for _, lane := range r.Status().Blocked {
			if lane.Parked {
				n++
			}
		}
		if n != 4 {
			return fmt.Errorf("%d: %+v", n, r.Status().Blocked)
		}
		return nil
	})
	mended.Store(true)
	natstest.Eventually(t, "resumed", func() error { return r.Resume(t.Context(), "") })
	for range 4 {
		received(t, seen)
	}
	if r.Name() != "parks" {
		t.Fatal(r.Name())
	}
}

// Events that were copied from another store: the effect may have been copied to
// before the event's new place.
func TestReactorOfCopiedEvents(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	from, elsewhere := newRepository(t, nc)
	cause := must(t, elsewhere, "cause", open{1})
	var stored jetstream.Meta
	for e, err := range elsewhere.History(t.Context(), "cause") {
		if err != nil {
			t.Fatal(err)
		}
		stored = e.Meta
	}
	store, repo := newRepository(t, nc)
	must(t, repo, "target", open{100})
	// The effect stands in the store already …
	must(t, repo, "target", debit{10}, aggregate.TriggeredBy(aggregate.Trigger{
		Subscriber: "copies", EventID: cause.Events[0].EventID, Step: "debit", Position: cause.Position, Time: stored.StoredAt,
	}))
	// … when its cause is copied there, byte for byte.
	js, err := natsjs.New(nc, natsjs.WithDefaultTimeout(natstest.Patience))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), from.Name())
	if err != nil {
		t.Fatal(err)
	}
	subject, err := from.Subject("account", "cause")
	if err != nil {
		t.Fatal(err)
	}
	original, err := stream.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	copied := nats.NewMsg(store.Name() + strings.TrimPrefix(subject, from.Name()))
	copied.Data = original.Data
	for k, v := range original.Header {
		if strings.HasPrefix(k, "Rossby-") || k == "Content-Type" {
			copied.Header[k] = v
		}
	}
	copied.Header["Rossby-Origin"] = []string{
		fmt.Sprintf("%s %d %s", from.ID(), original.Sequence, stored.StoredAt.Format(time.RFC3339Nano)),
	}
	copied.Header["Nats-Expected-Last-Subject-Sequence"] = []string{"0"}
	if _, err := js.PublishMsg(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	done := make(chan aggregate.Result, 1)
	run(t, newReactor(t, store, "copies", aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
		if m.ID != "cause" {
			return nil
		}
		res, err := do.Update(ctx, repo, "target", debit{10})
		if err == nil {
			tell(done, res)
		}
		return err
	})))
	if res := received(t, done); !res.Duplicate {
		t.Fatalf("%+v", res)
	}
	balance(t, repo, "target", 90, 2)
}

// An instance that dies without a word leaves its work to another.
func TestReactorFailover(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	nc := natstest.Conn(t, srv.URL())
	store, repo := newRepository(t, nc)
	must(t, repo, "to", open{0})
	dying := natstest.Conn(t, srv.URL())
	entered := make(chan struct{}, 1)
	block := make(chan struct{})
	handler := func(repo *aggregate.Repository[account], first bool) aggregate.ReactorOption {
		return aggregate.On(events, func(ctx context.Context, e debited, _ jetstream.Meta, do *aggregate.Do) error {
			_, err := do.Update(ctx, repo, "to", credit(e))
			if first {
				tell(entered, struct{}{})
				<-block
			}
			return err
		})
	}
	dead := make(chan error, 1)
	lost := newReactor(t, reopen(t, dying, store), "failover", handler(repo, true))
	go func() { dead <- lost.Run(t.Context()) }()
	must(t, repo, "from", open{10})
	must(t, repo, "from", debit{3})
	received(t, entered)
	dying.Close()
	r := leased(t, store, "failover", brief, handler(newRepo(t, store), false))
	run(t, r)
	must(t, repo, "from", debit{2})
	natstest.Eventually(t, "both debits credited", func() error {
		snap, err := repo.Load(t.Context(), "to")
		if err == nil && snap.State.Cents != 5 {
			err = fmt.Errorf("%d cents", snap.State.Cents)
		}
		return err
	})
	close(block)
	if err := received(t, dead); err == nil {
		t.Error("an instance without a connection ended without an error")
	}
	balance(t, repo, "to", 5, 3)
}

func TestReactorMistakes(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, _ := newRepository(t, nc)
	handler := aggregate.On(events, func(context.Context, opened, jetstream.Meta, *aggregate.Do) error { return nil })
	undeclared := aggregate.On(events, func(context.Context, open, jetstream.Meta, *aggregate.Do) error { return nil })
	for what, c := range map[string]struct {
		name     string
		cfg      aggregate.ReactorConfig
		handlers []aggregate.ReactorOption
		want     string
	}{
		"no start":     {"r", aggregate.ReactorConfig{}, []aggregate.ReactorOption{handler}, "Start"},
		"name":         {"No Name", reactorConfig(), []aggregate.ReactorOption{handler}, "reactor name"},
		"no handlers":  {"r", reactorConfig(), nil, "no handlers"},
		"twice":        {"r", reactorConfig(), []aggregate.ReactorOption{handler, handler}, "two handlers"},
		"undeclared":   {"r", reactorConfig(), []aggregate.ReactorOption{undeclared}, "not an event of schema"},
		"nil function": {"r", reactorConfig(), []aggregate.ReactorOption{aggregate.On[opened](events, nil)}, "nil function"},
		"no schema": {"r", reactorConfig(), []aggregate.ReactorOption{
			aggregate.On(nil, func(context.Context, opened, jetstream.Meta, *aggregate.Do) error { return nil }),
		}, "schema is nil"},
		"negative": {"r", aggregate.ReactorConfig{
			Start: jetstream.FromNow(), Version: -1, Concurrency: -1, MaxBackoff: -1,
		}, []aggregate.ReactorOption{handler}, "MaxBackoff"},
	} {
		if _, err := aggregate.NewReactor(store, c.name, c.cfg, c.handlers...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := aggregate.NewReactor(nil, "r", reactorConfig(), handler); err == nil {
		t.Error("a nil store")
	}
	if _, err := aggregate.ReadStatus(t.Context(), store, "never"); !errors.Is(err, aggregate.ErrNeverRan) {
		t.Error(err)
	}
}
