package saga

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/once"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// index lists the instances that may be in flight: one key each, from the first
// event to the last. What is true of them the aggregates say.
type index struct {
	store  *jetstream.Store
	saga   string
	bucket string

	made once.Once
}

func newIndex(store *jetstream.Store, saga string) *index {
	return &index{store: store, saga: saga, bucket: store.Name() + "__sagas"}
}

// subject is the key's. Ids may hold what keys must not.
func (x *index) subject(id string) string {
	return x.prefix() + base64.RawURLEncoding.EncodeToString([]byte(id))
}

func (x *index) prefix() string { return "$KV." + x.bucket + "." + x.saga + "." }

func (x *index) stream() string { return "KV_" + x.bucket }

// put adds an instance. A nil index has none.
func (x *index) put(ctx context.Context, id string) error {
	if x == nil {
		return nil
	}
	return x.change(ctx, func(ctx context.Context) error {
		_, err := wire.Publish(ctx, x.store.Conn(), &nats.Msg{Subject: x.subject(id), Data: []byte(id)})
		return err
	})
}

// remove takes an instance out.
func (x *index) remove(ctx context.Context, id string) error {
	if x == nil {
		return nil
	}
	return x.change(ctx, func(ctx context.Context) error {
		return wire.Purge(ctx, x.store.Conn(), x.stream(), x.subject(id), 0)
	})
}

func (x *index) change(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	err := x.ensure(ctx)
	if err == nil {
		err = change(ctx)
	}
	if err != nil {
		x.made.Forget()
		return fmt.Errorf("%w: list of the instances of saga %q: %w", jetstream.ErrUnavailable, x.saga, err)
	}
	return nil
}

// ensure makes the bucket on first use.
func (x *index) ensure(ctx context.Context) error {
	return x.made.Do(ctx, func(ctx context.Context) error {
		js, err := natsjs.New(x.store.Conn())
		if err != nil {
			return err
		}
		err = wire.Ensure(ctx, x.store.Conn(), x.stream(), func(ctx context.Context) error {
			_, err := js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
				Bucket: x.bucket, Description: "Rossby: sagas in flight", History: 1,
				Storage: natsjs.FileStorage, Replicas: x.store.Replicas(),
			})
			return err
		})
		if errors.Is(err, natsjs.ErrBucketExists) {
			return nil
		}
		return err
	})
}

// listPage is the number of instances that are read at once.
const listPage = 128

// ids yields the instances, the one that was started first to the last.
func (x *index) ids(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for from := uint64(1); ; {
			attempt, cancel := context.WithTimeout(ctx, jetstream.AppendTimeoutDefault)
			page, err := wire.Batch(attempt, x.store.Conn(), x.stream(), x.prefix()+">", from, listPage, 1<<20)
			cancel()
			if errors.Is(err, nats.ErrNoResponders) {
				return // nobody ever started one
			}
			if err != nil {
				yield("", fmt.Errorf("list of the instances of saga %q: %w", x.saga, err))
				return
			}
			for _, m := range page.Messages {
				if !yield(string(m.Data), nil) {
					return
				}
				from = m.Sequence + 1
			}
			if page.Pending == 0 || len(page.Messages) == 0 {
				return
			}
		}
	}
}
