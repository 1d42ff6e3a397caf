package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// effectOf is the effect of an event's step.
func effectOf(cause aggregate.Result, subscriber, step string) aggregate.Trigger {
	return aggregate.Trigger{
		Subscriber: subscriber, EventID: cause.Events[0].EventID, Step: step, Position: cause.Position, Time: time.Now(),
	}
}

// sentBy counts what a connection sends while f runs: one message a read, one an
// append.
func sentBy(nc *nats.Conn, f func()) uint64 {
	before := nc.Stats().OutMsgs
	f()
	return nc.Stats().OutMsgs - before
}

// grow appends commits to an account, the cheapest way there is.
func grow(t testing.TB, repo *aggregate.Repository[account], id string, commits int) {
	t.Helper()
	for range commits {
		must(t, repo, id, credit{1})
	}
}

// The search for a trigger reads the commits after the event and no others: a
// history before it of any length costs nothing.
func TestTriggersAreSearchedAfterTheEvent(t *testing.T) { // C17, C22
	t.Parallel()
	onBoth(t, func(t *testing.T, replicas int, connect func(...nats.Option) *nats.Conn) {
		for _, limit := range []int{0, aggregate.StateLimitDefault} { // without a state in the commits, and with
			typ := newAccounts(aggregate.StateLimit(limit))
			nc := connect()
			store := newStore(t, nc, jetstream.Config{Replicas: replicas})
			cold := func() *aggregate.Repository[account] { return repoOf(t, store, typ) }
			repo := cold()
			cost := make([]uint64, 0, 2)
			for _, history := range []int{10, times(1500, 300)} {
				id := fmt.Sprint("a", history)
				must(t, repo, id, open{0})
				grow(t, repo, id, history)
				cause := must(t, repo, fmt.Sprint("cause", history), open{1})
				trigger := aggregate.TriggeredBy(effectOf(cause, "s", "x"))
				first := must(t, repo, id, credit{1000}, trigger)
				grow(t, repo, id, 20)
				again := cold()
				if limit == 0 { // the state is replayed: that is another matter
					if _, err := again.Load(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				cost = append(cost, sentBy(nc, func() {
					res := must(t, again, id, credit{1000}, trigger)
					if !res.Duplicate || res.Version != first.Version || res.Position != first.Position ||
						res.Events[0].EventID != first.Events[0].EventID {
						t.Errorf("%+v, first %+v", res, first)
					}
				}))
				// One that was never handled: 22 commits were read already, none is read twice.
				next := 0
				costs(t, "the next one", nc, 3, func() {
					next++
					must(t, again, id, credit{1}, aggregate.TriggeredBy(effectOf(cause, "s", fmt.Sprint("y", next))))
				})
			}
			// A replica may lag and be asked again, so a few more are no fault.
			if cost[0] > 35 || cost[1] > 35 {
				t.Errorf("%v requests, want about 21 each", cost)
			}
		}
	})
}

// Handled once, handled for ever: thousands of commits later, by any process.
func TestTriggersForEver(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	cause := must(t, repo, "cause", open{1})
	on := func(subscriber, step string) aggregate.CallOption {
		return aggregate.TriggeredBy(effectOf(cause, subscriber, step))
	}
	made, err := repo.Create(t.Context(), "", open{100}, on("maker", "open")) // created from the event
	if err != nil {
		t.Fatal(err)
	}
	calls := []struct {
		command any
		opt     aggregate.CallOption
		want    func(aggregate.Result, error) bool
	}{
		{debit{10}, on("one", "debit"), func(r aggregate.Result, err error) bool { return err == nil && r.Version == 2 }},
		{debit{10}, on("two", "debit"), func(r aggregate.Result, err error) bool { return err == nil && r.Version == 3 }},
		{debit{10}, on("two", "again"), func(r aggregate.Result, err error) bool { return err == nil && r.Version == 4 }},
		{debit{999}, on("two", "much"), func(_ aggregate.Result, err error) bool { return errors.Is(err, aggregate.ErrRejected) }},
		{credit{}, on("two", "none"), func(r aggregate.Result, err error) bool { return err == nil && r.Version == 4 }},
		{open{1}, on("two", "open"), func(_ aggregate.Result, err error) bool { return errors.Is(err, aggregate.ErrExists) }},
	}
	for i, c := range calls {
		if res, err := repo.Execute(t.Context(), made.ID, c.command, c.opt); !c.want(res, err) || res.Duplicate {
			t.Fatalf("%d: %+v %v", i, res, err)
		}
	}
	later := uint64(times(5000, 1000))
	grow(t, repo, made.ID, int(later))
	cold := newRepo(t, store)
	again := func(r *aggregate.Repository[account]) {
		for i, c := range calls {
			if res, err := r.Execute(t.Context(), made.ID, c.command, c.opt); !c.want(res, err) || !res.Duplicate {
				t.Errorf("%d: %+v %v", i, res, err)
			}
		}
		if res, err := r.Create(t.Context(), "", open{100}, on("maker", "open")); err != nil || !res.Duplicate || res.ID != made.ID || res.Version != 1 {
			t.Errorf("%+v %v", res, err)
		}
	}
	// The tail is read once for all of them.
	if n := sentBy(nc, func() { again(cold) }); n < later || n > later+50 {
		t.Errorf("%d requests for a tail of %d commits", n, later)
	}
	costs(t, "a tail that was read before", nc, 20, func() { again(cold) })
	again(repo)
	balance(t, cold, made.ID, 70+int64(later), 4+later)
}

// A reactor that is far behind reads its target's tail once, not once a trigger.
func TestALaggingReactorReadsATailOnce(t *testing.T) { // C22
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	events, tail := times(200, 50), times(1000, 250)
	causes := make([]aggregate.Result, events)
	must(t, repo, "a1", open{0})
	for i := range causes {
		causes[i] = must(t, repo, fmt.Sprint("cause", i), open{1})
	}
	grow(t, repo, "a1", tail)
	cold := newRepo(t, store)
	n := sentBy(nc, func() {
		for _, c := range causes {
			must(t, cold, "a1", credit{10}, aggregate.TriggeredBy(effectOf(c, "s", "x")))
		}
	})
	if n > uint64(tail+events+50) {
		t.Errorf("%d requests for %d triggers and a tail of %d commits", n, events, tail)
	}
	balance(t, cold, "a1", int64(tail+10*events), uint64(1+tail+events))
}

// An event that was held, and is handled a month later: the time of the decision
// is no part of the search.
func TestTriggersAMonthLater(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	_, elsewhere := newRepository(t, nc)
	foreign := must(t, elsewhere, "cause", open{1})
	store, repo := newRepository(t, nc)
	cause := must(t, repo, "cause", open{1})
	must(t, repo, "a1", open{100})
	triggers := []aggregate.Trigger{effectOf(cause, "s", "x"), effectOf(foreign, "s", "x")}
	for _, trigger := range triggers {
		must(t, repo, "a1", debit{10}, aggregate.TriggeredBy(trigger))
	}
	for _, r := range []*aggregate.Repository[account]{repo, newRepo(t, store)} {
		r.SetClock(func() time.Time { return time.Now().AddDate(0, 1, 0) })
		grow(t, r, "a1", 5)
		for _, trigger := range triggers {
			if res := must(t, r, "a1", debit{10}, aggregate.TriggeredBy(trigger)); !res.Duplicate {
				t.Errorf("%+v", res)
			}
		}
		// One that was held all the time happens now.
		trigger := effectOf(cause, "s", fmt.Sprintf("held-%p", r))
		if res := must(t, r, "a1", credit{1}, aggregate.TriggeredBy(trigger)); res.Duplicate || time.Until(res.Events[0].Time) < 24*time.Hour {
			t.Errorf("%+v", res)
		}
	}
	balance(t, newRepo(t, store), "a1", 92, 15)
}

// copyCommits copies an aggregate's commits to another store as they are, which
// notes where they were stored first.
func copyCommits(t *testing.T, from, to *jetstream.Store, id string) {
	t.Helper()
	last := uint64(0)
	for c, err := range from.History(t.Context(), "account", id, jetstream.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		source, err := from.Subject("account", id)
		if err != nil {
			t.Fatal(err)
		}
		m, err := from.Conn().Request("$JS.API.DIRECT.GET."+from.Name(),
			fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, c.Sequence, source), natstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		subject, err := to.Subject("account", id)
		if err != nil {
			t.Fatal(err)
		}
		msg := &nats.Msg{Subject: subject, Data: m.Data, Header: nats.Header{}}
		for _, name := range []string{"Rossby-Commit", "Rossby-Chain", "Rossby-Events", "Rossby-Format", "Content-Type"} {
			if v := m.Header[name]; v != nil {
				msg.Header[name] = v
			}
		}
		msg.Header["Rossby-Origin"] = []string{fmt.Sprintf("%s %d %s", from.ID(), c.Sequence, c.Time.Format(time.RFC3339Nano))}
		msg.Header[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(last, 10)}
		if _, err := to.Conn().RequestMsg(msg, natstest.Patience); err != nil {
			t.Fatal(err)
		}
		commit := lastCommit(t, to, id)
		if commit.CommitID != c.CommitID || commit.Origin == nil {
			t.Fatalf("copied %+v, is %+v", c.Head, commit.Head)
		}
		last = commit.Sequence
	}
}

// After an import the event stands behind the commit that handled it, in another
// store and at another sequence. The reactor that handled it before does not do it
// again.
func TestTriggersAfterAnImport(t *testing.T) { // C19, AC-A18: a re-published event is still a duplicate
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	old, repo := newRepository(t, nc)
	handled := make(chan string, 100)
	reactor := func(store *jetstream.Store, repo *aggregate.Repository[account]) *aggregate.Reactor {
		return newReactor(t, store, "mirror", aggregate.On(events,
			func(ctx context.Context, e opened, m jetstream.Meta, do *aggregate.Do) error {
				if m.ID == "target" {
					return nil
				}
				res, err := do.Update(ctx, repo, "target", credit(e))
				if err == nil {
					handled <- fmt.Sprint(m.ID, " ", res.Duplicate, " ", res.Version)
				}
				return err
			}))
	}
	must(t, repo, "target", open{0})
	grow(t, repo, "target", 300)
	must(t, repo, "cause", open{10})
	stop := run(t, reactor(old, repo))
	if got := received(t, handled); got != "cause false 302" {
		t.Fatal(got)
	}
	stop()
	fresh := newStore(t, nc, jetstream.Config{})
	copyCommits(t, old, fresh, "target")
	copyCommits(t, old, fresh, "cause") // behind what it led to
	there := newRepo(t, fresh)
	// Of the copied commits, those older than the event are not read.
	cause := lastCommit(t, fresh, "cause")
	copied := aggregate.TriggeredBy(aggregate.Trigger{
		Subscriber: "mirror", EventID: cause.EventID(0), Step: "other", Time: cause.Origin.Time.Add(time.Minute),
	})
	costs(t, "an effect of a copied event", nc, 10, func() { must(t, newRepo(t, fresh), "target", credit{}, copied) })
	must(t, there, "new", open{7}) // one that nobody handled yet
	run(t, reactor(fresh, there))
	got := []string{received(t, handled), received(t, handled)}
	slices.Sort(got) // aggregates side by side
	if want := []string{"cause true 302", "new false 303"}; !slices.Equal(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
	balance(t, there, "target", 317, 303)
}
