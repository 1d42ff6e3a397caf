package aggregate

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"

	"github.com/rossby-go/rossby/jetstream"
)

// decided is what a handler, and the interceptors after it, made of a command.
type decided struct {
	Interception

	call *call
	// refusal is what the caller gets as the command's outcome.
	refusal error
}

// decide runs the handler. A refusal is an outcome; err is a fault, which decides
// nothing.
func (r *core) decide(id string, req request, v *view, attempt int, out *decided) error {
	out.Interception = Interception{
		Name: req.name, Command: req.command, Attempt: attempt, Decision: Decision{
			ID: id, Version: v.head.Version, CommandID: req.call.commandID, Correlation: req.call.correlation,
			Causation: req.call.causation, Metadata: maps.Clone(req.call.metadata), now: jetstream.MicroTime(r.now()),
		},
	}
	exists := v.head.Version > 0
	switch want := req.call.expectVersion; {
	case want != nil && *want != v.head.Version:
		out.refusal = &VersionError{Type: r.typeName, ID: id, Expected: *want, Actual: v.head.Version}
		return nil
	case req.create && exists:
		out.refusal = fmt.Errorf("%s %q: %w", r.typeName, id, ErrExists)
		return nil
	case !req.create && !exists:
		out.refusal = fmt.Errorf("%s %q: %w", r.typeName, id, ErrNotFound)
		return nil
	}
	out.Events, out.Err = r.ask(id, req, v, out)
	if len(r.cfg.Interceptors)+len(req.call.interceptors) > 0 {
		if err := r.intercept(id, out, v.state); err != nil {
			return err
		}
	}
	err := out.Err
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRejected):
		if fault := checkRefusal(err); fault != nil {
			return fmt.Errorf("%s %q: command %q: %w", r.typeName, id, out.Name, fault)
		}
	case errors.Is(err, ErrExists), errors.Is(err, ErrNotFound):
	default:
		return fmt.Errorf("%s %q: command %q: %w", r.typeName, id, out.Name, err)
	}
	out.refusal, out.Events = err, nil
	return nil
}

// checkRefusal refuses refusals that would not be the same when they are read
// back.
func checkRefusal(err error) error {
	var rejected *RejectedError
	if !errors.As(err, &rejected) {
		return fmt.Errorf("the handler's %w: a refusal is made with aggregate.Reject", err)
	}
	if err := validText("rejection code", rejected.Code, maxCode); err != nil {
		return err
	}
	if rejected.Code == "" || rejected.Code[0] == '_' {
		return &jetstream.InvalidError{Field: "rejection code", Value: rejected.Code, Reason: "is empty or begins with '_'"}
	}
	return nil
}

// ask runs the user's code, each function on a copy of the state of its own.
func (r *core) ask(id string, req request, v *view, out *decided) (events []any, err error) {
	defer func() {
		if p := recover(); p != nil {
			events, err = nil, panicked("the handler", p)
		}
	}()
	if req.compute != nil {
		state, err := r.decodeState(id, v.state)
		if err != nil {
			return nil, err
		}
		command, err := req.compute(state, out.Decision)
		if err != nil || command == nil {
			return nil, err
		}
		h, command, err := r.def.lookup(command)
		if err != nil {
			return nil, err
		}
		if h.create {
			return nil, fmt.Errorf("%s %q: %w", r.typeName, id, ErrExists)
		}
		req.decide, req.command = h.decide, command
		out.Name, out.Command = h.name, command
	}
	state, err := r.decodeState(id, v.state)
	if err != nil {
		return nil, err
	}
	return req.decide(state, req.command, out.Decision)
}

func panicked(what string, p any) error {
	return fmt.Errorf("%s panicked: %v\n%s", what, p, debug.Stack())
}
