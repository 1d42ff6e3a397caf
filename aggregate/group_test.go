package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// onBoth runs a test on one server and on three.
func onBoth(t *testing.T, f func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn)) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		srv := natstest.Run(t)
		f(t, 1, func(o ...nats.Option) *nats.Conn { return natstest.Conn(t, srv.URL(), o...) })
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		f(t, 3, func(o ...nats.Option) *nats.Conn { return c.Conn(t, o...) })
	})
}

// asked is a command that waits in line.
type asked struct {
	ctx     context.Context
	command any
	// compute, unless nil, is what ExecuteFunc is called with.
	compute func(account, aggregate.Decision) (any, error)
	opts    []aggregate.CallOption
}

type answer struct {
	res aggregate.Result
	err error
}

// queue holds an aggregate while commands queue for it, in the order given, and
// returns a function that lets go and gathers what came of them.
func queue[S any](t *testing.T, repo *aggregate.Repository[S], id string, calls ...asked) (gather func() []answer) {
	t.Helper()
	release, held := make(chan struct{}), make(chan struct{})
	holding := make(chan error, 1)
	holds := sync.OnceFunc(func() { close(held) })
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	t.Cleanup(cancel)
	go func() {
		_, err := repo.ExecuteFunc(ctx, id, func(S, aggregate.Decision) (any, error) {
			holds()
			<-release
			return nil, nil //nolint:nilnil // nothing to do
		})
		holding <- err
	}()
	select {
	case <-held:
	case err := <-holding:
		t.Fatalf("%s cannot be held: %v", id, err)
	}
	answers := make([]chan answer, len(calls))
	for i, c := range calls {
		if c.ctx == nil {
			c.ctx = t.Context()
		}
		answers[i] = make(chan answer, 1)
		go func() {
			var a answer
			if c.compute != nil {
				compute := func(s S, d aggregate.Decision) (any, error) {
					return c.compute(any(s).(account), d) //nolint:forcetypeassert // only accounts compute
				}
				a.res, a.err = repo.ExecuteFunc(c.ctx, id, compute, c.opts...)
			} else {
				a.res, a.err = repo.Execute(c.ctx, id, c.command, c.opts...)
			}
			answers[i] <- a
		}()
		natstest.Eventually(t, "the command waits", func() error {
			if n := repo.Stats().Waiting; n != i+1 {
				return fmt.Errorf("%d wait, want %d", n, i+1)
			}
			return nil
		})
	}
	return func() []answer {
		close(release)
		if err := <-holding; err != nil {
			t.Error(err)
		}
		out := make([]answer, len(calls))
		for i := range answers {
			out[i] = <-answers[i]
		}
		return out
	}
}

func grouped[S any](t *testing.T, repo *aggregate.Repository[S], id string, calls ...asked) []answer {
	t.Helper()
	return queue(t, repo, id, calls...)()
}

func opts(o ...aggregate.CallOption) []aggregate.CallOption { return o }

func lastCommit(t *testing.T, store *jetstream.Store, id string) *jetstream.Commit {
	t.Helper()
	c, err := store.Last(t.Context(), "account", id, jetstream.Leader)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every caller of a group has an outcome of its own, as if it had been alone.
func TestGroupCommit(t *testing.T) { // C48
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo := newRepo(t, store)
		opening := must(t, repo, "a1", open{100})
		must(t, repo, "a1", debit{1}, aggregate.CommandID("early"))
		trigger := func(step string) aggregate.CallOption {
			return aggregate.TriggeredBy(aggregate.Trigger{
				Subscriber: "s", EventID: opening.Events[0].EventID, Step: step, Position: opening.Position,
			})
		}
		one, two := jetstream.NewCommandID(), jetstream.NewCommandID()
		const (
			other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			trace = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		)
		before := head(t, store)
		calls := []asked{
			{command: debit{10}, opts: opts(aggregate.CommandID(one), aggregate.TraceParent(other))},             // 0: 89 left, version 3
			{command: move{Out: 9, In: 1}, opts: opts(aggregate.ExpectVersion(3), aggregate.TraceParent(trace))}, // 1: 81, version 5
			{command: debit{82}}, // 2: rejected by what the others left
			{command: credit{}},  // 3: nothing
			{command: debit{1}, opts: opts(aggregate.ExpectVersion(3))},                                                   // 4: another version
			{command: debit{10}, opts: opts(aggregate.CommandID(one))},                                                    // 5: the first again
			{command: debit{11}, opts: opts(aggregate.CommandID(one))},                                                    // 6: its id for something else
			{command: debit{1}, opts: opts(aggregate.CommandID("early"))},                                                 // 7: stored before
			{command: debit{82}, opts: opts(trigger("much"))},                                                             // 8: a recorded refusal
			{command: credit{}, opts: opts(trigger("nothing"))},                                                           // 9: recorded, too
			{command: fail{"panic"}},                                                                                      // 10
			{command: move{Out: 1, In: -1}},                                                                               // 11: its Apply panics
			{command: debit{80}, opts: opts(aggregate.CommandID("any string"))},                                           // 12: 1, version 6
			{command: debit{1}, opts: opts(aggregate.CommandID(two), aggregate.Metadata(map[string]string{"user": "u"}))}, // 13: 0, 7
			{command: open{1}}, // 14: exists
		}
		got := grouped(t, repo, "a1", calls...)
		if n := head(t, store) - before; n != 1 {
			t.Fatalf("%d commits", n)
		}
		commit := lastCommit(t, store, "a1")
		stored := store.Position(commit.Sequence)
		if len(commit.Decisions) != 6 || commit.Version != 7 || commit.Ordinal != 3 {
			t.Fatalf("%d decisions: a rejected command leaves no trace, a trigger does; %+v", len(commit.Decisions), commit.Head)
		}
		version := func(i int, want uint64, events ...any) {
			t.Helper()
			a := got[i]
			if a.err != nil || a.res.Version != want || len(a.res.Events) != len(events) || a.res.Duplicate || a.res.Position != stored {
				t.Fatalf("%d: %+v %v", i, a.res, a.err)
			}
			for k, e := range a.res.Events {
				if e.Event != events[k] || e.Version != want-uint64(len(events)-1-k) || e.Position != stored {
					t.Errorf("%d: %+v", i, e)
				}
			}
		}
		version(0, 3, debited{10})
		version(1, 5, debited{9}, credited{1})
		version(3, 5)
		version(9, 5)
		version(12, 6, debited{80})
		version(13, 7, debited{1})
		for _, i := range []int{2, 8} {
			if r := as[*aggregate.RejectedError](t, got[i].err); r.Reason != "balance 81 is below 82" || got[i].res.Version != 5 {
				t.Errorf("%d: %+v %+v", i, r, got[i].res)
			}
		}
		if v := as[*aggregate.VersionError](t, got[4].err); v.Expected != 3 || v.Actual != 5 {
			t.Error(v)
		}
		if r := got[5].res; got[5].err != nil || !r.Duplicate || r.Version != 3 || r.Position != stored ||
			r.Events[0].EventID != got[0].res.Events[0].EventID {
			t.Errorf("%+v %v", r, got[5].err)
		}
		if !errors.Is(got[6].err, aggregate.ErrOtherPayload) {
			t.Error(got[6].err)
		}
		if r := got[7].res; got[7].err != nil || !r.Duplicate || r.Version != 2 {
			t.Errorf("%+v %v", r, got[7].err)
		}
		for i, text := range map[int]string{10: "on purpose", 11: "a negative credit"} {
			if got[i].err == nil || !strings.Contains(got[i].err.Error(), text) {
				t.Error(got[i].err)
			}
		}
		if !errors.Is(got[14].err, aggregate.ErrExists) {
			t.Error(got[14].err)
		}
		// What is read back is what the callers were told.
		var ids []string
		for e, err := range newRepo(t, store).History(t.Context(), "a1") {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, e.EventID)
			if want := map[uint64]string{3: other, 4: trace, 5: trace}[e.Version]; e.TraceParent != want {
				t.Errorf("version %d belongs to trace %q", e.Version, e.TraceParent)
			}
			if (e.Metadata["user"] == "u") != (e.Version == 7) || e.Version == 7 && e.Correlation != two {
				t.Errorf("%+v", e.Meta)
			}
		}
		told := slices.Concat(got[0].res.Events, got[1].res.Events, got[12].res.Events, got[13].res.Events)
		for i, e := range told {
			if ids[2+i] != e.EventID {
				t.Errorf("event %d: %s, told %s", i, ids[2+i], e.EventID)
			}
		}
		balance(t, newRepo(t, store), "a1", 0, 7)
		// Asked again, elsewhere: every one that was recorded gets its first outcome.
		elsewhere := newRepo(t, store)
		for _, i := range []int{0, 12, 13} {
			r := must(t, elsewhere, "a1", calls[i].command, calls[i].opts...)
			if !r.Duplicate || r.Version != got[i].res.Version || len(r.Events) != len(got[i].res.Events) ||
				r.Events[0].EventID != got[i].res.Events[0].EventID {
				t.Errorf("%d: %+v, first %+v", i, r, got[i].res)
			}
		}
		if _, err := elsewhere.Execute(t.Context(), "a1", debit{82}, trigger("much")); !errors.Is(err, aggregate.ErrRejected) {
			t.Error(err)
		}
		if s := repo.Stats(); s.Groups[3] != 1 || s.Decisions != s.Commits+5 || s.Duplicates != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// One rejection after another is no reason to write.
func TestGroupOfRefusals(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	other := newRepo(t, store)
	must(t, repo, "a1", open{5})
	before := head(t, store)
	for _, a := range grouped(t, repo, "a1", asked{command: debit{6}}, asked{command: debit{7}}) {
		if !errors.Is(a.err, aggregate.ErrRejected) {
			t.Error(a.err)
		}
	}
	if head(t, store) != before {
		t.Error("something was stored")
	}
	// Decided upon an old state, both are decided again.
	comes := sync.OnceFunc(func() { must(t, other, "a1", credit{10}) })
	got := grouped(t, repo, "a1",
		asked{command: debit{16}}, asked{command: debit{7}},
		asked{compute: func(account, aggregate.Decision) (any, error) {
			comes()
			return nil, nil //nolint:nilnil // nothing to do
		}})
	if !errors.Is(got[0].err, aggregate.ErrRejected) || got[1].err != nil || got[1].res.Version != 3 ||
		got[2].err != nil || got[2].res.Version != 3 {
		t.Errorf("%+v", got)
	}
}

// After a conflict all are decided again, in the same order.
func TestGroupConflict(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		repo, other := newRepo(t, store), newRepo(t, reopen(t, connect(), store))
		must(t, repo, "a1", open{100})
		var seen []int64
		tries := 0
		got := grouped(t, repo, "a1",
			asked{command: debit{50}},
			asked{compute: func(a account, _ aggregate.Decision) (any, error) {
				seen = append(seen, a.Cents)
				if tries++; tries == 1 {
					must(t, other, "a1", debit{30}) // another process comes first
				}
				return debit{a.Cents / 2}, nil
			}},
			asked{command: debit{30}}, // possible at first, not in the end
		)
		if !slices.Equal(seen, []int64{50, 20}) || got[0].err != nil || got[0].res.Version != 3 ||
			got[1].err != nil || got[1].res.Version != 4 || got[1].res.Events[0].Event != (debited{10}) {
			t.Fatalf("%v %+v", seen, got)
		}
		if r := as[*aggregate.RejectedError](t, got[2].err); r.Reason != "balance 10 is below 30" {
			t.Error(r)
		}
		balance(t, newRepo(t, store), "a1", 10, 4)
		if s := repo.Stats(); s.Conflicts != 1 || s.Retries != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// A context that ends is the business of its caller alone.
func TestGroupContexts(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		t.Run("Waiting", func(t *testing.T) {
			t.Parallel()
			store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
			repo := newRepo(t, store)
			must(t, repo, "a1", open{100})
			ctx, cancel := context.WithCancel(t.Context())
			gather := queue(t, repo, "a1", asked{command: debit{1}}, asked{ctx: ctx, command: debit{10}}, asked{command: debit{1}})
			cancel()
			leaves(t, repo)
			got := gather()
			if err := got[1].err; !errors.Is(err, jetstream.ErrUnavailable) || !errors.Is(err, context.Canceled) {
				t.Errorf("%+v", got[1])
			}
			if got[0].err != nil || got[2].err != nil {
				t.Errorf("%+v", got)
			}
			balance(t, newRepo(t, store), "a1", 98, 3)
		})

		t.Run("WhileOthersDecide", func(t *testing.T) {
			t.Parallel()
			store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
			repo := newRepo(t, store)
			must(t, repo, "a1", open{100})
			ctx, cancel := context.WithCancel(t.Context())
			tries := 0
			got := grouped(t, repo, "a1",
				asked{ctx: ctx, command: debit{50}}, // decided, then its caller leaves
				asked{compute: func(a account, _ aggregate.Decision) (any, error) {
					if tries++; tries == 1 {
						cancel()
						leaves(t, repo)
					}
					return debit(a), nil
				}},
			)
			if !errors.Is(got[0].err, jetstream.ErrUnavailable) || got[1].err != nil || got[1].res.Events[0].Event != (debited{100}) || tries != 2 {
				t.Errorf("%d %+v", tries, got)
			}
			balance(t, newRepo(t, store), "a1", 0, 2)
		})

		t.Run("AfterAConflict", func(t *testing.T) {
			t.Parallel()
			store := newStore(t, connect(), jetstream.Config{Replicas: replicas})
			repo, other := newRepo(t, store), newRepo(t, reopen(t, connect(), store))
			must(t, repo, "a1", open{100})
			ctx, cancel := context.WithCancel(t.Context())
			tries := 0
			got := grouped(t, repo, "a1",
				asked{ctx: ctx, command: debit{50}}, // sent once, in vain; then its caller leaves
				asked{compute: func(a account, _ aggregate.Decision) (any, error) {
					switch tries++; tries {
					case 1:
						must(t, other, "a1", debit{1})
					case 2:
						cancel()
						leaves(t, repo)
					}
					return debit(a), nil
				}},
			)
			if !errors.Is(got[0].err, jetstream.ErrUnavailable) || got[1].err != nil || got[1].res.Events[0].Event != (debited{99}) || tries != 3 {
				t.Errorf("%d %+v", tries, got)
			}
			balance(t, newRepo(t, store), "a1", 0, 3)
		})

		t.Run("OnItsWay", func(t *testing.T) {
			t.Parallel()
			e := newEars()
			store := newStore(t, connect(nats.SetCustomDialer(e)), jetstream.Config{Replicas: replicas})
			repo, watcher := newRepo(t, store), newRepo(t, reopen(t, connect(), store))
			must(t, repo, "a1", open{100})
			ctx, cancel := context.WithCancel(t.Context())
			gather := queue(t, repo, "a1",
				asked{ctx: ctx, command: debit{10}, opts: opts(aggregate.CommandID("mine"))},
				asked{compute: func(account, aggregate.Decision) (any, error) {
					e.setDeaf(true)
					return debit{1}, nil
				}},
			)
			done := make(chan []answer)
			go func() { done <- gather() }()
			natstest.Eventually(t, "stored", func() error {
				snap, err := watcher.Load(t.Context(), "a1")
				if err == nil && snap.Version != 3 {
					err = fmt.Errorf("version %d", snap.Version)
				}
				return err
			})
			cancel()
			leaves(t, repo)
			e.setDeaf(false)
			got := <-done
			if err := got[0].err; !errors.Is(err, jetstream.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
				t.Errorf("%+v", got[0])
			}
			if got[1].err != nil || got[1].res.Version != 3 {
				t.Errorf("%+v", got[1])
			}
			if res := must(t, repo, "a1", debit{10}, aggregate.CommandID("mine")); !res.Duplicate || res.Version != 2 {
				t.Errorf("%+v", res)
			}
			if s := repo.Stats(); s.Unknown != 1 {
				t.Errorf("%+v", s)
			}
		})
	})
}

// leaves waits until a caller whose context has ended has its answer.
func leaves(t *testing.T, repo *aggregate.Repository[account]) {
	t.Helper()
	natstest.Eventually(t, "the caller leaves", func() error {
		if s := repo.Stats(); s.Withdrawn+s.Unknown != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// An outcome that is unknown is unknown to all of the group, and asking again is
// safe for each.
func TestGroupUnknown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		e := newEars()
		plain := newStore(t, connect(), jetstream.Config{Replicas: replicas})
		must(t, newRepo(t, plain), "a1", open{100})
		store := newStore(t, connect(nats.SetCustomDialer(e)), jetstream.Config{
			Name: plain.Name(), AttemptTimeout: 250 * time.Millisecond, AppendTimeout: 500 * time.Millisecond,
		})
		repo := newRepo(t, store)
		calls := []asked{
			{command: debit{10}, opts: opts(aggregate.CommandID(jetstream.NewCommandID()))},
			{command: debit{91}, opts: opts(aggregate.CommandID(jetstream.NewCommandID()))}, // refused because of the first
			{command: debit{10}, opts: opts(aggregate.CommandID("any string"))},
			{compute: func(account, aggregate.Decision) (any, error) {
				e.setDeaf(true)
				return debit{1}, nil
			}, opts: opts(aggregate.CommandID(jetstream.NewCommandID()))},
		}
		for i, a := range grouped(t, repo, "a1", calls...) {
			if !errors.Is(a.err, jetstream.ErrUnknownOutcome) {
				t.Errorf("%d: %+v", i, a)
			}
		}
		e.setDeaf(false)
		for i, want := range []uint64{2, 0, 3} {
			res, err := surely(t.Context(), repo, "a1", calls[i].command, calls[i].opts...)
			switch {
			case want == 0 && !errors.Is(err, aggregate.ErrRejected), want > 0 && (err != nil || res.Version != want || !res.Duplicate):
				t.Errorf("%d: %+v %v", i, res, err)
			}
		}
		balance(t, newRepo(t, reopen(t, connect(), store)), "a1", 79, 4)
	})
}

// What is too much for one commit together is done one by one.
func TestGroupRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store := newStore(t, nc, jetstream.Config{})
	repo, err := aggregate.NewRepository(store, notebooks, aggregate.RepositoryConfig{GroupBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	text := func(kilobytes int) string { return strings.Repeat("x", kilobytes<<10) }
	must(t, repo, "n1", start{})
	before := head(t, store)
	got := grouped(t, repo, "n1",
		asked{command: scribble{text(600)}}, asked{command: scribble{text(1200)}}, asked{command: scribble{""}}, asked{command: scribble{text(500)}})
	if got[0].err != nil || got[0].res.Version != 2 || got[3].err != nil || got[3].res.Version != 3 {
		t.Errorf("%d %v, %d %v", got[0].res.Version, got[0].err, got[3].res.Version, got[3].err)
	}
	wantAs[*jetstream.RefusedError](t, got[1].err)
	if !errors.Is(got[2].err, aggregate.ErrRejected) {
		t.Error(got[2].err)
	}
	if n := head(t, store) - before; n != 2 {
		t.Errorf("%d commits", n)
	}
}

// A group is bounded by the number of its commands and by their bytes; the order
// is that in which they came.
func TestGroupBounds(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	for name, c := range map[string]struct {
		cfg     aggregate.RepositoryConfig
		commits []int
	}{
		"Default": {aggregate.RepositoryConfig{}, []int{10}},
		"Limit":   {aggregate.RepositoryConfig{GroupLimit: 4}, []int{4, 4, 2}},
		"Off":     {aggregate.RepositoryConfig{GroupLimit: 1}, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		"Bytes":   {aggregate.RepositoryConfig{GroupBytes: 4000}, []int{3, 3, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, nc, jetstream.Config{})
			repo, err := aggregate.NewRepository(store, notebooks, c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			must(t, repo, "n1", start{})
			calls := make([]asked, 10)
			text := func(i int) string { return strconv.Itoa(i) + strings.Repeat(" ", 1000) }
			for i := range calls {
				calls[i].command = scribble{text(i)}
			}
			for i, a := range grouped(t, repo, "n1", calls...) {
				if a.err != nil || a.res.Version != uint64(i+2) || a.res.Events[0].Event != (written{text(i)}) {
					t.Errorf("%d: %+v", i, a)
				}
			}
			var sizes []int
			for c, err := range store.History(t.Context(), "notebook", "n1", jetstream.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, len(c.Decisions))
			}
			if !slices.Equal(sizes[1:], c.commits) {
				t.Errorf("decisions in the commits: %v, want %v", sizes[1:], c.commits)
			}
		})
	}
}

type (
	started struct{}
	written struct{ Text string }

	notebook struct{ Notes int }

	start    struct{}
	scribble struct{ Text string }
)

// notebooks have events of any size.
var notebooks = aggregate.New[notebook](
	jetstream.NewSchema("notebook", jetstream.Event[started]("started"), jetstream.Event[written]("noted")),
	aggregate.Ignore[started](),
	aggregate.Apply(func(n *notebook, _ written, _ jetstream.Meta) { n.Notes++ }),
	aggregate.Create("start", func(start, aggregate.Decision) ([]any, error) { return []any{started{}}, nil }),
	aggregate.Handle("note", func(_ notebook, c scribble, _ aggregate.Decision) ([]any, error) {
		if c.Text == "" {
			return nil, aggregate.Reject("empty", "there is nothing to note")
		}
		return []any{written(c)}, nil
	}),
)
