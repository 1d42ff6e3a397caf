package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// How services are looked for: everybody who answers is one, until nobody has for a
// while.
const (
	servicesFor   = 5 * time.Second
	servicesWait  = time.Second
	servicesQuiet = 250 * time.Millisecond
	servicesMost  = 1000
	// servicesKept is how long a service that does not answer is still shown.
	servicesKept = time.Minute
)

// commandType is an aggregate type with the commands that its services take.
type commandType struct {
	Type     string    `json:"type"`
	Commands []command `json:"commands"`
	// Instances counts the services that answered.
	Instances int `json:"instances"`

	seen time.Time
}

type command struct {
	Name    string `json:"name"`
	Creates bool   `json:"creates,omitempty"`
	// Schema is the JSON Schema of its body; null when the service does not tell it.
	Schema json.RawMessage `json:"schema"`
}

// services is what is known of the store's command services.
type services struct {
	mu    sync.Mutex
	types map[string]commandType
	until time.Time
}

// commands asks the services of the types that are known, or all services of the
// account, what they are. All are asked where no type is known, too.
func (c *Console) commands(ctx context.Context, all bool) ([]commandType, error) {
	known, err := c.typeNames.get(ctx, bucketsFor, c.findTypes)
	if err != nil {
		return nil, err
	}
	s := &c.services
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if all || now.After(s.until) {
		names := append(slices.Collect(maps.Keys(s.types)), known...)
		slices.Sort(names)
		subjects := []string{}
		for _, name := range slices.Compact(names) {
			subjects = append(subjects, servicesInfo+"."+c.cfg.Store.Name()+"-"+name)
		}
		if all || len(subjects) == 0 {
			subjects = []string{servicesInfo}
		}
		found, err := discover(ctx, c.cfg.Store.Conn(), c.cfg.Store.Name(), subjects)
		if err != nil {
			return nil, err
		}
		if s.types == nil {
			s.types = map[string]commandType{}
		}
		for name, t := range s.types {
			t.Instances = 0
			s.types[name] = t
		}
		for name, t := range found {
			t.seen = now
			s.types[name] = t
		}
		maps.DeleteFunc(s.types, func(_ string, t commandType) bool { return now.Sub(t.seen) > servicesKept })
		s.until = now.Add(servicesFor)
		if len(s.types) == 0 {
			s.until = now // they may just be starting
		}
	}
	return slices.SortedFunc(maps.Values(s.types), func(a, b commandType) int { return cmp.Compare(a.Type, b.Type) }), nil
}

// servicesInfo is what services answer with their descriptions.
const servicesInfo = micro.APIPrefix + ".INFO"

func discover(ctx context.Context, nc *nats.Conn, store string, subjects []string) (map[string]commandType, error) {
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("look for services: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for _, subject := range subjects {
		if err := nc.PublishRequest(subject, sub.Subject, nil); err != nil {
			return nil, fmt.Errorf("look for services: %w", err)
		}
	}
	types := map[string]commandType{}
	wait, silent := servicesWait, 0
	for range servicesMost {
		attempt, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(attempt)
		cancel()
		if errors.Is(err, nats.ErrNoResponders) { // a type without a service, such as a saga's
			if silent++; silent == len(subjects) {
				break
			}
			continue
		}
		if err != nil {
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			if errors.Is(err, nats.ErrConnectionClosed) {
				return nil, err
			}
			break // nobody, or nobody more
		}
		var info micro.Info
		if json.Unmarshal(m.Data, &info) == nil && strings.HasPrefix(info.Name, store+"-") {
			learn(types, store, &info)
		}
		wait = servicesQuiet
	}
	return types, nil
}

// learn adds what one instance tells.
func learn(types map[string]commandType, store string, info *micro.Info) {
	counted := ""
	for _, e := range info.Endpoints {
		parts := strings.Split(e.Subject, ".")
		if len(parts) != 5 || parts[0] != store || parts[1] != "command" {
			continue
		}
		t := types[parts[2]]
		t.Type = parts[2]
		if counted != t.Type {
			t.Instances++
			counted = t.Type
		}
		if !slices.ContainsFunc(t.Commands, func(k command) bool { return k.Name == parts[3] }) {
			k := command{Name: parts[3], Creates: e.Metadata["creates"] == "true"}
			if schema := e.Metadata["schema"]; json.Valid([]byte(schema)) {
				k.Schema = json.RawMessage(schema)
			}
			t.Commands = append(t.Commands, k)
			slices.SortFunc(t.Commands, func(a, b command) int { return cmp.Compare(a.Name, b.Name) })
		}
		types[t.Type] = t
	}
}

func (c *Console) getCommands(r *http.Request) (any, error) {
	types, err := c.commands(r.Context(), r.URL.Query().Has("all"))
	if err != nil {
		return nil, err
	}
	return struct {
		Types []commandType `json:"types"`
	}{append([]commandType{}, types...)}, nil
}

// cached is a value that is asked for at most so often.
type cached[T any] struct {
	mu    sync.Mutex
	value T
	until time.Time
}

func (c *cached[T]) get(ctx context.Context, keep time.Duration, ask func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	v, err := ask(ctx)
	if err == nil {
		c.value, c.until = v, time.Now().Add(keep)
	}
	return v, err
}
