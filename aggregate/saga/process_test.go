package saga_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// steady is a lease that lasts while the machine stands still.
const steady = 15 * time.Second

// live is a saga over a store of a server.
type live struct {
	nc                  *nats.Conn
	store               *jetstream.Store
	seats, cards, posts *aggregate.Repository[Stock]
}

func newLive(t *testing.T, nc *nats.Conn, replicas int) *live {
	t.Helper()
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{
		Name: natstest.Name(t), Replicas: replicas, AppendTimeout: natstest.Patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &live{nc: nc, store: store}
	for repo, typ := range map[**aggregate.Repository[Stock]]*aggregate.Type[Stock]{&l.seats: seats, &l.cards: cards, &l.posts: mails} {
		if *repo, err = aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *live) open(t *testing.T, id string, cents int) saga.Start[order] {
	t.Helper()
	exec(t, l.seats, "train-"+id, Open{1})
	exec(t, l.cards, "card-"+id, Open{cents})
	exec(t, l.posts, "mail-"+id, Open{1})
	return saga.Start[order]{Data: order{Train: "train-" + id, Card: "card-" + id, Mail: "mail-" + id}}
}

func (l *live) process(t *testing.T, s *saga.Saga[order]) *saga.Process[order] {
	t.Helper()
	p, err := saga.NewProcess(t.Context(), l.store, s, saga.ProcessConfig{
		Links: links(),
		Reactor: aggregate.ReactorConfig{
			Start: jetstream.FromBeginning(), MaxBackoff: 10 * time.Millisecond, TTL: steady, Logger: quiet,
		},
		Timers: aggregate.TimersConfig{TTL: steady, Logger: quiet},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t *testing.T, p interface {
	Run(ctx context.Context) error
},
) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func reaches(t *testing.T, p *saga.Process[order], id string, phase saga.Phase, step string) {
	t.Helper()
	natstest.Eventually(t, fmt.Sprint(id, " is ", phase), func() error {
		snap, err := p.Instances().Load(t.Context(), id)
		if err == nil && (snap.State.Phase != phase || snap.State.Step != step) {
			err = fmt.Errorf("%+v", snap.State)
		}
		return err
	})
}

func inFlight(t *testing.T, p *saga.Process[order], f saga.Filter) []saga.InFlight[order] {
	t.Helper()
	var out []saga.InFlight[order]
	ok := natstest.Eventually(t, "list those in flight", func() error {
		out = nil
		for in, err := range p.InFlight(t.Context(), f) {
			if err != nil {
				return err
			}
			out = append(out, in)
		}
		return nil
	})
	if !ok {
		t.FailNow()
	}
	return out
}

// On servers, one and three: an instance completes, one is compensated, one waits,
// one is stuck and goes on when somebody has helped; those in flight are listed.
func TestProcess(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, nc *nats.Conn, replicas int) {
		t.Helper()
		l := newLive(t, nc, replicas)
		p := l.process(t, booking(l.seats, l.cards, l.posts))
		if got := inFlight(t, p, saga.Filter{}); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		good, poor, stuck := l.open(t, "good", 1), l.open(t, "poor", 0), l.open(t, "stuck", 0)
		for id, start := range map[string]saga.Start[order]{"good": good, "poor": poor} {
			if _, err := p.Start(t.Context(), id, start.Data); err != nil {
				t.Fatal(err)
			}
		}
		run(t, p)
		reaches(t, p, "good", saga.Running, "mail")
		reaches(t, p, "poor", saga.Compensated, "")
		exec(t, l.seats, "train-stuck", Lock{}) // which starts one: without money, and with no way back
		if _, err := p.Start(t.Context(), "a b", good.Data); err == nil {
			t.Error("a bad id")
		}
		reaches(t, p, "of-train-stuck", saga.Stuck, "seat")

		var listed map[string]saga.InFlight[order]
		natstest.Eventually(t, "those in flight are listed", func() error {
			listed = map[string]saga.InFlight[order]{}
			for _, in := range inFlight(t, p, saga.Filter{}) {
				listed[in.ID] = in
			}
			if len(listed) != 2 {
				return fmt.Errorf("%+v", listed)
			}
			return nil
		})
		if in := listed["good"]; in.Step != "mail" || !in.Deadline.Equal(in.Since.Add(time.Hour)) || in.Data != good.Data ||
			len(in.Done) != 4 || in.StartedAt.IsZero() || in.LastError != "" {
			t.Errorf("%+v", in)
		}
		if in := listed["of-train-stuck"]; in.Phase != saga.Stuck || in.StuckOn.Code != "locked" || in.Failure.Code != saga.CodeNotFound || !in.Deadline.IsZero() {
			t.Errorf("%+v", in)
		}
		for name, f := range map[string]saga.Filter{
			"of-train-stuck": {Stuck: true}, "good": {Step: "mail"}, "": {OlderThan: time.Hour},
		} {
			natstest.Eventually(t, fmt.Sprintf("%+v lists %q", f, name), func() error { // on every replica
				if got := inFlight(t, p, f); len(got) != min(len(name), 1) || len(got) == 1 && got[0].ID != name {
					return fmt.Errorf("%+v", got)
				}
				return nil
			})
		}
		natstest.Eventually(t, "both are old", func() error {
			if got := inFlight(t, p, saga.Filter{OlderThan: time.Nanosecond}); len(got) != 2 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})

		// Again in vain, again with success.
		if err := p.Retry(t.Context(), "of-train-stuck"); err != nil {
			t.Fatal(err)
		}
		natstest.Eventually(t, "stuck again", func() error {
			if snap, err := p.Instances().Load(t.Context(), "of-train-stuck"); err != nil || snap.State.Phase != saga.Stuck || snap.Version < 9 {
				return fmt.Errorf("%+v %w", snap, err)
			}
			return nil
		})
		exec(t, l.seats, "train-stuck", Unlock{})
		if err := p.Retry(t.Context(), "of-train-stuck"); err != nil {
			t.Fatal(err)
		}
		reaches(t, p, "of-train-stuck", saga.Compensated, "")
		amount(t, l.seats, "train-stuck", 1)
		var rejected *aggregate.RejectedError
		for _, err := range []error{p.Retry(t.Context(), "of-train-stuck"), p.Resolve(t.Context(), "of-train-stuck", "ada")} {
			if !errors.As(err, &rejected) || rejected.Code != saga.CodeNotStuck {
				t.Error(err)
			}
		}
		// By hand.
		exec(t, l.seats, "train-stuck", Lock{})
		if _, err := p.Start(t.Context(), "hand", stuck.Data); err != nil {
			t.Fatal(err)
		}
		reaches(t, p, "hand", saga.Stuck, "seat")
		if err := p.Resolve(t.Context(), "hand", "ada"); err != nil {
			t.Fatal(err)
		}
		reaches(t, p, "hand", saga.Compensated, "")

		exec(t, l.posts, "mail-good", Confirm{Order: "good"})
		reaches(t, p, "good", saga.Completed, "")
		natstest.Eventually(t, "none is in flight", func() error {
			if got := inFlight(t, p, saga.Filter{}); len(got) != 0 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		test(t, natstest.RunCluster(t).Conn(t), 3)
	})
}

// A step's target is away: the instance waits, says why, and expires; what was
// under way is undone when it turns out to have been done.
func TestProcessWhileATargetIsAway(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	l := newLive(t, nc, 1)
	client, err := aggregate.NewClient(nc, l.store.Name(), seats, aggregate.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	slow := saga.New("slow", saga.Step[order]{
		Name: "seat", Timeout: time.Second,
		Do:   func(i saga.Instance[order]) saga.Command { return saga.Send(client, i.Data.Train, Take{By: i.ID}) },
		Undo: func(i saga.Instance[order]) saga.Command { return saga.Send(client, i.Data.Train, Give{By: i.ID}) },
	})
	p, err := saga.NewProcess(t.Context(), l.store, slow, saga.ProcessConfig{
		Reactor: aggregate.ReactorConfig{
			Start: jetstream.FromBeginning(), MaxBackoff: 10 * time.Millisecond, TTL: steady, Logger: quiet,
			Timeout: 500 * time.Millisecond,
		},
		Timers: aggregate.TimersConfig{TTL: steady, Logger: quiet},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, p)
	start := l.open(t, "x", 1)
	if _, err := p.Start(t.Context(), "o1", start.Data); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the instance is listed with its trouble, and expires", func() error {
		got := inFlight(t, p, saga.Filter{})
		if len(got) != 1 || got[0].Attempts == 0 || got[0].LastError == "" || got[0].Parked || got[0].Phase != saga.Failing {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	service, err := aggregate.NewService(l.seats, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	run(t, service)
	reaches(t, p, "o1", saga.Compensated, "")
	amount(t, l.seats, "train-x", 1)
	if got := story(t, p.Instances(), "o1"); got != "started, begun seat, expired seat, done seat, undoing seat, undone seat, compensated (timed-out)" {
		t.Error(got)
	}
}

// A step that cannot be had parks its instance: it is listed among the stuck, and
// goes on once the definition was mended.
func TestProcessParks(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	l := newLive(t, nc, 1)
	bad := saga.New("booking", saga.Step[order]{
		Name: "seat", Do: func(saga.Instance[order]) saga.Command { return saga.Command{} },
	})
	p := l.process(t, bad)
	stop := run(t, p)
	start := l.open(t, "x", 1)
	if _, err := p.Start(t.Context(), "o1", start.Data); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the instance is parked", func() error {
		got := inFlight(t, p, saga.Filter{Stuck: true})
		if len(got) != 1 || !got[0].Parked || got[0].LastError == "" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	stop()
	p = l.process(t, booking(l.seats, l.cards, l.posts))
	run(t, p)
	natstest.Eventually(t, "it is resumed", func() error { return p.Resume(t.Context(), "o1") })
	reaches(t, p, "o1", saga.Running, "mail")
	if err := p.Resume(t.Context(), "a b"); err == nil {
		t.Error("a bad id")
	}
	if err := p.Resume(t.Context(), ""); err != nil || p.Status().Name != "booking" {
		t.Error(err, p.Status())
	}
}

func TestProcessMistakes(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	l := newLive(t, nc, 1)
	cfg := saga.ProcessConfig{Reactor: aggregate.ReactorConfig{Start: jetstream.FromBeginning()}}
	if _, err := saga.NewProcess[order](t.Context(), nil, nil, cfg); err == nil {
		t.Error("no store")
	}
	if _, err := saga.NewProcess(t.Context(), l.store, saga.New[order]("s"), cfg); err == nil {
		t.Error("no steps")
	}
	if _, err := saga.NewProcess(t.Context(), l.store, booking(l.seats, l.cards, l.posts), saga.ProcessConfig{}); err == nil {
		t.Error("no start")
	}
}
