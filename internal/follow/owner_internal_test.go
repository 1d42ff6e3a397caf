package follow

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
)

// TestOwnLeaseIsNotWaitedFor: an instance whose attempt to take the record was
// answered too late, or which could not renew its lease on a machine that stood still,
// finds the record in its own name. It waited for that lease to end, as for another's.
func TestOwnLeaseIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	natstest.CreateStream(t, nc, jetstream.StreamConfig{Name: "bank", Subjects: []string{"bank.>"}})
	f, err := New(Config{
		Conn: nc, Stream: "bank", Bucket: "bank__followers", Name: "f", TTL: time.Hour,
		Start:  func(context.Context) (uint64, error) { return 0, nil },
		Handle: func(context.Context, Delivery) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.makeBucket(ctx); err != nil {
		t.Fatal(err)
	}
	r := record{Owner: "me", Epoch: 7}
	if _, err := f.place.write(ctx, r.encode(nil, 0), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, instance string
		tried          uint64
		want           uint64 // the epoch that is taken, 0 for none
	}{
		{"another's lease", "other", 0, 0},
		{"another's lease, in the epoch that was tried", "other", 7, 0},
		{"the answer came too late: nothing was done in the epoch", "me", 7, 7},
		{"the lease was lost: another epoch begins", "me", 0, 8},
		{"the lease was lost again, and the next one was tried", "me", 9, 9},
	} {
		got, err := f.look(ctx, c.instance, &watch{tried: c.tried}, natstest.Patience)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.want == 0 && got != nil || c.want > 0 && (got == nil || got.record.Epoch != c.want || got.record.Owner != "me") {
			t.Errorf("%s: %+v, want epoch %d", c.name, got, c.want)
		}
	}
}
