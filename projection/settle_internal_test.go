package projection

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
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

// TestTroubleEnds: what was told of writes that the bucket does not take is taken back
// with the first one that it takes, even when only a look finds out that it did.
func TestTroubleEnds(t *testing.T) {
	t.Parallel()
	// The test plays the bucket: it has no room, then it takes a write, whose
	// acknowledgement is lost.
	nc := natstest.Conn(t, natstest.RunBare(t))
	b := newBucket(nc, natstest.Name(t), "v")
	var asked atomic.Int64
	var stored atomic.Pointer[[]byte]
	play := func(subject string, answer func(m *nats.Msg)) {
		t.Helper()
		if _, err := nc.Subscribe(subject, answer); err != nil {
			t.Fatal(err)
		}
	}
	play(b.checkpointSubject(1), func(m *nats.Msg) {
		if asked.Add(1) <= troubling {
			_ = m.Respond([]byte(`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`))
			return
		}
		stored.Store(&m.Data)
	})
	play("$JS.API.STREAM.MSG.GET."+b.stream, func(m *nats.Msg) {
		data := stored.Load()
		if data == nil {
			_ = m.Respond([]byte(`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`))
			return
		}
		_ = m.Respond(fmt.Appendf(nil, `{"message":{"subject":%q,"seq":7,"data":%q}}`,
			b.checkpointSubject(1), base64.StdEncoding.EncodeToString(*data)))
	})
	var told []error
	b.trouble = func(err error) { told = append(told, err) }
	cp := checkpoint{Format: checkpointFormat, Owner: "me", Epoch: 1}
	rev, err := putCheckpoint(t.Context(), b, 1, nil, &cp, 0)
	if err != nil || rev != 7 || len(told) != 2 || !errors.Is(told[0], ErrNotTaken) || told[1] != nil {
		t.Errorf("revision %d, %v; told %v", rev, err, told)
	}
}
