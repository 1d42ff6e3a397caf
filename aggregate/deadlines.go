package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// timerStep begins the names of the effects that deadlines are.
const timerStep = "after-"

// timer is a command that waits for its time.
type timer struct {
	Type          string             `json:"type"`
	ID            string             `json:"id"`
	Command       string             `json:"command"`
	Body          json.RawMessage    `json:"body"`
	Subscriber    string             `json:"subscriber"`
	EventID       string             `json:"eventId"`
	Step          string             `json:"step"`
	Position      jetstream.Position `json:"position"`
	StoredAt      time.Time          `json:"storedAt"`
	Correlation   string             `json:"correlation,omitempty"`
	Causation     string             `json:"causation,omitempty"`
	TraceParent   string             `json:"traceparent,omitempty"`
	ExpectVersion *uint64            `json:"expectVersion,omitempty"`
	Metadata      map[string]string  `json:"metadata,omitempty"`
}

// timerStore keeps timers until they are due.
type timerStore interface {
	// set keeps a timer, unless it is there already.
	set(ctx context.Context, t *timer, due time.Time) error
	// cancel forgets the timers of one name that were set before the event.
	cancel(ctx context.Context, name timerName, before jetstream.Meta) error
}

// timerName is what timers of one name on one aggregate have in common, whichever
// event set them.
type timerName struct{ subscriber, typ, id, step string }

// token is the name as a part of a subject.
func (n timerName) token() string {
	return shortHash(n.subscriber + "\n" + n.typ + "\n" + n.id + "\n" + n.step)
}

func (t *timer) name() timerName { return timerName{t.Subscriber, t.Type, t.ID, t.Step} }

// place is the subject's part that tells timers apart, which is also what they are
// one of: aggregate type, name, event.
func (t *timer) place() string { return t.Type + "." + t.name().token() + "." + shortHash(t.EventID) }

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// setBefore tells whether the timer was set by an event stored before, or by one of
// the same commit: if that comes later, it is handled again, too.
func (t *timer) setBefore(m jetstream.Meta) bool {
	return !t.StoredAt.After(m.StoredAt)
}

// After executes a command on an aggregate once the duration is over, counted from
// when the event was stored, whichever process runs then: a deadline. It takes
// effect once for ever, like [Do.Update], even if it fires twice; after an outage
// it fires once. What it finds by then is the command's to decide: refuse, or let
// it lead to nothing, where it has been overtaken. Times are rounded up to a
// second.
//
// Its name is the command's or that of [Step]; [Do.Cancel] wants it. A process
// that runs [Timers] for the target's type must exist. Returns
// [jetstream.ErrUnavailable] when the timer could not be set.
func (d *Do) After(
	ctx context.Context, delay time.Duration, target Target, id string, command any, opts ...CallOption,
) error {
	h, value, err := target.definition().lookup(command)
	if err != nil {
		return err
	}
	if err := jetstream.ValidateID(id); err != nil {
		return err
	}
	opts, e, err := d.options(ctx, target, id, h.key, timerStep, opts)
	if err != nil {
		return err
	}
	if d.rehearse != nil {
		e.Command, e.After = value, delay
		if answered, err := d.rehearse.Answer(e); answered {
			return err
		}
	}
	c := newCall(opts)
	if err := c.validate(time.Now()); err != nil {
		return err
	}
	body, err := codec.JSON.Encode(value)
	if err != nil {
		return &jetstream.InvalidError{Field: "timer's command", Value: h.name, Reason: "does not encode: " + err.Error()}
	}
	t := c.trigger
	// Counted from when the event was stored, so that a late handler sets no later
	// deadline.
	due := d.meta.StoredAt.Add(delay + time.Second - time.Nanosecond).UTC().Truncate(time.Second)
	return d.timers.set(ctx, &timer{
		Type: target.TypeName(), ID: id, Command: h.key, Body: body, Subscriber: t.Subscriber, EventID: t.EventID,
		Step: t.Step, Position: t.Position, StoredAt: t.Time, Correlation: c.correlation, Causation: c.causation,
		TraceParent: c.traceParent, ExpectVersion: c.expectVersion, Metadata: c.metadata,
	}, due)
}

// Cancel forgets the deadlines of one name on an aggregate that this reactor set
// with [Do.After] for earlier events; none is no error. One that is due may be on
// its way already and still arrive, so the command must check the state anyway:
// cancelling spares it the trip.
//
// It may run again, with the handler: deadlines that later events set stay.
// Returns [jetstream.ErrUnavailable] when it could not be done.
func (d *Do) Cancel(ctx context.Context, target Target, id, name string) error {
	if err := errors.Join(jetstream.ValidateID(id), validToken("name of a deadline", name)); err != nil {
		return err
	}
	if d.rehearse != nil {
		answered, err := d.rehearse.Answer(memstore.Effect{Target: target.TypeName(), ID: id, Step: name, Cancel: true})
		if answered {
			return err
		}
	}
	return d.timers.cancel(ctx, timerName{d.reactor, target.TypeName(), id, timerStep + name}, d.meta)
}

// fire executes a timer's command. A refusal is a decision, and recorded as such.
func fire(ctx context.Context, data []byte, targets map[string]Target) error {
	var due timer
	if err := json.Unmarshal(data, &due); err != nil {
		return &jetstream.InvalidError{Field: "timer", Value: string(data), Reason: err.Error()}
	}
	target := targets[due.Type]
	if target == nil {
		return fmt.Errorf("timer for aggregate type %q: this program has no target for it", due.Type)
	}
	h := target.definition().handlers[due.Command]
	if h == nil {
		return fmt.Errorf("timer for %s %q: this program does not know command %q", due.Type, due.ID, due.Command)
	}
	command := reflect.New(h.command)
	if err := codec.JSON.Decode(due.Body, command.Interface()); err != nil {
		return &jetstream.InvalidError{Field: "timer's command " + due.Command, Value: string(due.Body), Reason: err.Error()}
	}
	opts := []CallOption{
		TriggeredBy(Trigger{
			Subscriber: due.Subscriber, EventID: due.EventID, Step: due.Step, Position: due.Position, Time: due.StoredAt,
		}),
		Correlation(due.Correlation), Causation(due.Causation), TraceParent(due.TraceParent), Metadata(due.Metadata),
	}
	if due.ExpectVersion != nil {
		opts = append(opts, ExpectVersion(*due.ExpectVersion))
	}
	if _, err := target.Execute(ctx, due.ID, command.Elem().Interface(), opts...); err != nil && !IsRefusal(err) {
		return err
	}
	return nil
}

// TimersName is the name of the follower that runs the timers of an aggregate
// type: see [ReadStatus].
func TimersName(typ string) string { return timersPrefix + typ }

const timersPrefix = "_timers-"

// timersOf is the aggregate type whose timers a follower of this name runs.
func timersOf(follower string) (typ string, ok bool) {
	typ, ok = strings.CutPrefix(follower, timersPrefix)
	return typ, ok && typ != ""
}
