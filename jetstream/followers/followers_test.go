package followers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

type happened struct{ N int }

var events = jetstream.NewSchema("thing", jetstream.Event[happened]("happened"))

// bench is a store with a gateway that fails as it is told.
type bench struct {
	t     *testing.T
	store *jetstream.Store
	admin *followers.Admin
	heads map[string]jetstream.Head

	mu   sync.Mutex
	got  []string
	fail func(id string, n int) error
}

func newBench(t *testing.T, nc *nats.Conn, replicas int) *bench {
	t.Helper()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t), Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	return benchOf(t, store)
}

func namedBench(t *testing.T, nc *nats.Conn, name string) *bench {
	t.Helper()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return benchOf(t, store)
}

func benchOf(t *testing.T, store *jetstream.Store) *bench {
	t.Helper()
	return &bench{t: t, store: store, admin: followers.New(store), heads: map[string]jetstream.Head{}}
}

// append stores one commit of as many events as there are numbers.
func (b *bench) append(id string, numbers ...int) {
	b.t.Helper()
	d := jetstream.Decision{}
	for _, n := range numbers {
		e, err := events.Encode(happened{n}, b.store.Codec())
		if err != nil {
			b.t.Fatal(err)
		}
		d.Events = append(d.Events, e)
	}
	head, err := b.store.Append(b.t.Context(), jetstream.Write{
		Type: "thing", ID: id, After: b.heads[id], Decisions: []jetstream.Decision{d},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.heads[id] = head
}

func (b *bench) fails(f func(id string, n int) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = f
}

func (b *bench) delivered() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

func (b *bench) gateway() *gateway.Gateway {
	b.t.Helper()
	g, err := gateway.New(b.store, "out", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: slog.New(slog.DiscardHandler),
		TTL:      12 * time.Second, // what a machine that stands still can renew: nothing is done twice
		Policies: []gateway.Policy{{Attempts: 1}}, LedgerTTL: -1,
	}, gateway.On(events, func(_ context.Context, e happened, d gateway.Delivery) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.fail != nil {
			if err := b.fail(d.ID, e.N); err != nil {
				return err
			}
		}
		mark := ""
		if d.Replay {
			mark = " again"
		}
		b.got = append(b.got, fmt.Sprintf("%s %d%s", d.ID, e.N, mark))
		return nil
	}))
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

// run runs a gateway until the test ends or stop is called.
func (b *bench) run() (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	g := b.gateway()
	go func() { done <- g.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// eventually waits for a status of the running gateway.
func (b *bench) eventually(what string, ok func(followers.Status) bool) followers.Status {
	b.t.Helper()
	var s followers.Status
	if !natstest.Eventually(b.t, what, func() error {
		var err error
		if s, err = b.admin.Status(b.t.Context(), "out"); err != nil {
			return err
		}
		if !ok(s) {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	}) {
		b.t.FailNow()
	}
	return s
}

// asks repeats what is asked until somebody answers. Who is slow may have done it all the same: after
// the first time the errors say that it was done before.
func (b *bench) asks(what string, ask func() error, before ...error) {
	b.t.Helper()
	tried := false
	if !natstest.Eventually(b.t, what, func() error {
		err := ask()
		for _, done := range before {
			if tried && errors.Is(err, done) {
				return nil
			}
		}
		tried = true
		return err
	}) {
		b.t.FailNow()
	}
}

// refused asks until the answer is the one that is wanted; none is not.
func (b *bench) refused(what string, ask func() error, want func(error) bool) {
	b.t.Helper()
	natstest.Eventually(b.t, what, func() error {
		err := ask()
		if err == nil {
			b.t.Errorf("%s: done", what)
		}
		if err == nil || want(err) {
			return nil
		}
		return err
	})
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func isInvalid(field string) func(error) bool {
	return func(err error) bool {
		invalid, ok := errors.AsType[*jetstream.InvalidError](err)
		return ok && (field == "" || invalid.Field == field)
	}
}

func caughtUp(s followers.Status) bool { return s.CaughtUp && s.Kind == "gateway" }

func each(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, newBench(t, natstest.Conn(t, natstest.Run(t).URL()), 1))
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, newBench(t, natstest.RunCluster(t).Conn(t), 3))
	})
}

// What is parked is listed by what went wrong, shown, tried again alone or
// together, or given up with a reason; all of it is recorded.
func TestParked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		b.fails(func(id string, n int) error {
			switch {
			case strings.HasPrefix(id, "a"):
				return fmt.Errorf("order %d: no such customer \"%s\"", n, id)
			case id == "b" && n == 21:
				return errors.New("too heavy")
			}
			return nil
		})
		b.append("a1", 1)
		b.append("a2", 2)
		b.append("a3", 3)
		b.append("b", 20, 21, 22)
		b.append("a1", 4)
		b.append("c", 5)
		b.run()
		s := b.eventually("everything waits or is done", func(s followers.Status) bool { return s.Kind == "gateway" && s.Parked == 4 && len(b.delivered()) == 2 })
		if s.Name != "out" || s.State != "active" || s.Owner == "" || s.CaughtUp || len(s.Lanes) != 4 || !strings.Contains(string(s.Details), `"destinations":[{"name":"out","breaker":"closed"`) {
			t.Errorf("%+v", s)
		}
		var groups []followers.Group
		b.asks("what is parked", func() (err error) {
			groups, err = b.admin.Parked(ctx, "out")
			return err
		})
		if len(groups) != 2 || groups[0].Count != 3 || groups[1].Count != 1 ||
			groups[0].Pattern != "thing happened: order …: no such customer …" || groups[1].Pattern != "thing happened: too heavy" {
			t.Fatalf("%+v", groups)
		}
		heavy := groups[1].Lanes[0]
		if heavy.Done != 1 || heavy.Attempts != 1 || heavy.Since == nil || time.Since(*heavy.Since) > time.Hour || groups[0].Oldest == nil {
			t.Errorf("%+v", groups)
		}
		c, err := b.admin.Show(ctx, heavy)
		if err != nil || c.ID != "b" || c.Events() != 3 {
			t.Errorf("%+v, %v", c, err)
		}

		// One is tried again in vain, then all of its group with success.
		first := groups[0].Lanes[0]
		retry := func(what string, selection followers.Selection, want int) {
			t.Helper()
			asked := 0
			b.asks(what, func() error {
				asked++
				n, err := b.admin.Retry(ctx, "out", selection, "ada")
				if err == nil && asked == 1 && n != want {
					t.Errorf("%s: %d lanes, want %d", what, n, want)
				}
				return err
			}, followers.ErrNotWaiting)
		}
		retry("retry one", followers.Selection{Lane: first.Lane}, 1)
		b.eventually("it is parked again", func(s followers.Status) bool { return s.Parked == 4 })
		b.fails(func(id string, n int) error {
			if id == "b" && n == 21 {
				return errors.New("too heavy")
			}
			return nil
		})
		retry("retry the group", followers.Selection{Group: groups[0].ID}, 3)
		b.eventually("they are done", func(s followers.Status) bool { return s.Parked == 1 && len(b.delivered()) == 6 })

		// What waits is named exactly, and a reason is required.
		other := heavy
		other.Sequence++
		for _, c := range []struct {
			lane   followers.Lane
			reason string
			want   error
		}{{other, "x", followers.ErrNotWaiting}, {first, "x", followers.ErrNotWaiting}} {
			b.refused("discard of what does not wait", func() error {
				return b.admin.Discard(ctx, "out", c.lane, false, "ada", c.reason)
			}, is(c.want))
		}
		b.refused("discard without a reason", func() error {
			return b.admin.Discard(ctx, "out", heavy, false, "ada", "")
		}, isInvalid("reason"))
		b.asks("discard", func() error {
			return b.admin.Discard(ctx, "out", heavy, false, "ada", "it was sent by post")
		}, followers.ErrNotWaiting)
		b.eventually("the rest is done", caughtUp)
		if got := strings.Join(b.delivered(), ", "); strings.Contains(got, "b 21") || strings.Count(got, "b 20") != 1 ||
			strings.Count(got, "b 22") != 1 || strings.Index(got, "a1 1") > strings.Index(got, "a1 4") || len(b.delivered()) != 7 {
			t.Errorf("delivered %s", got)
		}
		b.refused("retry of what is done", func() error {
			_, err := b.admin.Retry(ctx, "out", followers.Selection{Lane: first.Lane}, "ada")
			return err
		}, is(followers.ErrNotWaiting))
		b.refused("retry of nothing", func() error {
			_, err := b.admin.Retry(ctx, "out", followers.Selection{}, "ada")
			return err
		}, isInvalid(""))
		retry("retry of all", followers.Selection{All: true}, 0)
		var did []string
		for a, err := range b.admin.Actions(ctx, "out") {
			if err != nil {
				t.Fatal(err)
			}
			if a.By != "ada" || a.Follower != "out" || time.Since(a.Time) > time.Hour {
				t.Errorf("%+v", a)
			}
			did = append(did, a.Do+" "+a.Reason)
		}
		// What was asked again because nobody answered is recorded again.
		if each := slices.Compact(slices.Clone(did)); len(did) < 3 ||
			fmt.Sprintf("%q", each) != `["retry " "discard it was sent by post"]` {
			t.Errorf("actions %q", did)
		}
	})
}

// A pause holds over owners; a replay is flagged; where nobody runs, what is recorded
// is shown and nothing can be asked.
func TestPauseAndReplay(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		b.refused("status of none", func() error {
			_, err := b.admin.Status(ctx, "out")
			return err
		}, is(followers.ErrNeverRan))
		b.refused("pause of none", func() error { return b.admin.Pause(ctx, "out", "ada", "x") }, is(followers.ErrNeverRan))
		list := func(want ...string) {
			t.Helper()
			b.asks("the list", func() error {
				all, err := b.admin.List(ctx)
				if err == nil && (len(all) != len(want) || len(want) > 0 && all[0].Name != want[0]) {
					t.Errorf("%+v", all)
				}
				return err
			})
		}
		list()
		for n := range 5 {
			b.append("a", n)
		}
		stop := b.run()
		b.eventually("all is done", caughtUp)
		b.asks("pause", func() error { return b.admin.Pause(ctx, "out", "ada", "the partner moves") })
		b.append("a", 5)
		b.eventually("it is paused", func(s followers.Status) bool {
			return s.State == "paused" && s.Paused.By == "ada" && s.Paused.Reason == "the partner moves" && s.Lag > 0
		})
		stop()
		b.asks("status", func() error {
			s, err := b.admin.Status(ctx, "out")
			if err == nil && (s.State != "stopped" || s.Kind != "" || s.Paused == nil) {
				t.Errorf("%+v", s)
			}
			return err
		})
		b.refused("resume of one that does not run", func() error { return b.admin.Resume(ctx, "out", "ada") },
			is(followers.ErrNotRunning))
		b.run()
		b.run() // a standby, which is silent
		b.eventually("it is still paused", func(s followers.Status) bool { return s.State == "paused" })
		if n := len(b.delivered()); n != 5 {
			t.Errorf("%d delivered", n)
		}
		b.asks("resume", func() error { return b.admin.Resume(ctx, "out", "ada") })
		b.eventually("all is done", caughtUp)

		first, last := b.store.Position(b.heads["a"].Sequence-2), b.store.Position(b.heads["a"].Sequence)
		b.refused("a replay without a reason", func() error {
			return b.admin.Replay(ctx, "out", first, last, "ada", "")
		}, isInvalid(""))
		b.refused("a replay backwards", func() error {
			return b.admin.Replay(ctx, "out", last, first, "ada", "x")
		}, is(followers.ErrRefused))
		if err := b.admin.Replay(ctx, "out", jetstream.Position{}, last, "ada", "x"); err == nil {
			t.Error("a replay from nowhere")
		}
		b.asks("a replay", func() error {
			err := b.admin.Replay(ctx, "out", first, last, "ada", "they lost a day")
			if err != nil && len(b.delivered()) > 6 {
				return nil // it was taken, and answered too late
			}
			return err
		}, followers.ErrRefused)
		b.eventually("the replay is over", func(s followers.Status) bool { return s.Replay == nil && len(b.delivered()) >= 9 })
		// One that was asked for again happens again.
		got := b.delivered()[6:]
		for i, want := range slices.Repeat([]string{"a 3 again", "a 4 again", "a 5 again"}, max(len(got)/3, 1)) {
			if len(got)%3 != 0 || got[i] != want {
				t.Fatalf("replayed %q", got)
			}
		}
		b.asks("end of no replay", func() error { return b.admin.EndReplay(ctx, "out", "ada", "just in case") })
		list("out")
	})
}

// Bad requests of any client get an answer that names what is wrong, and end
// nothing.
func TestRequestsOfOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	b.append("a", 1)
	b.run()
	b.eventually("all is done", caughtUp)
	for body, want := range map[string]string{
		"{":                               "is not JSON",
		`{"by":7}`:                        "is not JSON",
		strings.Repeat("x", 65<<10):       "is too long",
		`{"lane":"x.y","reason":"r"}`:     "no such blocked lane",
		`{"lane":"x","whole":true}`:       "reason",
		`{"lane":"\u0000","reason":"r"}`:  "no such blocked lane",
		`{"sequence":99999,"reason":"r"}`: "no such blocked lane",
	} {
		m, err := b.store.Conn().Request(followers.Subject(b.store.Name(), "out", followers.DoDiscard), []byte(body), natstest.Patience)
		if err != nil || m.Header.Get("Nats-Service-Error-Code") == "" || !strings.Contains(string(m.Data), want) {
			t.Errorf("%.40q: %v, %q does not say %q", body, err, m.Data, want)
		}
	}
	m, err := b.store.Conn().Request(followers.Subject(b.store.Name(), "out", followers.DoStatus), nil, natstest.Patience)
	var s followers.Status
	if err != nil || json.Unmarshal(m.Data, &s) != nil || s.Position == 0 {
		t.Errorf("%v %q", err, m.Data)
	}
	if err := b.admin.Pause(t.Context(), "no such\nname", "", ""); err == nil {
		t.Error("a name that is none")
	}
	if _, err := b.admin.Show(t.Context(), followers.Lane{Lane: "other.event.thing.1.a"}); err == nil {
		t.Error("a lane of another store")
	}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	same := [][2]string{
		{`event Ab_-9.0 (paid of order "o1", version 12): status 503: "x"`, `event Xz.1 (paid of order "o 2", version 3): status 502: "y"`},
		{"dial tcp 10.0.0.1:443: refused", "dial tcp 10.0.0.2:8443: refused"},
		{"id 123e4567-e89b-12d3-a456-426614174000 is gone", "id 00000000-e89b-12d3-a456-426614174000 is gone"},
	}
	for _, pair := range same {
		if followers.GroupID(pair[0]) != followers.GroupID(pair[1]) {
			t.Errorf("%q and %q differ", followers.Pattern(pair[0]), followers.Pattern(pair[1]))
		}
	}
	if followers.GroupID("refused") == followers.GroupID("reset") ||
		followers.GroupID(`event a.0 (paid of order "o", version 1): x`) == followers.GroupID(`event a.0 (sent of order "o", version 1): x`) {
		t.Error("failures that differ are one group")
	}
	if followers.GroupLanes(nil) == nil {
		t.Error("no groups are nil")
	}
}

// However much waits, and whatever its errors look like, the owner's answer gets
// through.
func TestStatusOfMuch(t *testing.T) {
	t.Parallel()
	b := newBench(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	const lanes = 700
	for n := range lanes {
		b.append(fmt.Sprintf("a%d", n), n)
	}
	b.fails(func(string, int) error { return gateway.Permanent(errors.New(strings.Repeat("<", 400))) })
	b.run()
	b.eventually("all are parked, and the owner says so", func(s followers.Status) bool {
		return s.Kind == "gateway" && s.Parked == lanes && len(s.Lanes) > lanes/4 && s.LagSeconds > 0
	})
}
