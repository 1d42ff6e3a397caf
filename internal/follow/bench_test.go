package follow_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/follow"
)

// BenchmarkFollow compares a no-op handler with pulling and acknowledging the
// same events explicitly, in turns, and reports the ratio of the throughputs.
func BenchmarkFollow(b *testing.B) {
	const events, lanes = 40_000, 2000
	s := setup(b)
	js, err := jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 200)
	for n := range events {
		if _, err := js.PublishAsync(fmt.Sprintf("t.%d", n%lanes), data); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	turn := 0 // every turn needs a record of its own
	for _, k := range []int{64, follow.MaxUnrecordedDefault, 1024} {
		b.Run(fmt.Sprintf("K=%d", k), func(b *testing.B) {
			var raw, ours time.Duration
			for range b.N {
				turn++
				// Neither always comes first.
				if turn%2 == 0 {
					raw += pullAndAck(b, s, fmt.Sprintf("raw-%d", turn), events)
				}
				ours += followAll(b, s, fmt.Sprintf("f-%d", turn), k, events)
				if turn%2 == 1 {
					raw += pullAndAck(b, s, fmt.Sprintf("raw-%d", turn), events)
				}
			}
			total := float64(events * b.N)
			b.ReportMetric(total/ours.Seconds(), "events/s")
			b.ReportMetric(total/raw.Seconds(), "raw/s")
			b.ReportMetric(raw.Seconds()/ours.Seconds(), "ratio")
		})
	}
}

// pullAndAck is what a consumer costs without any of the guarantees.
func pullAndAck(b *testing.B, s *bench, name string, events int) time.Duration {
	b.Helper()
	ctx := b.Context()
	_, err := s.js.CreateConsumer(ctx, s.stream, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4000,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.js.DeleteConsumer(context.WithoutCancel(ctx), s.stream, name) }()
	nc := s.connect()
	defer shut(nc)
	incoming := make(chan *nats.Msg, 8192)
	inbox := nc.NewInbox()
	sub, err := nc.ChanSubscribe(inbox, incoming)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	begin := time.Now()
	left, asked := events, 0
	for left > 0 {
		if asked <= 500 {
			asked += 500
			body := `{"batch":500,"expires":5000000000}`
			if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+s.stream+"."+name, inbox, []byte(body)); err != nil {
				b.Fatal(err)
			}
		}
		msg := <-incoming
		if msg.Subject == inbox {
			b.Fatalf("status %v", msg.Header)
		}
		if err := msg.Ack(); err != nil {
			b.Fatal(err)
		}
		left--
		asked--
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

func followAll(b *testing.B, s *bench, name string, k, events int) time.Duration {
	b.Helper()
	done := make(chan struct{})
	var n atomic.Int64
	begin := time.Now()
	i := start(b, follow.Config{
		Conn: s.nc, Stream: s.stream, Bucket: s.bucket, Name: name, MaxUnrecorded: k,
		Start: func(context.Context) (uint64, error) { return 0, nil },
		Handle: func(context.Context, follow.Delivery) error {
			if n.Add(1) == int64(events) {
				close(done)
			}
			return nil
		},
	})
	select {
	case <-done:
	case <-time.After(patience):
		b.Fatalf("%d of %d events: %+v", n.Load(), events, i.Status())
	}
	d := time.Since(begin)
	i.stop(b)
	_ = s.js.DeleteConsumer(context.WithoutCancel(b.Context()), s.stream, name)
	return d
}
