package projection

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// TestUndecidedWriteIsNotAnother: a write whose outcome is not known lands late, after
// another one was begun: it is not taken for that one. A partial rebuild renews the
// lease beside its work, and writes afterwards.
func TestUndecidedWriteIsNotAnother(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	b := newBucket(nc, natstest.Name(t), "v")
	if err := b.ensure(t.Context(), 1, false); err != nil {
		t.Fatal(err)
	}
	cp := checkpoint{Format: checkpointFormat, Owner: "me", Epoch: 1}
	rev, err := putCheckpoint(t.Context(), b, 1, nil, &cp, 0)
	if err != nil {
		t.Fatal(err)
	}
	fl := &flusher{
		b: b, gen: 1, ttl: time.Second, log: slog.New(slog.DiscardHandler), cp: cp, rev: rev,
		shared: new(atomic.Uint64), pos: new(atomic.Uint64), step: func(string) {},
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fl.put(ended, nil, fl.cp); err == nil {
		t.Fatal("it was stored without time for it")
	}
	late := fl.cp // What that put has sent.
	late.Flush++
	if _, err := putCheckpoint(t.Context(), b, 1, nil, &late, rev); err != nil {
		t.Fatal(err)
	}
	key := nats.NewMsg(b.keyPrefix(1) + "a")
	err = fl.put(t.Context(), []*nats.Msg{key}, fl.cp)
	_, missing := wire.LeaderLast(t.Context(), nc, b.stream, key.Subject)
	if err == nil && missing != nil {
		t.Errorf("the write is taken for stored, and the key is not there: %v", missing)
	}
}
