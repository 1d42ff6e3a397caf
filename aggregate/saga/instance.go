package saga

import (
	"slices"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// Phase is how an instance is doing.
type Phase string

// The phases.
const (
	// Running: the steps are being done.
	Running Phase = "running"
	// Failing: a step took too long; what came of it is being found out.
	Failing Phase = "failing"
	// Compensating: the steps are being undone.
	Compensating Phase = "compensating"
	// Stuck: a step cannot be undone.
	Stuck Phase = "stuck"
	// Completed and Compensated are the ends.
	Completed   Phase = "completed"
	Compensated Phase = "compensated"
)

// Ended tells whether the phase is an instance's last.
func (p Phase) Ended() bool { return p == Completed || p == Compensated }

// The codes of failures that are not a command's own rejection.
const (
	CodeNotFound = "not-found"
	CodeExists   = "exists"
	CodeVersion  = "version"
	CodeTimedOut = "timed-out"
)

// Failure says why a saga failed: which step, and what its command was rejected
// with, or one of this package's codes.
type Failure struct {
	Step   string `json:"step,omitempty"`
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// State is the state of an instance.
type State[D any] struct {
	Data  D     `json:"data"`
	Phase Phase `json:"phase"`
	// Step is the one being done or undone, "" at the end.
	Step string `json:"step,omitempty"`
	// Done are the steps that were done and not undone, in order.
	Done []string `json:"done,omitempty"`
	// Failure says why the saga failed; with Stuck, StuckOn says why it is.
	Failure   Failure   `json:"failure"`
	StuckOn   Failure   `json:"stuckOn"`
	StartedAt time.Time `json:"startedAt"`
	// Since is when the instance came to where it is.
	Since time.Time `json:"since"`
}

// The events of an instance.
type (
	// StartedEvent is the first.
	StartedEvent[D any] struct {
		Data D `json:"data"`
	}
	// Begun says that a step is to be done.
	Begun struct {
		Step string `json:"step"`
	}
	// Accepted says that the command of a step that waits was accepted.
	Accepted struct {
		Step string `json:"step"`
	}
	// Done says that a step was done.
	Done struct {
		Step string `json:"step"`
	}
	// Failed says that a step was refused.
	Failed struct {
		Failure Failure `json:"failure"`
	}
	// Expired says that a step took too long.
	Expired struct {
		Step string `json:"step"`
	}
	// Undoing says that a step is to be undone.
	Undoing struct {
		Step string `json:"step"`
	}
	// Undone says that it was.
	Undone struct {
		Step string `json:"step"`
		// By says who did it by hand.
		By string `json:"by,omitempty"`
	}
	// UndoRefused says that a step cannot be undone.
	UndoRefused struct {
		Failure Failure `json:"failure"`
	}
	// CompletedEvent ends a saga whose steps were all done.
	CompletedEvent struct{}
	// CompensatedEvent ends a saga that failed.
	CompensatedEvent struct {
		Failure Failure `json:"failure"`
	}
)

// Start begins an instance.
type Start[D any] struct {
	Data D `json:"data"`
}

// The commands of the saga itself.
type (
	reportAccepted struct {
		Step string `json:"step"`
	}
	reportDone struct {
		Step string `json:"step"`
	}
	reportFailed struct {
		Failure Failure `json:"failure"`
	}
	expire struct {
		Step string `json:"step"`
	}
	compensate   struct{}
	reportUndone struct {
		Step string `json:"step"`
	}
	reportUndoRefused struct {
		Failure Failure `json:"failure"`
	}
	retry   struct{}
	resolve struct {
		By string `json:"by"`
	}
)

// Events are the events of a saga's instances, by the saga's name and data: what a
// view or a gateway needs that follows them. It needs neither the saga nor what its
// steps send commands to.
func Events[D any](name string) *jetstream.Schema {
	return jetstream.NewSchema(name,
		jetstream.Event[StartedEvent[D]]("started"),
		jetstream.Event[Begun]("begun"),
		jetstream.Event[Accepted]("accepted"),
		jetstream.Event[Done]("done"),
		jetstream.Event[Failed]("failed"),
		jetstream.Event[Expired]("expired"),
		jetstream.Event[Undoing]("undoing"),
		jetstream.Event[Undone]("undone"),
		jetstream.Event[UndoRefused]("undo-refused"),
		jetstream.Event[CompletedEvent]("completed"),
		jetstream.Event[CompensatedEvent]("compensated"),
	)
}

// newType is the aggregate type of a saga's instances.
func newType[D any](s *Saga[D]) *aggregate.Type[State[D]] {
	return aggregate.New[State[D]](Events[D](s.name), append(applies[D](), s.commands()...)...)
}

func applies[D any]() []aggregate.Option {
	to := func(i *State[D], p Phase, step string, m jetstream.Meta) { i.Phase, i.Step, i.Since = p, step, m.Time }
	return []aggregate.Option{
		aggregate.Apply(func(i *State[D], e StartedEvent[D], m jetstream.Meta) {
			i.Data, i.Phase, i.StartedAt, i.Since = e.Data, Running, m.Time, m.Time
		}),
		aggregate.Apply(func(i *State[D], e Begun, m jetstream.Meta) { to(i, Running, e.Step, m) }),
		aggregate.Apply(func(i *State[D], e Accepted, _ jetstream.Meta) { i.did(e.Step) }),
		aggregate.Apply(func(i *State[D], e Done, _ jetstream.Meta) { i.did(e.Step) }),
		aggregate.Apply(func(i *State[D], e Failed, _ jetstream.Meta) {
			if i.Failure.Code == "" {
				i.Failure = e.Failure
			}
			i.undid(e.Failure.Step)
		}),
		aggregate.Apply(func(i *State[D], e Expired, m jetstream.Meta) {
			i.Failure = Failure{Step: e.Step, Code: CodeTimedOut}
			to(i, Failing, e.Step, m)
		}),
		aggregate.Apply(func(i *State[D], e Undoing, m jetstream.Meta) {
			i.StuckOn = Failure{}
			to(i, Compensating, e.Step, m)
		}),
		aggregate.Apply(func(i *State[D], e Undone, _ jetstream.Meta) { i.undid(e.Step) }),
		aggregate.Apply(func(i *State[D], e UndoRefused, m jetstream.Meta) {
			i.StuckOn = e.Failure
			to(i, Stuck, e.Failure.Step, m)
		}),
		aggregate.Apply(func(i *State[D], _ CompletedEvent, m jetstream.Meta) { to(i, Completed, "", m) }),
		aggregate.Apply(func(i *State[D], _ CompensatedEvent, m jetstream.Meta) {
			i.StuckOn = Failure{}
			to(i, Compensated, "", m)
		}),
	}
}

func (i *State[D]) did(step string) {
	if !slices.Contains(i.Done, step) {
		i.Done = append(i.Done, step)
	}
}

// undid forgets a step and what came after it.
func (i *State[D]) undid(step string) {
	if at := slices.Index(i.Done, step); at >= 0 {
		i.Done = i.Done[:at:at]
	}
}

// at tells whether the instance is at the step, in one of the phases.
func (i *State[D]) at(step string, phases ...Phase) bool {
	return i.Step == step && slices.Contains(phases, i.Phase)
}

// commands decide what an instance does next. Reports that come too late lead to
// nothing.
func (s *Saga[D]) commands() []aggregate.Option {
	return []aggregate.Option{
		aggregate.Create("start", func(c Start[D], _ aggregate.Decision) ([]any, error) {
			return []any{StartedEvent[D](c), Begun{s.steps[0].Name}}, nil
		}),
		aggregate.Handle("report-accepted", func(i State[D], c reportAccepted, _ aggregate.Decision) ([]any, error) {
			if !i.at(c.Step, Running, Failing) || slices.Contains(i.Done, c.Step) {
				return nil, nil
			}
			return []any{Accepted(c)}, nil
		}),
		aggregate.Handle("report-done", func(i State[D], c reportDone, _ aggregate.Decision) ([]any, error) {
			next := s.next(c.Step)
			switch {
			case i.at(c.Step, Failing) && !slices.Contains(i.Done, c.Step):
				return []any{Done(c)}, nil // too late, and to be undone
			case !i.at(c.Step, Running):
				return nil, nil
			case next == "":
				return []any{Done(c), CompletedEvent{}}, nil
			default:
				return []any{Done(c), Begun{next}}, nil
			}
		}),
		aggregate.Handle("report-failed", func(i State[D], c reportFailed, _ aggregate.Decision) ([]any, error) {
			switch {
			case i.at(c.Failure.Step, Failing) && slices.Contains(i.Done, c.Failure.Step):
				return []any{Failed(c)}, nil // too late, and nothing to undo
			case i.at(c.Failure.Step, Failing) && s.awaits(c.Failure.Step):
				// The outcome has overtaken the news that the command was accepted, after
				// which the step would be undone.
				return append([]any{Failed(c)}, s.unwind(&i)...), nil
			case !i.at(c.Failure.Step, Running):
				return nil, nil
			}
			i.undid(c.Failure.Step)
			i.Failure = c.Failure
			return append([]any{Failed(c)}, s.unwind(&i)...), nil
		}),
		aggregate.Handle("expire", func(i State[D], c expire, _ aggregate.Decision) ([]any, error) {
			if !i.at(c.Step, Running) {
				return nil, nil
			}
			return []any{Expired(c)}, nil
		}),
		aggregate.Handle("compensate", func(i State[D], _ compensate, _ aggregate.Decision) ([]any, error) {
			if i.Phase != Failing {
				return nil, nil
			}
			return s.unwind(&i), nil
		}),
		aggregate.Handle("report-undone", func(i State[D], c reportUndone, _ aggregate.Decision) ([]any, error) {
			if !i.at(c.Step, Compensating, Stuck) {
				return nil, nil
			}
			i.undid(c.Step)
			return append([]any{Undone{Step: c.Step}}, s.unwind(&i)...), nil
		}),
		aggregate.Handle("report-undo-refused", func(i State[D], c reportUndoRefused, _ aggregate.Decision) ([]any, error) {
			if !i.at(c.Failure.Step, Compensating) {
				return nil, nil
			}
			return []any{UndoRefused(c)}, nil
		}),
		aggregate.Handle("retry", func(i State[D], _ retry, _ aggregate.Decision) ([]any, error) {
			if i.Phase != Stuck {
				return nil, notStuck(i.Phase)
			}
			return []any{Undoing{i.Step}}, nil
		}),
		aggregate.Handle("resolve", func(i State[D], c resolve, _ aggregate.Decision) ([]any, error) {
			if i.Phase != Stuck {
				return nil, notStuck(i.Phase)
			}
			step := i.Step
			i.undid(step)
			return append([]any{Undone{Step: step, By: c.By}}, s.unwind(&i)...), nil
		}),
	}
}

// CodeNotStuck rejects [Process.Retry] and [Process.Resolve] of an instance that
// is not stuck.
const CodeNotStuck = "not-stuck"

func notStuck(p Phase) error { return aggregate.Reject(CodeNotStuck, "the instance is %s", p) }

// unwind undoes the last step that was done and can be, or ends.
func (s *Saga[D]) unwind(i *State[D]) []any {
	for _, name := range slices.Backward(i.Done) {
		if step, err := s.step(name); err == nil && step.Undo == nil {
			continue
		}
		// A step that the definition lacks is not passed over in silence: the
		// handler stops there.
		return []any{Undoing{name}}
	}
	return []any{CompensatedEvent{Failure: i.Failure}}
}
