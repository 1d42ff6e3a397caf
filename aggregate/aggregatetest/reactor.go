package aggregatetest

import (
	"errors"
	"reflect"

	"github.com/google/go-cmp/cmp"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// Effect is what a handler asked for through [aggregate.Do]: Target names the
// aggregate type, ID the aggregate, Step the effect if it was given a name,
// Command is the command as a struct. Create tells a creation, After a deadline's
// delay, Cancel a cancelled deadline. After [aggregate.Do.CreateOrUpdate] there
// are the effects that it came down to.
type Effect = memstore.Effect

// Handlers are a reactor's handlers without a store behind them: a test says what
// came of each effect, and looks at what was asked for.
type Handlers struct {
	store     *Store
	rehearsal *aggregate.Rehearsal
	answers   []answer
}

type answer struct {
	effect  Effect
	outcome error
}

// NewHandlers makes handlers whose effects do not happen. Their targets are
// repositories of the store, see [NewRepository].
func NewHandlers(s *Store, handlers ...aggregate.ReactorOption) *Handlers {
	s.t.Helper()
	r, err := aggregate.NewRehearsal(s.mem, "under-test", handlers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return &Handlers{store: s, rehearsal: r}
}

// Answer says what comes of an effect, such as [aggregate.Reject] or
// [aggregate.ErrNotFound]. It is for the effects that agree with e in every field
// that e states; a command stated is compared by its type alone. The first answer
// that fits holds. Effects without one succeed.
func (h *Handlers) Answer(e Effect, outcome error) *Handlers {
	h.answers = append(h.answers, answer{e, outcome})
	return h
}

func (h *Handlers) outcome(e Effect) error {
	for _, a := range h.answers {
		w := a.effect
		if (w.Target == "" || w.Target == e.Target) && (w.ID == "" || w.ID == e.ID) && (w.Step == "" || w.Step == e.Step) &&
			(w.Command == nil || reflect.TypeOf(w.Command) == reflect.TypeOf(e.Command)) &&
			(!w.Create || e.Create) && (w.After == 0 || w.After == e.After) && (!w.Cancel || e.Cancel) {
			return a.outcome
		}
	}
	return nil
}

// When lets an event have happened to an aggregate, and its handler handle it:
// twice, since in production it may; the second time it has to ask for the same.
// The event may be a [jetstream.Recorded]; see [Given].
func (h *Handlers) When(schema *jetstream.Schema, id string, event any) *Reaction {
	t := h.store.t
	t.Helper()
	h.store.Append(schema, id, event)
	all := h.store.mem.Commits(0)
	commit := all[len(all)-1]
	handle := func(attempt int) ([]Effect, error) {
		var effects []Effect
		h.store.mem.SetAnswer(func(e Effect) (bool, error) {
			effects = append(effects, e)
			return true, h.outcome(e)
		})
		defer h.store.mem.SetAnswer(nil)
		return effects, h.rehearsal.Handle(t.Context(), commit, attempt)
	}
	r := &Reaction{handlers: h, event: event}
	r.effects, r.err = handle(1)
	again, _ := handle(2)
	if d := diffEffects(r.effects, again); d != "" {
		t.Errorf("%T handled again led to other effects (- first, + again):\n%s", event, d)
	}
	return r
}

// Reaction is what a handler did about an event. Its methods say what it should
// have done, and report it to the test when it did not.
type Reaction struct {
	handlers *Handlers
	event    any
	effects  []Effect
	err      error
}

// Then wants the handler to have asked for these effects and no others, in this
// order, and to have returned nil.
func (r *Reaction) Then(effects ...Effect) *Reaction {
	t := r.handlers.store.t
	t.Helper()
	if r.err != nil {
		t.Errorf("the handler of %T failed: %v", r.event, r.err)
	}
	r.Asked(effects...)
	return r
}

// Asked is Then for a handler that may have failed.
func (r *Reaction) Asked(effects ...Effect) *Reaction {
	t := r.handlers.store.t
	t.Helper()
	if d := diffEffects(effects, r.effects); d != "" {
		t.Errorf("the handler of %T led to other effects (- wanted, + got):\n%s", r.event, d)
	}
	return r
}

// Fails wants the handler to have returned an error that is target.
func (r *Reaction) Fails(target error) *Reaction {
	t := r.handlers.store.t
	t.Helper()
	if !errors.Is(r.err, target) {
		t.Errorf("the handler of %T returned %v, want %v", r.event, r.err, target)
	}
	return r
}

// Err is what the handler returned.
func (r *Reaction) Err() error { return r.err }

func diffEffects(want, got []Effect) string {
	if len(want) == 0 && len(got) == 0 {
		return ""
	}
	return cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }))
}
