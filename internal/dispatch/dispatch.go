// Package dispatch brings the events of followed messages to typed handlers, for
// reactors and gateways alike.
package dispatch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/jetstream"
)

// Event is an event on its way to a handler.
type Event struct {
	jetstream.Recorded

	// Epoch grows with every change of owner, Attempt counts from 1.
	Epoch   uint64
	Attempt int
	// Since is when the event failed first, zero if it has not.
	Since time.Time
	// Replay tells that somebody asked for the event to be handled again.
	Replay bool
	// Sequence is that of the commit.
	Sequence uint64
	// Subject is the aggregate's.
	Subject string
	// Origin is where a copied event was stored first, nil for one that was not
	// copied.
	Origin *jetstream.Origin
}

// Handler handles events of one Go type.
type Handler func(ctx context.Context, e Event) error

// Table holds the handlers by their events.
type Table struct {
	// Decide says what becomes of an event whose handler failed. It is optional;
	// without it the engine's configuration decides, for the whole commit.
	Decide func(f follow.Failure) follow.Verdict
	// Unknown is what becomes of events that the schema lacks. Set it before Build.
	Unknown jetstream.UnknownPolicy

	schemas  map[string]*jetstream.Schema
	handlers map[eventKey]Handler
	decoder  *jetstream.Decoder
	logger   *slog.Logger
}

// eventKey names an event: two aggregate types may share a Go type.
type eventKey struct {
	aggregate string
	event     reflect.Type
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{schemas: map[string]*jetstream.Schema{}, handlers: map[eventKey]Handler{}}
}

// Add declares the handler of one event type of the schema.
func (t *Table) Add(schema *jetstream.Schema, event reflect.Type, h Handler) error {
	if schema == nil {
		return fmt.Errorf("handler of %s: the schema is nil", event)
	}
	if schema.Err() != nil {
		return schema.Err()
	}
	if _, ok := schema.NameOf(event); !ok {
		return fmt.Errorf("handler of %s: it is not an event of schema %q", event, schema.Type())
	}
	if other := t.schemas[schema.Type()]; other != nil && other != schema {
		return fmt.Errorf("two schemas for aggregate type %q", schema.Type())
	}
	k := eventKey{schema.Type(), event}
	if t.handlers[k] != nil {
		return fmt.Errorf("event %s of %q has two handlers", event, schema.Type())
	}
	t.schemas[schema.Type()], t.handlers[k] = schema, h
	return nil
}

// Handles tells whether the event has a handler.
func (t *Table) Handles(schema *jetstream.Schema, event reflect.Type) bool {
	return t.handlers[eventKey{schema.Type(), event}] != nil
}

// Build closes the table.
func (t *Table) Build() error {
	if len(t.handlers) == 0 {
		return errors.New("no handlers are declared")
	}
	var err error
	t.decoder, err = jetstream.NewDecoder(t.Unknown, slices.Collect(maps.Values(t.schemas))...)
	return err
}

// Configure fills in what the engine needs to follow the table's events.
func (t *Table) Configure(cfg *follow.Config, store *jetstream.Store, version int) {
	cfg.Conn, cfg.Stream, cfg.StoreID = store.Conn(), store.Name(), store.ID()
	cfg.Bucket = store.Name() + "__followers"
	cfg.Version, cfg.Definition = version, t.definition()
	if types := t.decoder.Types(); len(types) == 1 {
		cfg.Filter = store.SubjectFilter(types[0])
	}
	cfg.Skip = t.skipper()
	t.logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if t.Decide != nil {
		cfg.Decide = t.verdict
	}
	cfg.Decide = parks(cfg.Decide, t.Unknown == jetstream.ParkUnknown)
	cfg.Handle = func(ctx context.Context, d follow.Delivery) error { return t.handle(ctx, store, d) }
}

// parks puts aside what no writer of the store stored, and with unknown what the schema
// lacks: a person decides, and other aggregates go on. What a handler failed to read is
// another matter.
func parks(decide func(follow.Failure) follow.Verdict, unknown bool) func(follow.Failure) follow.Verdict {
	if decide == nil {
		decide = follow.Backoff(follow.BackoffMinDefault, follow.BackoffMaxDefault)
	}
	return func(f follow.Failure) follow.Verdict {
		if _, handled := errors.AsType[*EventError](f.Err); !handled {
			if errors.Is(f.Err, jetstream.ErrDamaged) || unknown && errors.Is(f.Err, jetstream.ErrUnknownEvent) {
				return follow.Verdict{Action: follow.Park}
			}
		}
		return decide(f)
	}
}

// definition changes with the events that are handled and with their versions,
// not with others of their schemas.
func (t *Table) definition() string {
	var parts []string
	for _, s := range t.schemas {
		handled := map[string]bool{}
		for _, name := range s.Names() {
			handled[name] = t.handlers[eventKey{s.Type(), s.GoType(name)}] != nil
		}
		for part := range strings.SplitSeq(s.Signature(), ",") {
			if name, _, ok := strings.Cut(part, "="); ok && handled[name] {
				parts = append(parts, s.Type()+"."+part)
			}
		}
	}
	slices.Sort(parts)
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// skipper tells from a message's subject and header alone that no handler wants
// it. Events that the schema does not know are not skipped: the handler stops at
// them. Nor are those that were renamed or that an upcaster may turn into handled
// ones.
func (t *Table) skipper() func(m *jetstream.Message) bool {
	type names struct{ known, wanted map[string]bool }
	byType := map[string]names{}
	for typ, s := range t.schemas {
		n := names{known: map[string]bool{}, wanted: map[string]bool{}}
		for _, wire := range s.WireNames() {
			n.known[wire] = true
		}
		var handled []string
		for _, name := range s.Names() {
			if t.handlers[eventKey{typ, s.GoType(name)}] != nil {
				handled = append(handled, name)
			}
		}
		for _, wire := range s.StoredNames(handled...) {
			n.wanted[wire] = true
		}
		byType[typ] = n
	}
	return func(m *jetstream.Message) bool {
		_, rest, _ := strings.Cut(m.Subject, ".event.")
		typ, _, _ := strings.Cut(rest, ".")
		n, ok := byType[typ]
		if !ok {
			return true
		}
		for _, name := range jetstream.EventNames(m) {
			if n.wanted[name] || !n.known[name] {
				return false
			}
		}
		return true
	}
}

func (t *Table) handle(ctx context.Context, store *jetstream.Store, d follow.Delivery) error {
	c, err := jetstream.Decode(&d.Message)
	if err != nil {
		return err
	}
	if err := planted(&d.Message, c); err != nil && d.Done < c.Events() {
		return err
	}
	return t.Handle(ctx, store, c, d)
}

// planted is a commit that no writer of the store can have stored: the server was not
// told what it follows, or another thing than its chain says. That is all that one commit
// can tell; whether it follows the one before is for [jetstream.Store.Verify].
func planted(m *jetstream.Message, c *jetstream.Commit) error {
	var detail string
	switch {
	case strings.Join(m.Header[nats.ExpectedLastSubjSeqHdr], "") == "":
		detail = "it was stored without an expectation"
	case (c.Ordinal == 1) != (c.PreviousSequence == 0):
		detail = fmt.Sprintf("it has ordinal %d and says that it follows one at %d", c.Ordinal, c.PreviousSequence)
	default:
		return nil
	}
	return &jetstream.DamageError{
		Kind: jetstream.DamageChain, Subject: m.Subject, Sequence: m.Sequence, Through: m.Sequence,
		Detail: "the chain is broken: " + detail,
	}
}

// Handle brings a commit's events to their handlers, up to the first that fails.
// Of the delivery, its message is not needed.
func (t *Table) Handle(
	ctx context.Context, store jetstream.Positions, c *jetstream.Commit, d follow.Delivery,
) error {
	if d.Done > 0 && d.Done >= c.Events() {
		return nil // the rest was discarded, readable or not
	}
	events, err := t.decoder.Events(store, c)
	if err != nil {
		return err
	}
	attempt, since := d.Attempt, d.Since
	for i, e := range events {
		at := index(c, e.EventID)
		// An event that was upcast into several is done with the last of them.
		last := i+1 < len(events) && index(c, events[i+1].EventID) > at
		h := t.handlers[eventKey{e.Type, reflect.TypeOf(e.Event)}]
		if h == nil || at < d.Done {
			continue
		}
		if at > d.Done {
			// Those without a handler before it are done: what is discarded when this
			// one fails is this one.
			d.Step(at)
		}
		err := h(ctx, Event{
			Recorded: e, Epoch: d.Epoch, Attempt: attempt, Since: since, Replay: d.Replay, Origin: c.Origin,
			Sequence: c.Sequence, Subject: d.Subject,
		})
		if err == nil {
			if last {
				d.Step(at + 1)
				attempt, since = 1, time.Time{} // the next has failures of its own
			}
			continue
		}
		err = &EventError{
			EventID: e.EventID, Name: e.Name, Type: e.Type, ID: e.ID, Version: e.Version, Event: at, Err: err,
		}
		if t.Decide == nil {
			return err
		}
		v := t.Decide(follow.Failure{Message: d.Message, Attempt: attempt, Since: since, Err: err})
		if v.Action != follow.SkipEvent || i+1 == len(events) {
			return &judged{err, v}
		}
		// Only this event is skipped, not those stored with it.
		t.logger.ErrorContext(ctx, "event skipped by policy", "error", err, "attempt", attempt)
		if last {
			d.Step(at + 1)
			attempt, since = 1, time.Time{}
		}
	}
	return nil
}

// index is the place of an event among those of its commit. The ids of products
// of upcasters have a further number behind it.
func index(c *jetstream.Commit, eventID string) int {
	text, _, _ := strings.Cut(strings.TrimPrefix(eventID, c.CommitID+"."), ".")
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// EventError is the failure of an event's handler.
type EventError struct {
	EventID, Name, Type, ID string
	Version                 uint64
	// Event is the event's place among those of its commit, from 0.
	Event int
	Err   error
}

// Error names the event.
func (e *EventError) Error() string {
	return fmt.Sprintf("event %s (%s of %s %q, version %d): %v", e.EventID, e.Name, e.Type, e.ID, e.Version, e.Err)
}

// Unwrap gives the handler's error.
func (e *EventError) Unwrap() error { return e.Err }

// judged is a failure whose verdict is known.
type judged struct {
	err     error
	verdict follow.Verdict
}

func (e *judged) Error() string { return e.err.Error() }
func (e *judged) Unwrap() error { return e.err }

// verdict is the engine's policy of a table that decides by itself: what no
// handler failed at cannot be read, or is tried again.
func (t *Table) verdict(f follow.Failure) follow.Verdict {
	if j, ok := errors.AsType[*judged](f.Err); ok {
		return j.verdict
	}
	if Unreadable(f.Err) {
		return follow.Verdict{Action: follow.Stop}
	}
	return t.Decide(f)
}

// Unreadable tells errors that no retry mends: the program is older than the
// event, or the message is damaged.
func Unreadable(err error) bool {
	return errors.Is(err, jetstream.ErrUnknownEvent) || errors.Is(err, jetstream.ErrFormat)
}
