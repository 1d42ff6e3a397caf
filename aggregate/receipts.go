package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// ReceiptTTL is how long a command id that bears no time is remembered.
const ReceiptTTL = 24 * time.Hour

// receipts notes, for command ids that bear no time, where the aggregate stood
// when the id was first seen: the command can only have been handled after.
type receipts struct {
	store  *jetstream.Store
	bucket string

	mu   sync.Mutex
	made bool
}

func newReceipts(store *jetstream.Store) *receipts {
	return &receipts{store: store, bucket: store.Name() + "__receipts"}
}

// make writes a receipt, or finds the one that an earlier attempt wrote, and
// returns the sequence that it names.
func (r *receipts) make(ctx context.Context, typ, id, commandID string, last uint64) (uint64, error) {
	if err := r.ensure(ctx); err != nil {
		return 0, err
	}
	sum := sha256.Sum256([]byte(typ + "\n" + id + "\n" + commandID))
	subject := "$KV." + r.bucket + "." + hex.EncodeToString(sum[:16])
	msg := wire.Expect(nats.NewMsg(subject), 0)
	msg.Data = strconv.AppendUint(nil, last, 10)
	for try := 0; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
		_, err := wire.Publish(attempt, r.store.Conn(), msg)
		cancel()
		if err == nil {
			return last, nil
		}
		attempt, cancel = context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
		m, readErr := wire.LeaderLast(attempt, r.store.Conn(), "KV_"+r.bucket, subject)
		cancel()
		if readErr == nil {
			return strconv.ParseUint(string(m.Data), 10, 64)
		}
		if ctx.Err() != nil || try == 10 {
			return 0, fmt.Errorf("%w: receipt of command %q: %w", jetstream.ErrUnavailable, commandID, errors.Join(err, readErr))
		}
	}
}

// ensure makes the bucket on first use: most programs never need it.
func (r *receipts) ensure(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made {
		return nil
	}
	js, err := natsjs.New(r.store.Conn())
	if err != nil {
		return err
	}
	_, err = js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
		Bucket: r.bucket, Description: "Rossby: command ids seen", TTL: ReceiptTTL, History: 1,
		Storage: natsjs.FileStorage, Replicas: r.store.Replicas(),
	})
	if err != nil && !errors.Is(err, natsjs.ErrBucketExists) {
		return fmt.Errorf("%w: bucket %q: %w", jetstream.ErrUnavailable, r.bucket, err)
	}
	r.made = true
	return nil
}
