package follow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/natstest"
)

func TestConsumerDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.TTL = leaseNoticed
	i := start(t, cfg).active(t)
	for range 4 {
		b.publishLanes(10, 10)
		until(t, "the consumer is deleted", func() bool {
			return b.js.DeleteConsumer(t.Context(), b.stream, "f") == nil
		})
		b.publishLanes(10, 10)
	}
	i.caughtUp(t, 800)
	j.once(i, 1, 800)
	j.ordered()
}

// TestThiefLosesNothing lets others pull from the durable, reset it and delete
// messages from its future.
func TestThiefLosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Window, cfg.TTL = 16, leaseNoticed
	i := start(t, cfg).active(t)
	thief := b.connect()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if n%3 == 0 {
				// As a zombie owner would: it skips what it believes done.
				_, _ = b.js.ResetConsumerToSequence(ctx, b.stream, "f", i.Status().Position+20)
			} else {
				_, _ = thief.RequestWithContext(ctx, "$JS.API.CONSUMER.MSG.NEXT."+b.stream+".f",
					[]byte(`{"batch":1,"no_wait":true}`))
			}
			cancel()
		}
	}()
	b.publishLanes(20, 100)
	close(stop)
	<-stopped
	i.caughtUp(t, 2000)
	j.once(i, 1, 2000)
	j.ordered()
}

// TestResetOfAFreshCursor is what consumer sequences cannot show: a reset by
// another before anything was delivered after ours.
func TestResetOfAFreshCursor(t *testing.T) {
	t.Parallel()
	for _, wait := range []bool{true, false} {
		t.Run(fmt.Sprintf("beats=%t", wait), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			j := newJournal(t)
			cfg := b.config(j)
			cfg.TTL = leaseNoticed
			i := start(t, cfg).active(t)
			b.publishLanes(5, 1)
			i.caughtUp(t, 5)
			i.stop(t)
			i = start(t, cfg) // the second owner
			i.caughtUp(t, 5)
			if _, err := b.js.ResetConsumerToSequence(t.Context(), b.stream, "f", 16); err != nil {
				t.Fatal(err)
			}
			if wait {
				until(t, "the beat is refused", func() bool { return i.Status().LastError != nil })
			}
			b.publishLanes(5, 5)
			i.caughtUp(t, 30)
			j.once(i, 2, 30)
			j.ordered()
		})
	}
}

func TestServerForgetsTheConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Conn, cfg.TTL = b.connect(), leaseNoticed
	i := start(t, cfg).active(t)
	for range 5 {
		b.publishLanes(10, 10)
		if err := cfg.Conn.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		b.publishLanes(10, 10)
	}
	i.caughtUp(t, 1000)
	j.once(i, 1, 1000)
	j.ordered()
}

func TestStartsBeforeTheServerAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	j := newJournal(t)
	cfg := b.config(j)
	var err error
	cfg.Conn, err = nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(cfg.Conn)
	i := start(t, cfg)
	until(t, "trouble is reported", func() bool { return i.Status().LastError != nil })
	if s := i.Status().State; s != follow.StateStandby {
		t.Errorf("state %s", s)
	}
	i.stop(t)
}

// A request that goes astray, as one does while a stream has no leader, is made again
// soon, and not when half of the lease is over.
func TestResetThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := &natstest.Astray{Subject: "$JS.API.CONSUMER.RESET." + b.stream + "."}
	silent, err := b.nc.SubscribeSync("$XX.>")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Unsubscribe() }()
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Conn = natstest.Conn(t, b.url, nats.SetCustomDialer(l))
	cfg.TTL = time.Hour
	b.publishLanes(2, 3)
	l.Lose(1)
	i := start(t, cfg)
	until(t, "all is done", func() bool { return j.count() == 6 })
	if l.Lost() != 1 {
		t.Errorf("%d requests went astray", l.Lost())
	}
	i.stop(t)
}
