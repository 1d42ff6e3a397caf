package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// fill stores n messages on a.<i> and b.<i> in turn, without waiting for each.
func (b *bundle) fill(t *testing.T, n int, data string) {
	t.Helper()
	const most, bytes = 500, 1 << 20 // of a batch, which is stored whole or sent again
	for i := 0; i < n; {
		var msgs []*nats.Msg
		for ; i < n && len(msgs) < min(most, 1+bytes/len(data)); i++ {
			m := b.msg(fmt.Sprintf("%c.%d", 'a'+rune(i%2), i), data)
			m.Header = nats.Header{"N": {strconv.Itoa(i)}}
			msgs = append(msgs, wire.Expect(m, 0))
		}
		if ack, err := b.batch(t, msgs); err != nil || ack.Sequence != uint64(i) {
			t.Fatalf("%d: %+v, %v", i, ack, err)
		}
	}
}

// pulling opens a puller, and another one at a sequence where nobody answered: on three
// servers, not all hear of a consumer at once.
type pulling struct {
	*wire.Puller

	open func(from uint64) *wire.Puller
}

func (p *pulling) again(err error, from uint64) bool {
	if !errors.Is(err, nats.ErrNoResponders) {
		return false
	}
	p.Close()
	p.Puller = p.open(from)
	return true
}

// take reads until a sequence, and checks what comes.
func take(ctx context.Context, t *testing.T, p *pulling, stream string, from, step, to uint64) {
	t.Helper()
	var page []wire.Message
	for want := from; want <= to; {
		var err error
		if page, err = p.Take(ctx, page[:0], 100); p.again(err, want) {
			continue
		}
		if err != nil {
			t.Fatalf("at %d: %v", want, err)
		}
		if len(page) == 0 || len(page) > 100 {
			t.Fatalf("%d messages", len(page))
		}
		for _, m := range page {
			i := m.Sequence - 1
			subject := fmt.Sprintf("%s.%c.%d", stream, 'a'+rune(i%2), i)
			if m.Sequence != want || m.Subject != subject || m.Header["N"][0] != strconv.FormatUint(i, 10) || time.Since(m.Time) > time.Hour {
				t.Fatalf("%+v at %d", m, want)
			}
			want += step
		}
		if p.Next() != page[len(page)-1].Sequence+1 {
			t.Fatalf("next is %d", p.Next())
		}
	}
}

func TestPuller(t *testing.T) {
	t.Parallel()
	consumers := func(t *testing.T, b *bundle) int {
		t.Helper()
		n := 0
		natstest.Retry(t, "the stream", func(ctx context.Context) error {
			s, err := natstest.JetStream(t, b.nc).Stream(ctx, b.stream)
			if err == nil {
				n = s.CachedInfo().State.Consumers
			}
			return err
		})
		return n
	}
	// counted waits for a number of consumers: not every server hears of one at once.
	counted := func(t *testing.T, b *bundle, want int) {
		t.Helper()
		natstest.Eventually(t, "the consumers", func() error {
			if n := consumers(t, b); n != want {
				return fmt.Errorf("%d consumers, not %d", n, want)
			}
			return nil
		})
	}
	opened := func(t *testing.T, b *bundle, filter string, from uint64) *pulling {
		t.Helper()
		open := func(from uint64) *wire.Puller {
			p, err := wire.OpenPuller(b.ctx, b.nc, b.stream, filter, from)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			return p
		}
		return &pulling{open(from), open}
	}
	both(t, map[string]func(*testing.T, *bundle){
		"Everything": func(t *testing.T, b *bundle) {
			const n = 7000
			b.fill(t, n, "x")
			take(b.ctx, t, opened(t, b, wire.Everything, 0), b.stream, 1, 1, n)
			take(b.ctx, t, opened(t, b, wire.Everything, 3001), b.stream, 3001, 1, n)
			take(b.ctx, t, opened(t, b, b.subject("b.>"), 3), b.stream, 4, 2, n)
		},
		"LargeMessages": func(t *testing.T, b *bundle) {
			const n = 40
			b.fill(t, n, strings.Repeat("x", 300<<10))
			take(b.ctx, t, opened(t, b, wire.Everything, 1), b.stream, 1, 1, n)
		},
		"WaitsForWhatComes": func(t *testing.T, b *bundle) {
			p := opened(t, b, wire.Everything, 1)
			for {
				ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
				page, err := p.Take(ctx, nil, 10)
				cancel()
				if p.again(err, 1) {
					continue
				}
				if len(page) > 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, %v", page, err)
				}
				break
			}
			b.fill(t, 3, "x")
			take(b.ctx, t, p, b.stream, 1, 1, 3)
		},
		"ConsumerGone": func(t *testing.T, b *bundle) {
			p := opened(t, b, wire.Everything, 1)
			b.fill(t, 3, "x")
			take(b.ctx, t, p, b.stream, 1, 1, 3)
			p.Close() // as somebody else might delete it
			again := opened(t, b, wire.Everything, 2)
			take(b.ctx, t, again, b.stream, 2, 1, 3)
			js := natstest.JetStream(t, b.nc)
			deleted := 0
			natstest.Retry(t, "no consumer is left", func(ctx context.Context) error {
				stream, err := js.Stream(ctx, b.stream)
				if err != nil {
					return err
				}
				names := stream.ConsumerNames(ctx)
				for name := range names.Name() {
					switch err := js.DeleteConsumer(ctx, b.stream, name); {
					case err == nil:
						deleted++
					case !errors.Is(err, jetstream.ErrConsumerNotFound):
						return err
					}
				}
				if left := stream.CachedInfo().State.Consumers; left > 0 || deleted == 0 {
					return fmt.Errorf("%d are left, %d were deleted", left, deleted)
				}
				return names.Err()
			})
			if page, err := again.Take(b.ctx, nil, 10); len(page) > 0 || err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, %v", page, err)
			}
		},
		"CloseLeavesNothing": func(t *testing.T, b *bundle) {
			p := opened(t, b, wire.Everything, 1)
			counted(t, b, 1)
			p.Close()
			counted(t, b, 0)
		},
		"NoStream": func(t *testing.T, b *bundle) {
			if _, err := wire.OpenPuller(b.ctx, b.nc, natstest.Name(t), wire.Everything, 1); wire.Number(err) != wire.CodeStreamNotFound {
				t.Error(err)
			}
		},
		"AtAndSince": func(t *testing.T, b *bundle) {
			for range 3 {
				b.publish(t, "a", "")
			}
			b.everywhere(t, 3)
			second, err := wire.LeaderAt(b.ctx, b.nc, b.stream, 2)
			if err != nil || second.Sequence != 2 {
				t.Fatal(second, err)
			}
			type since func(context.Context, *nats.Conn, string, time.Time) (wire.Message, error)
			type at func(context.Context, *nats.Conn, string, uint64) (wire.Message, error)
			for name, f := range map[string]at{"leader": wire.LeaderAt, "direct": wire.DirectAt} {
				if m, err := f(b.ctx, b.nc, b.stream, 3); err != nil || m.Sequence != 3 {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
				if m, err := f(b.ctx, b.nc, b.stream, 4); !errors.Is(err, wire.ErrNotFound) {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
			}
			for name, f := range map[string]since{"leader": wire.LeaderSince, "direct": wire.DirectSince} {
				for stamp, want := range map[time.Time]uint64{
					second.Time.Add(-time.Hour): 1, second.Time: 2, second.Time.Add(1): 3, second.Time.Add(-1): 2,
				} {
					if m, err := f(b.ctx, b.nc, b.stream, stamp); err != nil || m.Sequence != want {
						t.Errorf("%s %v: %+v, %v, want %d", name, stamp, m, err, want)
					}
				}
				if m, err := f(b.ctx, b.nc, b.stream, time.Now().Add(time.Hour)); !errors.Is(err, wire.ErrNotFound) {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
			}
		},
	})
}
