package aggregate_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
)

// TestClientRefusalIsFinal: a request that got no answer is repeated, and the repeat
// refused. When the first one arrives after all, it must find that refusal, whatever
// has become of the aggregate. Found by the torture rig: freeze-any.
func TestClientRefusalIsFinal(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	request(t, nc, store.Name()+".command.account.credit.absent", "", nil) // it listens
	var mu sync.Mutex
	var late func() *nats.Msg
	client := clientWith(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, forward func() *nats.Msg) *nats.Msg {
		if n > 1 {
			return forward()
		}
		mu.Lock()
		defer mu.Unlock()
		late = forward
		return nil
	}), accounts, soon)
	if _, err := client.Execute(t.Context(), "a", credit{10}); !errors.Is(err, aggregate.ErrNotFound) {
		t.Fatal(err)
	}
	must(t, repo, "a", open{100})
	mu.Lock()
	defer mu.Unlock()
	late()
	balance(t, repo, "a", 100, 1)
}
