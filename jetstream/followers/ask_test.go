package followers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// recorded makes a record of a follower that names an owner, and somebody who listens to
// requests as instances do.
func recorded(t *testing.T, b *bench, name, owner string, take nats.MsgHandler) {
	t.Helper()
	js := natstest.JetStream(t, b.store.Conn())
	natstest.Retry(t, "a record of "+name, func(ctx context.Context) error {
		kv, err := js.CreateOrUpdateKeyValue(ctx, natsjs.KeyValueConfig{Bucket: b.store.Name() + "__followers"})
		if err == nil {
			_, err = kv.PutString(ctx, name, `{"v":1,"owner":"`+owner+`","epoch":1,"flush":1}`)
		}
		return err
	})
	sub, err := b.store.Conn().Subscribe(followers.Subject(b.store.Name(), name, "*"), take)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// An owner that is slow is waited for while the caller waits. Who asked gave up after
// three seconds, and took what the servers know for all there is.
func TestSlowOwnerIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	var mu sync.Mutex
	asked := map[string][]*nats.Msg{}
	recorded(t, b, "slow", "somebody", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		asked[m.Subject] = append(asked[m.Subject], m)
		status := asked[followers.Subject(b.store.Name(), "slow", followers.DoStatus)]
		pause := asked[followers.Subject(b.store.Name(), "slow", followers.DoPause)]
		discard := asked[followers.Subject(b.store.Name(), "slow", followers.DoDiscard)]
		// By then the record was looked at: it names an owner.
		if len(status) < 5 || len(pause) < 5 || len(discard) < 1 {
			return
		}
		_ = status[0].Respond([]byte(`{"kind":"gateway"}`))
		_ = pause[0].Respond(nil)
		_ = discard[0].Respond(nil)
	})
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() {
		if s, err := b.admin.Status(ctx, "slow"); err != nil || s.Kind != "gateway" {
			t.Errorf("status: %+v %v", s, err)
		}
	})
	asking.Go(func() {
		if err := b.admin.Pause(ctx, "slow", "ada", "x"); err != nil {
			t.Errorf("pause: %v", err)
		}
	})
	asking.Go(func() {
		if err := b.admin.Discard(ctx, "slow", followers.Lane{Lane: "x"}, false, "ada", "x"); err != nil {
			t.Errorf("discard: %v", err)
		}
	})
	asking.Wait()
	mu.Lock()
	defer mu.Unlock()
	ids := map[string]bool{}
	for subject, msgs := range asked {
		for _, m := range msgs {
			var r followers.Request
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Error(err)
			}
			ids[subject+" "+r.ID] = true
			if left, err := time.ParseDuration(m.Header.Get("Rossby-Timeout")); err != nil || left <= 0 || left > natstest.Patience {
				t.Errorf("%s: who asks waits for %v, %v", subject, left, err)
			}
		}
	}
	if len(ids) != 3 {
		t.Errorf("what is asked again is not the same: %v", ids)
	}
	if n := len(asked[followers.Subject(b.store.Name(), "slow", followers.DoDiscard)]); n != 1 {
		t.Errorf("a discard was asked for %d times: a second owner would refuse it", n)
	}
}

// Where the record names no owner there is nobody to wait for; where it names one that is
// silent, the caller's time decides, and leaves some for what is recorded.
func TestSilentOwner(t *testing.T) {
	t.Parallel()
	b := newBench(t, natstest.Conn(t, natstest.Run(t).URL()), 1)
	silent := func(*nats.Msg) {}
	recorded(t, b, "silent", "somebody", silent)
	recorded(t, b, "free", "", silent)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := b.admin.Pause(ctx, "free", "ada", "x"); !errors.Is(err, followers.ErrNotRunning) {
			t.Errorf("pause of one that nobody owns: %v", err)
		}
	})
	asking.Go(func() {
		if s, err := b.admin.Status(ctx, "free"); err != nil || s.State != "stopped" || s.Kind != "" {
			t.Errorf("status of one that nobody owns: %+v %v", s, err)
		}
	})
	asking.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		err := b.admin.Pause(ctx, "silent", "ada", "x")
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, followers.ErrNotRunning) {
			t.Errorf("pause of a silent one: %v", err)
		}
	})
	natstest.Retry(t, "what is recorded of a silent one", func(ctx context.Context) error {
		s, err := b.admin.Status(ctx, "silent")
		if err == nil && (s.State != "active" || s.Kind != "" || s.Owner != "somebody") {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	asking.Wait()
}
