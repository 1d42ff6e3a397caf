package aggregate

import (
	"context"
	"errors"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// TestServiceWithoutAnEndpoint: a service that cannot offer one of its commands says so
// and ends, with its workers, which rest for ever where they are not stopped. A command
// that comes for another endpoint by then is told that the service stops.
func TestServiceWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := NewRepository(store, newOpening(), RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const name = "not a name of NATS micro"
	repo.core.def.handlers[name] = repo.core.def.handlers["open"]
	s, err := NewService(repo, ServiceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	if err := s.Run(ctx); err == nil {
		t.Error("it runs without an endpoint")
	}
	err = s.pool.Load().submit("a1", &busyTask{during: func() {}})
	if _, busy := errors.AsType[*BusyError](err); !busy {
		t.Errorf("its workers take a command: %v", err)
	}
}

type (
	opening       struct{}
	openingOpened struct{}
)

// newOpening is an aggregate that can be opened, and nothing else.
func newOpening() *Type[opening] {
	return New[opening](jetstream.NewSchema("account", jetstream.Event[openingOpened]("opened")),
		Apply(func(*opening, openingOpened, jetstream.Meta) {}),
		Create("open", func(struct{}, Decision) ([]any, error) { return []any{openingOpened{}}, nil }),
	)
}
