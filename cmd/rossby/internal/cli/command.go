package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

func (a *app) commandCommands() *cobra.Command {
	return a.group("command", "Commands: list what services take, send one", "  rossby command ls",
		a.commandSend(), a.commandLs())
}

func (a *app) commandLs() *cobra.Command {
	c := a.command("ls [TYPE]", "Lists the commands that the running services take",
		"  rossby command ls --store bank\n  rossby command ls account --json", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			at, end, err := a.named(ctx)
			if err != nil {
				return err
			}
			defer end()
			rows, err := commands(ctx, at)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if rows, err = ofType(rows, args[0]); err != nil {
					return err
				}
			}
			return list(a, rows, fmt.Sprintf("No service takes commands for store %q.", at.store),
				[]string{"TYPE", "COMMAND", "CREATES", "INSTANCES", "FIELDS"}, func(r commandRow) []string {
					return []string{r.Type, r.Command, yesNo(r.Creates), number(r.Instances), fieldsOf(r.Schema)}
				})
		})
	c.Long = "Lists the commands that the running services take. With --json each has its JSON Schema."
	c.ValidArgsFunction = a.completes(serviceTypes)
	return c
}

func ofType(rows []commandRow, typ string) ([]commandRow, error) {
	var some []commandRow
	var types []string
	for _, r := range rows {
		if r.Type == typ {
			some = append(some, r)
		}
		if len(types) == 0 || types[len(types)-1] != r.Type {
			types = append(types, r.Type)
		}
	}
	if some == nil {
		return nil, missing("a service for type", typ, types)
	}
	return some, nil
}

// fieldsOf are the fields of a schema with their types, in its order.
func fieldsOf(schema json.RawMessage) string {
	var s struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return ""
	}
	var all []string
	for name, p := range s.Properties {
		if typ, ok := p.Type.(string); ok {
			name += ":" + typ
		}
		all = append(all, name)
	}
	sortBy(all, func(s string) string { return s })
	return strings.Join(all, " ")
}

// sending is a command to send.
type sending struct {
	place

	typ, command, id, body string

	commandID string
	expect    int64
	meta      map[string]string
	// open tells that an attempt may have been executed, or may be yet.
	open bool
	// wait is how long a service that is not there may take to start.
	wait time.Duration
}

func (a *app) commandSend() *cobra.Command {
	var s sending
	makes := false
	c := a.command("send TYPE COMMAND ID [JSON]", "Sends a command to an aggregate",
		"  rossby command send account debit a1 '{\"cents\":5}' --store bank\n"+
			"  rossby command send account open --new '{\"title\":\"mine\"}'\n"+
			"  jq -c .debit order.json | rossby command send account debit a1 -",
		cobra.RangeArgs(2, 4), func(ctx context.Context, args []string) error {
			s.typ, s.command, args = args[0], args[1], args[2:]
			if makes {
				s.id = jetstream.NewID()
			} else if len(args) > 0 {
				s.id, args = args[0], args[1:]
			}
			switch {
			case s.id == "":
				return &usageError{"send: name the aggregate, or pass --new for a new id", nil}
			case len(args) > 1:
				return &usageError{fmt.Sprintf("send: %q is one argument too many", args[1]), nil}
			case s.expect < -1:
				return &usageError{"--expect-version must not be negative", nil}
			case s.wait < 0:
				return &usageError{"--wait must not be negative", nil}
			}
			s.body = "{}"
			if len(args) > 0 {
				s.body = args[0]
			}
			if err := a.body(&s); err != nil {
				return err
			}
			at, end, err := a.named(ctx)
			if err != nil {
				return err
			}
			defer end()
			s.place = at
			return a.send(ctx, s)
		})
	c.Long = "Sends a command to an aggregate and shows what came of it. The body is JSON, - reads it from the input.\n" +
		"A command is sent again with its id until the answer is known or --timeout ends: it happens once.\n" +
		"A service that is not there gets --wait to start.\n" +
		"Exit code 7: it is not known; the same command with the same --id asks again."
	f := c.Flags()
	f.BoolVar(&makes, "new", false, "make an id for a new aggregate")
	f.StringVar(&s.commandID, "id", "", "the command's `id`; a new one by default")
	f.Int64Var(&s.expect, "expect-version", -1, "refuse unless the aggregate has this `version`")
	f.DurationVar(&s.wait, "wait", 2*time.Second,
		"how long to wait for a service that is starting, at most --timeout; 0 for not at all")
	f.StringToStringVar(&s.meta, "meta", nil, "metadata to store with the events, `key=value`")
	c.ValidArgsFunction = a.completes(serviceTypes)
	return c
}

// maxBody bounds what is read from the input.
const maxBody = 64 << 20

func (a *app) body(s *sending) error {
	if s.body == "-" {
		data, err := io.ReadAll(io.LimitReader(a.env.In, maxBody))
		if err != nil {
			return err
		}
		s.body = string(data)
	}
	if !json.Valid([]byte(s.body)) {
		return &usageError{fmt.Sprintf("send: %q is not JSON", s.body), nil}
	}
	err := errors.Join(jetstream.ValidateName("aggregate type", s.typ), jetstream.ValidateName("command", s.command),
		jetstream.ValidateID(s.id))
	s.commandID = cmp.Or(s.commandID, jetstream.NewCommandID())
	return err
}

// reply is what came of a command.
type reply struct {
	ID        string             `json:"id"`
	CommandID string             `json:"commandId"`
	Version   uint64             `json:"version"`
	Position  jetstream.Position `json:"position"`
	Duplicate bool               `json:"duplicate,omitempty"`
	Events    []struct {
		ID            string          `json:"id"`
		Name          string          `json:"name"`
		Version       uint64          `json:"version"`
		SchemaVersion int             `json:"schemaVersion,omitempty"`
		Data          json.RawMessage `json:"data"`
	} `json:"events"`
}

func (a *app) send(ctx context.Context, s sending) error {
	ctx, cancel := a.short(ctx)
	defer cancel()
	r, err := s.sendTo(ctx)
	if err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) {
		again := ""
		if r.Duplicate {
			again = ", which had happened before"
		}
		_, _ = fmt.Fprintf(w, "%s/%s is at version %d%s\n", s.typ, r.ID, r.Version, again)
		fields(w, field{labelPosition, r.Position.String()}, field{"Command id", r.CommandID})
		for _, e := range r.Events {
			_, _ = fmt.Fprintf(w, "  v%d  %s  %s\n", e.Version, e.Name, string(e.Data))
		}
	})
}

// servicePause is how often a service that is not there is looked for.
const servicePause = 100 * time.Millisecond

// sendTo sends the command, and waits for a service that is not there yet.
func (s *sending) sendTo(ctx context.Context) (*reply, error) {
	until, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	for there := 0; ; {
		r, err := s.send(ctx)
		if !errors.Is(err, nats.ErrNoResponders) {
			return r, err
		}
		// Nobody took it: is it the name, or is nobody there?
		rows, listErr := commands(ctx, s.place)
		if listErr != nil {
			return nil, errors.Join(err, listErr)
		}
		own, listErr := ofType(rows, s.typ)
		if listErr == nil {
			there++ // a service takes its commands one after the other when it starts, so look twice
		}
		select {
		case <-time.After(servicePause):
			if there < 2 {
				continue
			}
		case <-until.Done():
		}
		if listErr != nil {
			return nil, listErr
		}
		var known []string
		for _, row := range own {
			known = append(known, row.Command)
		}
		return nil, missing("command "+s.typ, s.command, known)
	}
}

// The pauses between attempts.
const (
	sendPause    = 20 * time.Millisecond
	sendPauseMax = time.Second
	// sendAttempt bounds one attempt.
	sendAttempt = 2 * time.Second
)

// send sends the command, again with the same id while its outcome is not known.
func (s *sending) send(ctx context.Context) (*reply, error) {
	for pause := sendPause; ; pause = min(2*pause, sendPauseMax) {
		r, err := s.attempt(ctx)
		switch {
		case err == nil:
			return r, nil
		case matches(err, context.DeadlineExceeded, nats.ErrTimeout, context.Canceled, jetstream.ErrUnknownOutcome):
			s.open = true // it may have happened
		case errors.Is(err, nats.ErrNoResponders) && !s.open:
			return nil, err
		case matches(err, aggregate.ErrBusy, aggregate.ErrContended, jetstream.ErrUnavailable, nats.ErrNoResponders):
		case s.open && !outcome(err):
		default:
			return nil, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
			continue
		case <-ctx.Done():
		}
		if s.open {
			return nil, fmt.Errorf("%w: it may have happened, or may yet: ask again with --id %s: %w",
				&jetstream.UnknownError{Type: s.typ, ID: s.id, Cause: context.Cause(ctx)}, s.commandID, err)
		}
		return nil, fmt.Errorf("it did not happen: %w", err)
	}
}

// outcome tells errors that are what came of a command.
func outcome(err error) bool {
	_, version := errors.AsType[*aggregate.VersionError](err)
	return version || matches(err,
		aggregate.ErrRejected, aggregate.ErrNotFound, aggregate.ErrExists, aggregate.ErrOtherPayload)
}

func (s *sending) attempt(ctx context.Context) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, sendAttempt)
	defer cancel()
	header := nats.Header{
		protocol.HeaderContentType: {"application/json"}, protocol.HeaderCommandID: {s.commandID},
		protocol.HeaderDeadline: {protocol.Deadline(ctx)},
	}
	if s.open {
		// An earlier attempt may arrive after this one: it must find this one's outcome,
		// a refusal too.
		header[protocol.HeaderRecordRejections] = []string{"true"}
	}
	if s.expect >= 0 {
		header[protocol.HeaderExpectVersion] = []string{strconv.FormatInt(s.expect, 10)}
	}
	for k, v := range s.meta {
		header[protocol.HeaderMetaPrefix+k] = []string{v}
	}
	msg, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{
		Subject: protocol.CommandSubject(s.store, s.typ, s.command, s.id), Header: header, Data: []byte(s.body),
	})
	if err != nil {
		return nil, err
	}
	if msg.Header.Get(micro.ErrorCodeHeader) != "" {
		return nil, s.refusal(msg)
	}
	r := &reply{CommandID: s.commandID}
	if err := json.Unmarshal(msg.Data, r); err != nil {
		return nil, fmt.Errorf("%w: the service's reply cannot be read: %w", jetstream.ErrUnknownOutcome, err)
	}
	return r, nil
}

// refusal is the error that a reply stands for.
func (s *sending) refusal(msg *nats.Msg) error {
	var b protocol.ErrorBody
	if err := json.Unmarshal(msg.Data, &b); err != nil {
		return fmt.Errorf("%s %q: %w: %s", s.typ, s.id, aggregate.ErrInternal, msg.Header.Get(micro.ErrorHeader))
	}
	at := func(err error) error { return &toldError{b.Reason, err} }
	switch b.Kind {
	case protocol.KindInvalid:
		return &usageError{fmt.Sprintf("%s %q: %s", s.typ, s.id, b.Reason), nil}
	case protocol.KindNotFound:
		return at(aggregate.ErrNotFound)
	case protocol.KindExists:
		return at(aggregate.ErrExists)
	case protocol.KindConflict:
		if b.Expected != b.Actual {
			return &aggregate.VersionError{Type: s.typ, ID: s.id, Expected: b.Expected, Actual: b.Actual}
		}
		return at(aggregate.ErrOtherPayload)
	case protocol.KindRejected:
		return fmt.Errorf("%s %q: %w", s.typ, s.id, &aggregate.RejectedError{Code: b.Code, Reason: b.Reason})
	case protocol.KindBusy:
		return at(aggregate.ErrBusy)
	case protocol.KindUnavailable:
		return at(jetstream.ErrUnavailable)
	case protocol.KindUnknown, protocol.KindStale:
		return at(jetstream.ErrUnknownOutcome)
	case protocol.KindInternal:
	}
	return at(aggregate.ErrInternal)
}
