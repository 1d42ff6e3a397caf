package aggregatetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/memstore"
)

// Defaults of [Property].
const (
	RunsDefault   = 100
	LengthDefault = 50
)

// Property is what must be true of an aggregate type whatever commands it is given.
type Property[S any] struct {
	// Command draws a command. Before the aggregate exists, exists is false and
	// the state the zero one. Every draw must come from r. Required.
	Command func(r *rand.Rand, state S, exists bool) any
	// Invariant says what is wrong with a state, nil for nothing.
	Invariant func(state S) error
	// Transition says what is wrong with what a command did, nil for nothing. It
	// is asked about commands that were refused, too: without events.
	Transition func(before S, command any, events []any, after S) error
	// Runs is the number of aggregates, Length that of the commands each is
	// given. Default to [RunsDefault] and [LengthDefault].
	Runs, Length int
	// Seed repeats the draws of a run that failed. Defaults to a new one.
	Seed uint64
}

// Check gives aggregates of the type random commands, and wants that
//
//   - a command leads to events, to nothing, or to a refusal, never to a panic or
//     another error;
//   - the same command on the same history decides the same: handlers are pure;
//   - the stored state is what the events alone make, and Applies are pure;
//   - the property's Invariant and Transition hold.
//
// When something does not, it reports the seed, and the shortest list of commands
// that it could find to show it.
func Check[S any](t testing.TB, typ *aggregate.Type[S], p Property[S]) {
	t.Helper()
	if err := typ.Err(); err != nil {
		t.Fatal(err)
	}
	if p.Command == nil || p.Runs < 0 || p.Length < 0 {
		t.Fatalf("property of %q: Command is nil, or Runs %d or Length %d is negative", typ.Name(), p.Runs, p.Length)
	}
	for p.Seed == 0 {
		p.Seed = rand.Uint64()
	}
	c := checker[S]{ctx: t.Context(), typ: typ, property: p}
	for run := range defaulted(p.Runs, RunsDefault) {
		r := rand.New(rand.NewPCG(p.Seed, uint64(run)))
		commands, failed := c.draw(r, defaulted(p.Length, LengthDefault))
		if failed == nil {
			continue
		}
		shortest, failed := c.shrink(commands, failed)
		var b strings.Builder
		fmt.Fprintf(&b, "property of aggregate type %q: %v\n", typ.Name(), failed)
		fmt.Fprintf(&b, "run %d of seed %d; the last of these %d commands shows it (it was found with %d):\n",
			run, p.Seed, len(shortest), len(commands))
		for i, command := range shortest {
			fmt.Fprintf(&b, "%3d. %#v\n", i+1, command)
		}
		t.Fatalf("%sset Property.Seed to %d to draw the same again", b.String(), p.Seed)
	}
}

func defaulted(n, other int) int {
	if n == 0 {
		return other
	}
	return n
}

type checker[S any] struct {
	ctx      context.Context //nolint:containedctx // of one test
	typ      *aggregate.Type[S]
	property Property[S]
}

// draw gives an aggregate random commands until one shows a failure, and returns
// them.
func (c checker[S]) draw(r *rand.Rand, length int) (commands []any, failed error) {
	a, err := c.begin()
	if err != nil {
		return nil, err
	}
	for range length {
		var command any
		if err := recovered("Property.Command", func() error {
			command = c.property.Command(r, a.copy(), a.exists)
			return nil
		}); err != nil {
			return commands, err
		}
		commands = append(commands, command)
		if err := a.give(command); err != nil {
			return commands, err
		}
	}
	return commands, nil
}

// replay gives an aggregate these commands, and returns how many until a failure.
func (c checker[S]) replay(commands []any) (n int, failed error) {
	a, err := c.begin()
	if err != nil {
		return 0, err
	}
	for i, command := range commands {
		if err := a.give(command); err != nil {
			return i + 1, err
		}
	}
	return len(commands), nil
}

// maxShrinks bounds the search for a shorter list.
const maxShrinks = 2000

// shrink leaves out commands as long as what is left fails: halves first, then
// ever smaller parts.
func (c checker[S]) shrink(commands []any, failed error) ([]any, error) {
	tries := 0
	for size := max(len(commands)/2, 1); size > 0 && len(commands) > 1; {
		shorter := false
		for from := 0; from < len(commands) && tries < maxShrinks; tries++ {
			left := slices.Concat(commands[:from], commands[min(from+size, len(commands)):])
			if n, err := c.replay(left); err != nil && n > 0 {
				commands, failed, shorter = left[:n], err, true
				continue
			}
			from += size
		}
		if !shorter {
			size /= 2
		}
		size = min(size, len(commands))
	}
	return commands, failed
}

// subject is an aggregate that is given commands.
type subject[S any] struct {
	checker[S]

	store  *memstore.Store
	repo   *aggregate.Repository[S]
	exists bool
}

func (c checker[S]) begin() (*subject[S], error) {
	store := memstore.New()
	// A seed repeats the times, too.
	store.Freeze(time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC))
	repo, err := aggregate.NewTestRepository(store, c.typ, aggregate.RepositoryConfig{})
	return &subject[S]{checker: c, store: store, repo: repo}, err
}

// copy is the state, the caller's own.
func (a *subject[S]) copy() (state S) {
	snap, err := a.repo.Load(a.ctx, IDDefault)
	if err != nil {
		return state
	}
	return snap.State
}

// give executes a command, and says what is wrong with what came of it.
func (a *subject[S]) give(command any) error {
	before := a.copy()
	a.store.Advance(time.Second)
	// The same history without states: what is decided there is decided upon the
	// events alone.
	twin, err := aggregate.NewTestRepository(a.store.Replay(), a.typ, aggregate.RepositoryConfig{})
	if err != nil {
		return err
	}
	got, gotErr := outcome(a.ctx, a.repo, command)
	if gotErr != nil && !aggregate.IsRefusal(gotErr) {
		return fmt.Errorf("%T: %w", command, gotErr)
	}
	again, againErr := outcome(a.ctx, twin, command)
	if d := diff(got, again); d != "" || fmt.Sprint(gotErr) != fmt.Sprint(againErr) {
		return fmt.Errorf("%T decided again upon the same events decides otherwise: a handler or an Apply is not pure, "+
			"or the state loses something when it is stored: %w, then %w\n%s", command, orNil(gotErr), orNil(againErr), d)
	}
	a.exists = a.exists || len(got) > 0
	after := a.copy()
	if snap, err := twin.Load(a.ctx, IDDefault); err == nil {
		if d := diff(after, snap.State); d != "" {
			return fmt.Errorf("after %T the events replayed make another state (- stored, + replayed):\n%s", command, d)
		}
	}
	if a.property.Transition != nil {
		if err := recovered("Property.Transition", func() error {
			return a.property.Transition(before, command, got, a.copy())
		}); err != nil {
			return fmt.Errorf("%T: %w", command, err)
		}
	}
	if a.property.Invariant == nil || !a.exists {
		return nil
	}
	if err := recovered("Property.Invariant", func() error { return a.property.Invariant(after) }); err != nil {
		return fmt.Errorf("after %T: %w", command, err)
	}
	return nil
}

func outcome[S any](ctx context.Context, repo *aggregate.Repository[S], command any) ([]any, error) {
	res, err := repo.Execute(ctx, IDDefault, command)
	events := make([]any, 0, len(res.Events))
	for _, e := range res.Events {
		events = append(events, e.Event)
	}
	return events, err
}

var errNone = errors.New("no error")

func orNil(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// recovered runs a function of the test, whose panic is a failure to shrink, too.
func recovered(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v", what, p)
		}
	}()
	return f()
}
