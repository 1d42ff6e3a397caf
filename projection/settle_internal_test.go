package projection

import (
	"errors"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
)

// A checkpoint that is gone when the fate of its write is looked up was sealed and
// removed with its generation: that is no loss of the bucket, which stops the view.
func TestSettleOfARemovedGeneration(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	b := newBucket(nc, natstest.Name(t), "accounts")
	settled := func(expected uint64) (bool, error) {
		_, decided, err := settle(t.Context(), b, 2, &checkpoint{Owner: "me", Epoch: 1}, expected)
		return decided, err
	}
	if decided, err := settled(7); !decided || !errors.Is(err, ErrBucket) {
		t.Errorf("without a bucket: decided %v, %v", decided, err)
	}
	if _, err := js.CreateKeyValue(t.Context(), natsjs.KeyValueConfig{Bucket: b.name}); err != nil {
		t.Fatal(err)
	}
	if decided, err := settled(7); !decided || !errors.Is(err, ErrSuperseded) || errors.Is(err, ErrBucket) {
		t.Errorf("without a checkpoint: decided %v, %v", decided, err)
	}
	if decided, err := settled(0); decided || err != nil {
		t.Errorf("before the first: decided %v, %v", decided, err)
	}
}
