package saga_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/jetstream"
)

var trip = saga.Start[order]{Data: order{Train: "train", Card: "card", Mail: "mail"}}

// Every step is done in order, and the last one's outcome comes with an event.
func TestCompletes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	exec(t, s.instances, "o1", trip)
	s.Settle()
	s.story(t, "o1", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, accepted mail")
	exec(t, s.posts, "mail", Confirm{Order: "o1"})
	exec(t, s.posts, "mail", Confirm{Order: "o1"})     // again: too late
	exec(t, s.posts, "mail", Confirm{Order: "nobody"}) // belongs to no instance
	exec(t, s.posts, "mail", Confirm{})
	s.Settle()
	s.story(t, "o1", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, "+
		"accepted mail, done mail, completed")
	amount(t, s.seats, "train", 0)
	amount(t, s.cards, "card", 0)
	got := state(t, s.instances, "o1")
	if got.Phase != saga.Completed || !got.Phase.Ended() || got.Step != "" || len(got.Done) != 4 || got.Failure.Code != "" {
		t.Errorf("%+v", got)
	}
	// Its deadlines were taken back: nothing happens when they would be due.
	before := got.Since
	s.Advance(2 * time.Hour)
	if got := state(t, s.instances, "o1"); got.Since != before {
		t.Errorf("%+v", got)
	}
}

// A refused step undoes those before it, the last one first, and nothing that was
// never done or has nothing to undo.
func TestCompensates(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	exec(t, s.posts, "mail", Take{})
	exec(t, s.instances, "o1", trip)
	s.Settle()
	s.story(t, "o1", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, "+
		"failed mail (sold-out), undoing charge, undone charge, undoing seat, undone seat, compensated (sold-out)")
	amount(t, s.seats, "train", 1)
	amount(t, s.cards, "card", 1)
	got := state(t, s.instances, "o1")
	if got.Failure != (saga.Failure{Step: "mail", Code: "sold-out", Reason: "nothing is left"}) || got.Phase != saga.Compensated {
		t.Errorf("%+v", got)
	}
	for r, err := range s.cards.History(t.Context(), "card") {
		if given, ok := r.Event.(Given); err != nil || ok && given.By != "o1 because sold-out" {
			t.Error("the step that undoes does not know why:", given, err)
		}
	}

	// Nothing was done: nothing is undone. Unknown and existing aggregates fail, too.
	exec(t, s.seats, "train", Take{})
	exec(t, s.instances, "o2", trip)
	exec(t, s.instances, "o3", saga.Start[order]{Data: order{Train: "nowhere"}})
	s.Settle()
	exec(t, s.seats, "train", Give{})
	s.story(t, "o2", "started, begun seat, failed seat (sold-out), compensated (sold-out)")
	s.story(t, "o3", "started, begun seat, failed seat (not-found), compensated (not-found)")
	if _, err := s.cards.Create(t.Context(), "o4-note", Open{}); err != nil {
		t.Fatal(err)
	}
	exec(t, s.instances, "o4", trip)
	s.Settle()
	s.story(t, "o4", "started, begun seat, done seat, begun note, failed note (exists), undoing seat, undone seat, compensated (exists)")
	amount(t, s.seats, "train", 1)
}

// A step that waits and fails itself is not undone; one that expires is.
func TestAwait(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	exec(t, s.instances, "o1", trip)
	s.Settle()
	exec(t, s.posts, "mail", Confirm{Order: "o1", Code: "bounced"})
	s.Settle()
	s.story(t, "o1", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, accepted mail, "+
		"failed mail (bounced), undoing charge, undone charge, undoing seat, undone seat, compensated (bounced)")
	amount(t, s.posts, "mail", 0)
	amount(t, s.seats, "train", 1)

	exec(t, s.posts, "mail", Give{})
	exec(t, s.instances, "o2", trip)
	s.Advance(59 * time.Minute)
	if got := state(t, s.instances, "o2"); got.Phase != saga.Running || got.Step != "mail" {
		t.Fatalf("%+v", got)
	}
	s.Advance(2 * time.Minute)
	s.story(t, "o2", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, accepted mail, "+
		"expired mail, undoing mail, undone mail, undoing charge, undone charge, undoing seat, undone seat, compensated (timed-out)")
	amount(t, s.posts, "mail", 1)
	// Too late.
	exec(t, s.posts, "mail", Confirm{Order: "o2"})
	exec(t, s.posts, "mail", Confirm{Order: "o2", Code: "bounced"})
	s.Settle()
	if got := state(t, s.instances, "o2"); got.Phase != saga.Compensated || got.Failure.Code != saga.CodeTimedOut {
		t.Fatalf("%+v", got)
	}
}

// TestAwaitOvertaken: after an outage that outlasts a step's time, what the step came
// to may be heard of before its acceptance is. One that failed is not undone.
func TestAwaitOvertaken(t *testing.T) {
	t.Parallel()
	step := func(name string) string { return `{"step":"` + name + `"}` }
	bounced := `{"failure":{"step":"mail","code":"bounced"}}`
	const until = "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, "
	for want, commands := range map[string][][2]string{
		"expired mail, failed mail (bounced), undoing charge": {
			{"expire", step("mail")}, {"report-failed", bounced}, {"report-accepted", step("mail")}, {"compensate", "{}"},
		},
		"expired mail, accepted mail, failed mail (bounced), undoing charge": {
			{"expire", step("mail")}, {"report-accepted", step("mail")}, {"report-failed", bounced}, {"compensate", "{}"},
		},
		"failed mail (bounced), undoing charge": {
			{"report-failed", bounced}, {"expire", step("mail")}, {"report-accepted", step("mail")}, {"compensate", "{}"},
		},
		"expired mail, done mail, undoing mail": {
			{"expire", step("mail")}, {"report-done", step("mail")}, {"report-accepted", step("mail")}, {"compensate", "{}"},
		},
	} {
		store := aggregatetest.NewStore(t)
		posts := aggregatetest.NewRepository(store, mails)
		instances := aggregatetest.NewRepository(store, booking(posts, posts, posts).Type())
		if _, err := instances.Create(t.Context(), "o1", trip); err != nil {
			t.Fatal(err)
		}
		for _, c := range append([][2]string{
			{"report-done", step("seat")}, {"report-done", step("note")}, {"report-done", step("charge")},
		}, commands...) {
			exec(t, instances, "o1", aggregate.Encoded{Name: c[0], Body: []byte(c[1])})
		}
		if got := story(t, instances, "o1"); got != until+want {
			t.Errorf("the story is\n%s\nwant\n%s", got, until+want)
		}
	}
}

// A step that cannot be undone makes the instance wait for a person.
func TestStuck(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	exec(t, s.posts, "mail", Take{})
	exec(t, s.seats, "train", Lock{})
	s.Settle() // which starts one for the seat, too
	s.story(t, "of-train", "started, begun seat, done seat, begun note, done note, begun charge, done charge, begun mail, "+
		"failed mail (sold-out), undoing charge, undone charge, undoing seat, undo-refused seat (locked)")
	got := state(t, s.instances, "of-train")
	if got.Phase != saga.Stuck || got.Step != "seat" || got.StuckOn.Code != "locked" || got.Failure.Code != "sold-out" {
		t.Errorf("%+v", got)
	}
	// The event that starts it starts it once, and one without an id none.
	exec(t, s.seats, "train", Lock{})
	if _, err := s.seats.Create(t.Context(), "silent", Open{}); err != nil {
		t.Fatal(err)
	}
	exec(t, s.seats, "silent", Lock{})
	s.Settle()
	if n := len(story(t, s.instances, "of-train")); n == 0 || story(t, s.instances, "of-silent") != "" {
		t.Error("started")
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	do := func(saga.Instance[order]) saga.Command { return saga.Command{} }
	for name, c := range map[string]struct {
		saga *saga.Saga[order]
		want string
	}{
		"NoName":  {saga.New("No Name", saga.Step[order]{Name: "a", Do: do}), "saga name"},
		"NoSteps": {saga.New[order]("s"), "no steps"},
		"BadStep": {saga.New("s", saga.Step[order]{Name: "A b", Do: do}), "step name"},
		"Twice":   {saga.New("s", saga.Step[order]{Name: "a", Do: do}, saga.Step[order]{Name: "a", Do: do}), `two steps are named "a"`},
		"NoDo":    {saga.New("s", saga.Step[order]{Name: "a"}), "has no Do"},
		"Timeout": {saga.New("s", saga.Step[order]{Name: "a", Do: do, Timeout: -1}), "Timeout"},
	} {
		if err := c.saga.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.saga.Handlers(nil) != nil {
			t.Errorf("%s: it has handlers", name)
		}
	}
	type hidden struct{ a int }
	if err := saga.New("s", saga.Step[hidden]{
		Name: "a", Do: func(i saga.Instance[hidden]) saga.Command { _ = i.Data.a; return saga.Command{} },
	}).Err(); err == nil {
		t.Error("data that its encoding would lose")
	}
}

// What a program's steps get wrong is an error that parks the instance, and a step
// that is gone is not passed over.
func TestInvalidSteps(t *testing.T) {
	t.Parallel()
	s := aggregatetest.NewStore(t)
	none := saga.New("none", saga.Step[order]{Name: "a", Do: func(saga.Instance[order]) saga.Command { return saga.Command{} }})
	h := aggregatetest.NewHandlers(s, none.Handlers(aggregatetest.NewRepository(s, none.Type()))...)
	s.Append(saga.Events[order]("none"), "o1", saga.StartedEvent[order]{})
	var invalid *jetstream.InvalidError
	for name, event := range map[string]any{
		"no target": saga.Begun{Step: "a"}, "not one of saga": saga.Begun{Step: "gone"}, "its Undo is gone": saga.Undoing{Step: "a"},
	} {
		s.Append(saga.Events[order]("none"), name[:2], saga.StartedEvent[order]{})
		err := h.When(saga.Events[order]("none"), name[:2], event).Err()
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
