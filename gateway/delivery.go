package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/tracing"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Delivery stands beside the event.
type Delivery struct {
	jetstream.Meta

	// Store is the store's name.
	Store string
	// IdempotencyKey is the same on every attempt to deliver this event through
	// this gateway: give it to the service.
	IdempotencyKey string
	// Attempt counts from 1, over restarts and owners too.
	Attempt int
	// Epoch grows with every change of the process that delivers: a fencing token.
	Epoch uint64
	// Replay tells that somebody asked for a delivery that was made to be made again.
	Replay bool

	origin  *jetstream.Origin
	gateway *definition
	note    *string
	// trace is where the traceparent of the delivery's span is kept.
	trace *string
}

// parent is the traceparent of what the delivery leads to.
func (d Delivery) parent(ctx context.Context) string {
	own := ""
	if d.trace != nil {
		own = *d.trace // a report comes after it
	}
	return cmp.Or(tracing.Parent(ctx), own, d.TraceParent)
}

// NoteMax is the longest note, in bytes.
const NoteMax = 1 << 10

// Note keeps a line about the delivery, such as the id that the service gave it,
// for its [Outcome]; with the ledger, over crashes too. The last note counts;
// beyond [NoteMax] it is cut.
func (d Delivery) Note(text string) {
	if d.note != nil {
		*d.note = strings.ToValidUTF8(text[:min(len(text), NoteMax)], "")
	}
}

// Command executes a command about the outcome, by request-reply with the
// aggregate type's command service, once for ever: it is keyed by the gateway,
// the event, the aggregate and the command's name.
//
// What the service decided against is a [*CommandError]; any other error leaves
// it to the next attempt, which is safe.
func (d Delivery) Command(ctx context.Context, c Command) error {
	if err := jetstream.ValidateName("aggregate type", c.Type); err != nil {
		return err
	}
	if err := jetstream.ValidateName("command name", c.Name); err != nil {
		return err
	}
	if err := jetstream.ValidateID(c.ID); err != nil {
		return err
	}
	data, err := json.Marshal(c.Body)
	if err != nil {
		return &jetstream.InvalidError{Field: "command body", Value: c.Name, Reason: err.Error()}
	}
	msg := nats.NewMsg(protocol.CommandSubject(d.gateway.store.Name(), c.Type, c.Name, c.ID))
	msg.Data = data
	set := func(name, value string) {
		if value != "" {
			msg.Header[name] = []string{value}
		}
	}
	set(protocol.HeaderContentType, jetstream.JSON.ContentType())
	set(protocol.HeaderDeadline, protocol.Deadline(ctx))
	set(protocol.HeaderCorrelation, d.Correlation)
	set(protocol.HeaderCausation, d.EventID)
	set(protocol.HeaderTraceParent, d.parent(ctx))
	trigger := protocol.Trigger{
		Subscriber: d.gateway.name, EventID: d.EventID, Step: c.Name, Position: d.Position.String(), Time: d.StoredAt,
	}
	if d.origin != nil {
		// A copied event may have had its effect before it was copied.
		trigger.Position, trigger.Time = "", d.origin.Time
	}
	set(protocol.HeaderTrigger, trigger.String())
	resp, err := wire.Request(ctx, d.gateway.store.Conn(), msg)
	if err != nil {
		return fmt.Errorf("command %s: %w", msg.Subject, err)
	}
	if resp.Header.Get(micro.ErrorCodeHeader) == "" {
		return nil
	}
	var b protocol.ErrorBody
	if err := json.Unmarshal(resp.Data, &b); err != nil {
		return fmt.Errorf("command %s: %s", msg.Subject, strings.TrimSpace(resp.Header.Get(micro.ErrorHeader)))
	}
	switch b.Kind {
	case protocol.KindInvalid, protocol.KindNotFound, protocol.KindExists, protocol.KindConflict, protocol.KindRejected:
		return &CommandError{
			Subject: msg.Subject,
			Kind:    string(b.Kind),
			Code:    cmp.Or(b.Code, string(b.Kind)),
			Reason:  b.Reason,
		}
	case protocol.KindBusy, protocol.KindUnavailable, protocol.KindUnknown, protocol.KindInternal, protocol.KindStale:
	}
	// Kinds that this program does not know are no refusal either.
	return fmt.Errorf("command %s: %s: %s", msg.Subject, b.Kind, b.Reason)
}
