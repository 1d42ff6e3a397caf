package aggregate_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// answered executes a command on a client whose requests are answered by the test, until
// its time is over, and returns what it made of the answers. It gives the command more
// time, and another id, until it was asked for often enough.
func answered(
	t *testing.T, nc *nats.Conn, store *jetstream.Store, often int, answer func(n int) *nats.Msg,
) (err error) {
	t.Helper()
	var mu sync.Mutex
	asked := map[string]int{}
	client := clientOf(t, nc, front(t, nc, store, func(_ int64, req *nats.Msg, _ func() *nats.Msg) *nats.Msg {
		mu.Lock()
		defer mu.Unlock()
		id := req.Header.Get("Rossby-Command-Id")
		asked[id]++
		return answer(asked[id])
	}), accounts)
	given := 100 * time.Millisecond
	natstest.Eventually(t, "the command is asked for", func() error {
		given *= 2
		ctx, cancel := context.WithTimeout(t.Context(), given)
		defer cancel()
		id := jetstream.NewCommandID()
		_, err = client.Execute(ctx, "a", credit{10}, aggregate.CommandID(id))
		mu.Lock()
		defer mu.Unlock()
		if asked[id] < often {
			return errors.New("not often enough")
		}
		return nil
	})
	return err
}

// TestClientUnknownIsNothingElse: once a request may have been executed, only an
// outcome ends the doubt. What a later attempt failed with is none, and must not be
// found in the error either: who looks for it would take it for the outcome.
func TestClientUnknownIsNothingElse(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, _ := newRepository(t, nc)
	for name, later := range map[string]*nats.Msg{
		"invalid":     errorReply("400", `{"kind":"invalid","field":"cents","value":"x","reason":"is none"}`),
		"refused":     errorReply("400", `{"kind":"invalid","code":"refused","reason":"no room"}`),
		"internal":    errorReply("500", `{"kind":"internal"}`),
		"busy":        errorReply("429", `{"kind":"busy","retryAfter":"5ms"}`),
		"contended":   errorReply("429", `{"kind":"busy","code":"contended"}`),
		"unavailable": errorReply("503", `{"kind":"unavailable"}`),
		"unreadable":  {Header: nats.Header{"Content-Type": {"text/html"}}, Data: []byte("<html>")},
		"cut off":     {Header: nats.Header{"Content-Type": {"application/json"}}, Data: []byte(`{"id":"a","ver`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := answered(t, nc, store, 2, func(n int) *nats.Msg {
				if n == 1 {
					return errorReply("504", `{"kind":"unknown"}`)
				}
				return later
			})
			if !errors.Is(err, jetstream.ErrUnknownOutcome) {
				t.Errorf("%v", err)
			}
			for _, other := range []error{
				jetstream.ErrUnavailable, aggregate.ErrContended, aggregate.ErrBusy, aggregate.ErrInternal,
			} {
				if errors.Is(err, other) {
					t.Errorf("%v is %v, too", err, other)
				}
			}
			_, invalid := errors.AsType[*jetstream.InvalidError](err)
			if _, refused := errors.AsType[*jetstream.RefusedError](err); invalid || refused {
				t.Errorf("%v is a refusal, too", err)
			}
		})
	}
}

// TestClientRepliesThatCannotBeRead: a reply without an error is of a service that has
// done it.
func TestClientRepliesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, _ := newRepository(t, nc)
	reply := func(body string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Content-Type": {"application/json"}}, Data: []byte(body)}
	}
	for name, msg := range map[string]*nats.Msg{
		"no reply of a service": {Header: nats.Header{"Content-Type": {"text/html"}}, Data: []byte("<html>")},
		"cut off":               reply(`{"id":"a","ver`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := answered(t, nc, store, 1, func(int) *nats.Msg { return msg }); !errors.Is(err, jetstream.ErrUnknownOutcome) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("an event", func(t *testing.T) {
		t.Parallel()
		client := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg {
			return reply(`{"id":"a","version":7,"position":"","events":[{"id":"c.0","name":"credited","version":7,"data":"x"}]}`)
		}), accounts)
		res, err := client.Execute(t.Context(), "a", credit{10})
		if err != nil || res.Version != 7 || len(res.Events) != 1 || res.Events[0].Event != nil ||
			res.Events[0].Name != "credited" || res.Events[0].EventID != "c.0" {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// TestClientWithoutTime: what was never sent did not happen.
func TestClientWithoutTime(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, _ := newRepository(t, nc)
	client := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg {
		t.Error("it was sent")
		return nil
	}), accounts)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{canceled, late} {
		_, err := client.Execute(ctx, "a", credit{10})
		if !errors.Is(err, jetstream.ErrUnavailable) || errors.Is(err, jetstream.ErrUnknownOutcome) || !errors.Is(err, ctx.Err()) {
			t.Errorf("%v", err)
		}
	}
}
