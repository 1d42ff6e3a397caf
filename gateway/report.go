package gateway

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/rossby-go/rossby/internal/dispatch"
)

// Outcome is what came of a delivery: it was made, or the gateway has given it
// up until somebody resumes it.
type Outcome struct {
	Delivered bool
	// Err is why it was not delivered.
	Err error
	// Note is what the handler noted with [Delivery.Note].
	Note string
	// Attempt is the number of attempts it took.
	Attempt int
}

// Command is a command to be executed by an aggregate type's command service.
type Command struct {
	// Type is the aggregate type, ID the aggregate.
	Type, ID string
	// Name is the command's name, Body its body, sent as JSON.
	Name string
	Body any
}

// Report turns the outcome of each of the handler's deliveries into a command,
// which is executed once for ever: see [Delivery.Command]. It is asked when a
// delivery was made, and when one failed and will be parked or skipped; nil is no
// command. It must be pure. A command that did not get through is sent again, and
// the delivery is not made again; one that was refused parks the event.
func Report[E any](report func(event E, d Delivery, o Outcome) *Command) HandlerOption {
	return func(h *handler) error {
		want := reflect.TypeFor[E]()
		switch {
		case report == nil:
			return fmt.Errorf("report of %s is a nil function", h.event)
		case h.report != nil:
			return fmt.Errorf("handler of %s has two reports", h.event)
		case h.event != want && want.Kind() != reflect.Interface:
			return fmt.Errorf("the report of %s is for %s", h.event, want)
		}
		h.report = func(event any, d Delivery, o Outcome) *Command {
			return report(event.(E), d, o) //nolint:forcetypeassert // compared above
		}
		return nil
	}
}

// report sends the outcome's command.
func (def *definition) report(ctx context.Context, h *handler, e dispatch.Event, d Delivery, o Outcome) error {
	if h.report == nil {
		return nil
	}
	var c *Command
	if err := guard(func() error { c = h.report(e.Event, d, o); return nil }); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if c == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, def.cfg.Timeout)
	defer cancel()
	err := d.Command(ctx, *c)
	if _, refused := errors.AsType[*CommandError](err); refused {
		return Permanent(fmt.Errorf("report: %w", err))
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
