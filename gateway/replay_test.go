package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// A replay does not make the gateway forget which delivery of the aggregate was made
// and waits for its report only.
func TestReplayBesideAnUnsentReport(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{})
	first := must(t, repo, "o1", pay{[]int64{1}})
	must(t, repo, "o1", refund{1})
	var again, made calls
	g := newGateway(t, store, "beside", config(),
		gateway.On(events, func(_ context.Context, _ paid, d gateway.Delivery) error {
			if d.Replay {
				again.begin(d.ID)()
			}
			return nil
		}),
		gateway.On(events, func(_ context.Context, _ refunded, d gateway.Delivery) error { made.begin(d.ID)(); return nil },
			gateway.Report(func(_ refunded, d gateway.Delivery, _ gateway.Outcome) *gateway.Command {
				return &gateway.Command{Type: "order", ID: d.ID, Name: "pay", Body: pay{[]int64{7}}}
			})))
	run(t, g)
	natstest.Eventually(t, "the report fails", func() error {
		if s := g.Status(); len(s.Blocked) != 1 || s.Blocked[0].Attempts < 2 {
			return fmt.Errorf("%+v", s.Blocked)
		}
		return nil
	})
	at := first.Position
	admin := followers.New(store)
	natstest.Eventually(t, "a replay is asked for", func() error {
		// Who is slow to answer may have taken it.
		err := admin.Replay(t.Context(), "beside", at, at, "ada", "they lost it")
		if again.total() > 0 || errors.Is(err, followers.ErrRefused) {
			return nil
		}
		return err
	})
	natstest.Eventually(t, "the replay is over", func() error {
		if s := g.Status(); s.Replay != nil || again.total() == 0 {
			return fmt.Errorf("%+v", s.Replay)
		}
		return nil
	})
	serve(t, store, repo)
	caughtUp(t, g)
	if made.total() != 1 {
		t.Errorf("delivered %d times", made.total())
	}
}
