package follow

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestCaughtUpWithoutAHeartbeat: an owner that has nothing to catch up with knows that from
// the beginning. The server's heartbeat would say so, too, as long after as a lease lets
// it, which is an hour here.
func TestCaughtUpWithoutAHeartbeat(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	natstest.CreateStream(t, nc, jetstream.StreamConfig{Name: "bank", Subjects: []string{"bank.>"}})
	js := natstest.JetStream(t, nc)
	natstest.Retry(t, "an event is stored", func(ctx context.Context) error {
		_, err := js.Publish(ctx, "bank.a", nil)
		return err
	})
	f, err := New(Config{
		Conn: nc, Stream: "bank", Bucket: "bank__followers", Name: "f", TTL: time.Hour,
		Start: func(ctx context.Context) (uint64, error) { // after all that is there
			s, err := js.Stream(ctx, "bank")
			if err != nil {
				return 0, err
			}
			return s.CachedInfo().State.LastSeq, nil
		},
		Handle: func(context.Context, Delivery) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	natstest.Eventually(t, "it has caught up", func() error {
		if s := f.Status(); !s.CaughtUp || s.State != StateActive {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
