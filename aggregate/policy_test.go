package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

var (
	errPoison = errors.New("poison")
	errTrivia = errors.New("trivia")
	errFatal  = errors.New("fatal")
)

// classes is a policy of every kind.
func classes() []aggregate.Policy {
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	return []aggregate.Policy{
		{Is: is(errPoison), Attempts: 3, MaxBackoff: time.Millisecond},
		{Is: is(errTrivia), Attempts: 1, Then: aggregate.Skip},
		{Is: is(errFatal), Attempts: 2, Then: aggregate.Stop, MaxBackoff: time.Millisecond},
		{Is: aggregate.IsPanic, Attempts: 2, Then: aggregate.Park, MaxBackoff: time.Millisecond},
	}
}

// attempts counts the calls of a handler by aggregate.
type attempts struct {
	mu sync.Mutex
	of map[string]int
}

func (a *attempts) add(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[string]int{}
	}
	a.of[id]++
	return a.of[id]
}

func (a *attempts) get(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of[id]
}

// AC-S2 … AC-S5: retried so often and no more, ignored, parked, stopped, by the
// class of the error; the default for what no policy names is to try again.
func TestReactorPolicies(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	cfg := reactorConfig()
	cfg.Policies = classes()
	var tried attempts
	done := make(chan string, 10)
	r, err := aggregate.NewReactor(store, "policies", cfg, aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, do *aggregate.Do) error {
		n := tried.add(m.ID)
		switch m.ID {
		case "poison":
			return fmt.Errorf("wrapped: %w", errPoison)
		case "trivia":
			return errTrivia
		case "panics":
			panic("on purpose")
		case "flaky":
			if n < 4 {
				return errPlain
			}
		case "missing": // an effect on a missing aggregate, returned
			_, err := do.Update(ctx, repo, "nobody", debit{1})
			return err
		case "refused":
			_, err := do.Update(ctx, repo, "fine", debit{1000})
			return err
		case "invalid":
			_, err := do.Update(ctx, repo, "a b", debit{1})
			return err
		}
		done <- m.ID
		return nil
	}), aggregate.On(events, func(_ context.Context, _ credited, m jetstream.Meta, _ *aggregate.Do) error {
		tried.add("later " + m.ID)
		done <- "later " + m.ID
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	ids := []string{"fine", "poison", "trivia", "panics", "flaky", "missing", "refused", "invalid"}
	for _, id := range ids {
		must(t, repo, id, open{1})
		must(t, repo, id, credit{1})
	}
	want := map[string]bool{"fine": true, "later fine": true, "flaky": true, "later flaky": true, "later trivia": true}
	for range want {
		if id := received(t, done); !want[id] {
			t.Fatalf("%s was handled", id)
		}
	}
	parked := map[string]int{"poison": 3, "panics": 2, "missing": 1, "refused": 1, "invalid": 1}
	natstest.Eventually(t, "the lanes are parked", func() error {
		lanes := r.Status().Blocked
		if len(lanes) != len(parked) {
			return fmt.Errorf("%+v", lanes)
		}
		for _, lane := range lanes {
			id := lane.Subject[strings.LastIndexByte(lane.Subject, '.')+1:]
			if !lane.Parked || lane.Attempts != parked[id] || lane.Error == "" {
				return fmt.Errorf("%+v", lane)
			}
		}
		return nil
	})
	for id, n := range map[string]int{"fine": 1, "poison": 3, "trivia": 1, "panics": 2, "flaky": 4, "missing": 1, "later poison": 0} {
		if got := tried.get(id); got != n {
			t.Errorf("%s was handled %d times, want %d", id, got, n)
		}
	}
}

// A policy that stops ends Run with the error; the event is handled again by the
// next.
func TestReactorStops(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	cfg := reactorConfig()
	cfg.Policies = classes()
	var tried attempts
	var mended atomic.Bool
	handled := make(chan struct{}, 1)
	handler := aggregate.On(events, func(context.Context, opened, jetstream.Meta, *aggregate.Do) error {
		tried.add("a1")
		if mended.Load() {
			tell(handled, struct{}{})
			return nil
		}
		return errFatal
	})
	r, err := aggregate.NewReactor(store, "stops", cfg, handler)
	if err != nil {
		t.Fatal(err)
	}
	must(t, repo, "a1", open{1})
	if err := r.Run(t.Context()); !errors.Is(err, errFatal) || tried.get("a1") != 2 {
		t.Fatal(err, tried.get("a1"))
	}
	mended.Store(true)
	run(t, r)
	received(t, handled)
}

// A handler that blocks past its time: its context ends, the event is tried again,
// nobody else waits. One that ignores its context keeps its place, and says so.
func TestReactorTimeout(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	var log syncBuffer
	cfg := reactorConfig()
	cfg.Timeout, cfg.Logger = 50*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	var tried attempts
	done := make(chan string, 10)
	release := make(chan struct{})
	r, err := aggregate.NewReactor(store, "slow", cfg, aggregate.On(events, func(ctx context.Context, _ opened, m jetstream.Meta, _ *aggregate.Do) error {
		n := tried.add(m.ID)
		switch {
		case m.ID == "blocks" && n < 3:
			<-ctx.Done()
			return ctx.Err()
		case m.ID == "deaf":
			<-release
		}
		done <- m.ID
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	for _, id := range []string{"deaf", "blocks", "fine"} {
		must(t, repo, id, open{1})
	}
	got := map[string]bool{received(t, done): true, received(t, done): true}
	if !got["blocks"] || !got["fine"] || tried.get("blocks") != 3 {
		t.Fatal(got)
	}
	natstest.Eventually(t, "the deaf handler is reported", func() error {
		if !strings.Contains(log.String(), "ignores the end of its time") {
			return errors.New(log.String())
		}
		return nil
	})
	if !strings.Contains(log.String(), "time is over: it was given 50ms") {
		t.Error(log.String())
	}
	close(release)
	if id := received(t, done); id != "deaf" {
		t.Fatal(id)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestErrorClasses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		is   func(error) bool
		errs []error
	}{
		"Refusal": {aggregate.IsRefusal, []error{aggregate.Reject("x", ""), aggregate.ErrNotFound, aggregate.ErrExists, &aggregate.VersionError{}}},
		"Invalid": {aggregate.IsInvalid, []error{&jetstream.InvalidError{}, aggregate.ErrStepTwice, nats.ErrMaxPayload}},
		"Unavailable": {aggregate.IsUnavailable, []error{
			jetstream.ErrUnavailable, jetstream.ErrUnknownOutcome, aggregate.ErrBusy, aggregate.ErrContended, context.DeadlineExceeded,
		}},
		"Unreadable": {aggregate.IsUnreadable, []error{jetstream.ErrUnknownEvent, jetstream.ErrFormat}},
	} {
		for _, err := range c.errs {
			if !c.is(fmt.Errorf("wrapped: %w", err)) {
				t.Errorf("%s: %v is not", name, err)
			}
			for other, o := range map[string]func(error) bool{
				"Refusal": aggregate.IsRefusal, "Invalid": aggregate.IsInvalid, "Unavailable": aggregate.IsUnavailable,
				"Unreadable": aggregate.IsUnreadable, "Panic": aggregate.IsPanic,
			} {
				if other != name && o(err) {
					t.Errorf("%v is %s and %s", err, name, other)
				}
			}
		}
		if c.is(errPlain) || c.is(nil) {
			t.Errorf("%s: everything is", name)
		}
	}
}

// An event that this program does not know stops the reactor before it: counting it
// as handled would lose it for the newer program, whose next instance handles it.
func TestReactorStopsAtWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	old := jetstream.NewSchema("account", jetstream.Event[opened]("opened"))
	seen := make(chan string, 10)
	handler := func(schema *jetstream.Schema) aggregate.ReactorOption {
		return aggregate.On(schema, func(_ context.Context, _ opened, m jetstream.Meta, _ *aggregate.Do) error {
			seen <- m.ID
			return nil
		})
	}
	must(t, repo, "a1", open{5})
	must(t, repo, "a1", debit{1})
	r := newReactor(t, store, "old", handler(old))
	if err := r.Run(t.Context()); !aggregate.IsUnreadable(err) {
		t.Fatal(err)
	}
	received(t, seen)
	newer := newReactor(t, store, "old", aggregate.On(events, func(_ context.Context, _ debited, m jetstream.Meta, _ *aggregate.Do) error {
		seen <- "debited " + m.ID
		return nil
	}), handler(events))
	if err := newer.Run(t.Context()); err == nil {
		t.Fatal("the same version with other handlers")
	}
	cfg := reactorConfig()
	cfg.Version = 2
	newer, err := aggregate.NewReactor(store, "old", cfg, aggregate.On(events, func(_ context.Context, _ debited, m jetstream.Meta, _ *aggregate.Do) error {
		seen <- "debited " + m.ID
		return nil
	}), handler(events))
	if err != nil {
		t.Fatal(err)
	}
	run(t, newer)
	if got := received(t, seen); got != "debited a1" {
		t.Fatal(got)
	}
}
