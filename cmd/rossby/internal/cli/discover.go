package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// How long services are waited for: the first answer, and any further one.
const (
	discoverFirst = time.Second
	discoverNext  = 200 * time.Millisecond
	discoverMost  = 10_000
)

// commandRow is a command that a service offers.
type commandRow struct {
	Type    string `json:"type"`
	Command string `json:"command"`
	Creates bool   `json:"creates"`
	// Instances is how many processes answer it.
	Instances int    `json:"instances"`
	Service   string `json:"service"`
	// Schema is a JSON Schema of the command.
	Schema json.RawMessage `json:"schema,omitempty"`
}

// services asks every NATS micro service what it is.
func services(ctx context.Context, nc *nats.Conn) ([]micro.Info, error) {
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails on a closed connection only
	subject, err := micro.ControlSubject(micro.InfoVerb, "", "")
	if err != nil {
		return nil, err
	}
	if err := nc.PublishRequest(subject, sub.Subject, nil); err != nil {
		return nil, fmt.Errorf("ask for services: %w", err)
	}
	var all []micro.Info
	for wait := discoverFirst; len(all) < discoverMost; wait = discoverNext {
		msg, err := next(ctx, sub, wait)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("ask for services: %w", err)
		}
		var info micro.Info
		if json.Unmarshal(msg.Data, &info) == nil { // what is not one is nobody we know
			all = append(all, info)
		}
	}
	return all, nil
}

func next(ctx context.Context, sub *nats.Subscription, wait time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// commands lists what the services of a store offer.
func commands(ctx context.Context, at place) ([]commandRow, error) {
	all, err := services(ctx, at.nc)
	if err != nil {
		return nil, err
	}
	var rows []commandRow
	for i := range all {
		for _, e := range all[i].Endpoints {
			rest, ok := strings.CutPrefix(e.Subject, at.store+".command.")
			parts := strings.Split(rest, ".")
			if !ok || len(parts) != 3 {
				continue
			}
			known := slices.IndexFunc(rows, func(r commandRow) bool { return r.Type == parts[0] && r.Command == parts[1] })
			if known >= 0 {
				rows[known].Instances++
				continue
			}
			row := commandRow{
				Type: parts[0], Command: parts[1], Creates: e.Metadata["creates"] == "true", Instances: 1, Service: all[i].Name,
			}
			if schema := e.Metadata["schema"]; json.Valid([]byte(schema)) {
				row.Schema = json.RawMessage(schema)
			}
			rows = append(rows, row)
		}
	}
	sortBy(rows, func(r commandRow) string { return r.Type + " " + r.Command })
	return rows, nil
}

// serviceTypes are the aggregate types that services take commands for.
func serviceTypes(ctx context.Context, at place) ([]string, error) {
	rows, err := commands(ctx, at)
	if err != nil {
		return nil, err
	}
	var types []string
	for _, r := range rows {
		types = append(types, r.Type)
	}
	return slices.Compact(types), nil
}
