package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/once"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// receipts notes, for command ids that bear no time, where the aggregate stood
// when the id was first seen: the command can only have been handled after.
type receipts struct {
	store  eventStore
	bucket string
	// ttl is how long each receipt lives, as the header wants it.
	ttl string

	made once.Once
}

func newReceipts(store eventStore, ttl time.Duration) *receipts {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	return &receipts{store: store, bucket: store.Name() + "__receipts", ttl: strconv.FormatInt(seconds, 10) + "s"}
}

// make writes a receipt, or finds the one that an earlier attempt wrote, and
// returns the sequence that it names.
func (r *receipts) make(ctx context.Context, typ, id, commandID string, last uint64) (uint64, error) {
	if r.store.Conn() == nil {
		return 0, nil // in memory: the whole history is searched
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, jetstream.AppendTimeoutDefault)
		defer cancel()
	}
	sum := sha256.Sum256([]byte(typ + "\n" + id + "\n" + commandID))
	subject := "$KV." + r.bucket + "." + hex.EncodeToString(sum[:16])
	msg := wire.Expect(nats.NewMsg(subject), 0)
	msg.Header[natsjs.MsgTTLHeader] = []string{r.ttl}
	msg.Data = strconv.AppendUint(nil, last, 10)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		seq, err := r.try(ctx, msg, last)
		if err == nil {
			return seq, nil
		}
		if wire.Denied(err) {
			return 0, fmt.Errorf("%w: receipt of command %q: %w", jetstream.ErrUnavailable, commandID, err)
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, fmt.Errorf("%w: receipt of command %q: %w",
				jetstream.ErrUnavailable, commandID, errors.Join(context.Cause(ctx), err))
		}
	}
}

func (r *receipts) try(ctx context.Context, msg *nats.Msg, last uint64) (uint64, error) {
	attempt, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	if err := r.ensure(attempt); err != nil {
		return 0, err
	}
	_, err := wire.Publish(attempt, r.store.Conn(), msg)
	switch {
	case err == nil:
		return last, nil
	case errors.Is(err, nats.ErrNoResponders):
		r.made.Forget() // nobody keeps the bucket any more, or nobody does yet
		return 0, err
	case wire.Number(err) != wire.CodeWrongLastSequence:
		return 0, err
	}
	m, err := wire.LeaderLast(attempt, r.store.Conn(), "KV_"+r.bucket, msg.Subject)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(m.Data), 10, 64)
}

// ensure makes the bucket on first use: most programs never need it. Each receipt
// has a time to live of its own, so that repositories need not agree on one; it
// leaves no marker, which would stand where the next receipt expects nothing. The
// helpers for buckets offer only one or the other.
func (r *receipts) ensure(ctx context.Context) error {
	err := r.made.Do(ctx, func(ctx context.Context) error {
		js, err := natsjs.New(r.store.Conn())
		if err != nil {
			return err
		}
		err = wire.Ensure(ctx, r.store.Conn(), "KV_"+r.bucket, func(ctx context.Context) error {
			_, err := js.CreateStream(ctx, natsjs.StreamConfig{
				Name: "KV_" + r.bucket, Subjects: []string{"$KV." + r.bucket + ".>"}, Description: "Rossby: command ids seen",
				MaxMsgsPerSubject: 1, Discard: natsjs.DiscardNew, AllowMsgTTL: true, AllowDirect: true, AllowRollup: true,
				DenyDelete: true, Storage: natsjs.FileStorage, Replicas: r.store.Replicas(),
			})
			return err
		})
		if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: bucket %q: %w", jetstream.ErrUnavailable, r.bucket, err)
	}
	return nil
}
