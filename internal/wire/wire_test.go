package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// bundle is what each scenario gets: a stream of its own, on one server or three.
type bundle struct {
	ctx     context.Context
	nc      *nats.Conn
	stream  string
	cluster *natstest.Cluster // nil on one server
}

func (b *bundle) subject(tokens string) string { return b.stream + "." + tokens }

func (b *bundle) msg(tokens, data string) *nats.Msg {
	return &nats.Msg{Subject: b.subject(tokens), Data: []byte(data)}
}

// send is [wire.Publish] until the server has decided. What is sent while three
// servers elect a leader is lost without an answer; the id lets it be stored once.
func (b *bundle) send(t *testing.T, msg *nats.Msg) (wire.Ack, error) {
	t.Helper()
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header[nats.MsgIdHdr] = []string{nuid.Next()}
	var ack wire.Ack
	var decided error
	natstest.Retry(t, "an answer to a publish", func(ctx context.Context) error {
		var err error
		if ack, err = wire.Publish(ctx, b.nc, msg); wire.IsWrongLastSequence(err) {
			decided = err
			return nil
		}
		return err
	})
	return ack, decided
}

// batch is [wire.PublishBatch] until the server has decided. Nothing else may be stored
// meanwhile, and its messages say what they follow: an attempt that nobody answered may
// be stored yet.
func (b *bundle) batch(t *testing.T, msgs []*nats.Msg) (wire.Ack, error) {
	t.Helper()
	var before uint64
	natstest.Retry(t, "the end of the stream", func(ctx context.Context) (err error) {
		before, err = wire.LeaderEnd(ctx, b.nc, b.stream)
		return err
	})
	var ack wire.Ack
	var decided error
	open := false // an attempt was not answered
	natstest.Retry(t, "an answer to a batch", func(ctx context.Context) error {
		var err error
		if ack, err = wire.PublishBatch(ctx, b.nc, msgs); err == nil {
			return nil
		}
		if wire.IsWrongLastSequence(err) && !open {
			decided = err
			return nil
		}
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		end, lookErr := wire.LeaderEnd(once, b.nc, b.stream)
		switch {
		case lookErr == nil && end == before+uint64(len(msgs)):
			ack = wire.Ack{Stream: b.stream, Sequence: end, Count: len(msgs)}
			return nil // the answer was lost
		case lookErr == nil && wire.Number(err) == wire.CodeWrongLastSequence:
			decided = err
			return nil
		}
		open = true
		return errors.Join(err, lookErr)
	})
	return ack, decided
}

// publish stores one message and fails the test when it cannot.
func (b *bundle) publish(t *testing.T, tokens, data string) wire.Ack {
	t.Helper()
	ack, err := b.send(t, b.msg(tokens, data))
	if err != nil {
		t.Fatalf("publish %s: %v", tokens, err)
	}
	return ack
}

// everywhere waits until every replica has the messages up to a sequence: a direct
// get is answered by any.
func (b *bundle) everywhere(t *testing.T, seq uint64) {
	t.Helper()
	if b.cluster != nil && !b.cluster.Stored(t, b.stream, seq) {
		t.FailNow()
	}
}

// reachable waits until direct gets reach the stream, too; see
// [natstest.CreateStream].
func (b *bundle) reachable(t *testing.T) {
	t.Helper()
	natstest.Eventually(t, "the stream to be reachable", func() error {
		_, err := wire.DirectLast(b.ctx, b.nc, b.stream, b.subject("probe"))
		if !errors.Is(err, wire.ErrNotFound) {
			return fmt.Errorf("direct get: %w", err)
		}
		return nil
	})
}

// both runs the scenarios against one server and against three.
func both(t *testing.T, scenarios map[string]func(*testing.T, *bundle)) {
	t.Helper()
	run := func(t *testing.T, replicas int, cluster *natstest.Cluster, connect func(testing.TB) *nats.Conn) {
		for name, scenario := range scenarios {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
				t.Cleanup(cancel)
				b := &bundle{ctx: ctx, nc: connect(t), stream: natstest.Name(t), cluster: cluster}
				natstest.CreateStream(t, b.nc, jetstream.StreamConfig{
					Name: b.stream, Subjects: []string{b.stream + ".>"}, Replicas: replicas,
					AllowDirect: true, AllowAtomicPublish: true, DenyDelete: true, DenyPurge: true,
				})
				b.reachable(t)
				scenario(t, b)
			})
		}
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		url := natstest.Run(t).URL()
		run(t, 1, nil, func(t testing.TB) *nats.Conn { return natstest.Conn(t, url) })
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		run(t, 3, c, func(t testing.TB) *nats.Conn { return c.Conn(t) })
	})
}

func TestPublish(t *testing.T) {
	t.Parallel()
	both(t, map[string]func(*testing.T, *bundle){
		"Acknowledges": func(t *testing.T, b *bundle) {
			for want := uint64(1); want <= 3; want++ {
				ack := b.publish(t, "a", "x")
				if ack.Stream != b.stream || ack.Sequence != want {
					t.Errorf("got %+v, want sequence %d", ack, want)
				}
			}
		},
		"ExpectsNothing": func(t *testing.T, b *bundle) {
			if _, err := b.send(t, wire.Expect(b.msg("a", "1"), 0)); err != nil {
				t.Fatal(err)
			}
			_, err := b.send(t, wire.Expect(b.msg("a", "2"), 0))
			wantNumber(t, err, wire.CodeWrongLastSequence)
			if !wire.IsWrongLastSequence(err) {
				t.Errorf("not a failed expectation: %v", err)
			}
			// Another subject has a last sequence of its own.
			if _, err := b.send(t, wire.Expect(b.msg("b", "1"), 0)); err != nil {
				t.Error(err)
			}
		},
		"ExpectsASequence": func(t *testing.T, b *bundle) {
			first := b.publish(t, "a", "1")
			second, err := b.send(t, wire.Expect(b.msg("a", "2"), first.Sequence))
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range []uint64{first.Sequence, second.Sequence + 1} {
				_, err := b.send(t, wire.Expect(b.msg("a", "3"), wrong))
				wantNumber(t, err, wire.CodeWrongLastSequence)
			}
		},
		"OfManyOneWins": func(t *testing.T, b *bundle) {
			const writers = 16
			var wg sync.WaitGroup
			won := make(chan uint64, writers)
			for i := range writers {
				wg.Go(func() {
					ack, err := b.send(t, wire.Expect(b.msg("a", strconv.Itoa(i)), 0))
					switch {
					case err == nil:
						won <- ack.Sequence
					case !wire.IsWrongLastSequence(err):
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			if len(won) != 1 {
				t.Errorf("%d writers won", len(won))
			}
		},
		"NoStream": func(t *testing.T, b *bundle) {
			_, err := wire.Publish(b.ctx, b.nc, nats.NewMsg(natstest.Name(t)+".a"))
			if !errors.Is(err, nats.ErrNoResponders) {
				t.Errorf("got %v", err)
			}
		},
		"ContextEnded": func(t *testing.T, b *bundle) {
			ctx, cancel := context.WithCancel(b.ctx)
			cancel()
			if _, err := wire.Publish(ctx, b.nc, b.msg("a", "")); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		},
	})
}

func TestPublishBatch(t *testing.T) {
	t.Parallel()
	both(t, map[string]func(*testing.T, *bundle){
		"Contiguous": func(t *testing.T, b *bundle) {
			b.publish(t, "a", "")
			ack, err := b.batch(t, []*nats.Msg{
				wire.Expect(b.msg("a", "1"), 1), b.msg("b", "2"), b.msg("a", "3"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if ack.Stream != b.stream || ack.Sequence != 4 || ack.Count != 3 {
				t.Errorf("got %+v", ack)
			}
			last, err := wire.LeaderLast(b.ctx, b.nc, b.stream, b.subject("a"))
			if err != nil || string(last.Data) != "3" || last.Sequence != 4 {
				t.Errorf("got %+v, %v", last, err)
			}
		},
		"OfOne": func(t *testing.T, b *bundle) {
			ack, err := b.batch(t, []*nats.Msg{wire.Expect(b.msg("a", ""), 0)})
			if err != nil || ack.Sequence != 1 || ack.Count != 1 {
				t.Errorf("got %+v, %v", ack, err)
			}
		},
		"OfMany": func(t *testing.T, b *bundle) {
			msgs := make([]*nats.Msg, wire.MaxBatch)
			for i := range msgs {
				msgs[i] = wire.Expect(b.msg("a."+strconv.Itoa(i), ""), 0)
			}
			ack, err := b.batch(t, msgs)
			if err != nil || ack.Sequence != wire.MaxBatch || ack.Count != wire.MaxBatch {
				t.Errorf("got %+v, %v", ack, err)
			}
		},
		"AllOrNothing": func(t *testing.T, b *bundle) {
			b.publish(t, "c", "")
			_, err := b.batch(t, []*nats.Msg{
				b.msg("a", ""), b.msg("b", ""), wire.Expect(b.msg("c", ""), 0),
			})
			if !wire.IsWrongLastSequence(err) {
				t.Errorf("got %v", err)
			}
			if last, err := wire.LeaderLast(b.ctx, b.nc, b.stream, b.subject(">")); err != nil || last.Sequence != 1 {
				t.Errorf("a part is stored: %+v, %v", last, err)
			}
		},
		"OfManyOneWins": func(t *testing.T, b *bundle) {
			const writers = 8
			var wg sync.WaitGroup
			won, unanswered := make(chan string, writers), make(chan string, writers)
			for i := range writers {
				wg.Go(func() {
					text, asked := strconv.Itoa(i), 0
					natstest.Retry(t, "an answer to writer "+text, func(ctx context.Context) error {
						asked++
						_, err := wire.PublishBatch(ctx, b.nc, []*nats.Msg{
							wire.Expect(b.msg("a", text), 0), wire.Expect(b.msg("b", text), 0),
						})
						switch {
						case err == nil:
							won <- text
						case !wire.IsWrongLastSequence(err):
							return err
						case asked > 1:
							unanswered <- text
						}
						return nil
					})
				})
			}
			wg.Wait()
			// One has won, if the answer to it was not lost.
			close(won)
			close(unanswered)
			winner, told := <-won
			if _, more := <-won; more || !told && len(unanswered) == 0 {
				t.Fatalf("not one writer won, but %q at least", winner)
			}
			for _, tokens := range []string{"b", "a"} {
				last, err := wire.LeaderLast(b.ctx, b.nc, b.stream, b.subject(tokens))
				if text := string(last.Data); err != nil || last.Sequence > 2 || told && text != winner {
					t.Errorf("stored: %+v, %v", last, err)
				} else {
					winner, told = text, true // of both subjects
				}
			}
			if last, err := wire.LeaderLast(b.ctx, b.nc, b.stream, b.subject(">")); err != nil || last.Sequence != 2 {
				t.Errorf("stored: %+v, %v", last, err)
			}
		},
		"BoundedInSize": func(t *testing.T, b *bundle) {
			for _, n := range []int{0, wire.MaxBatch + 1} {
				msgs := slices.Repeat([]*nats.Msg{b.msg("a", "")}, n)
				if _, err := wire.PublishBatch(b.ctx, b.nc, msgs); !errors.Is(err, wire.ErrProtocol) {
					t.Errorf("%d messages: %v", n, err)
				}
			}
		},
		"StreamWithoutBatches": func(t *testing.T, b *bundle) {
			name := natstest.Name(t)
			natstest.CreateStream(t, b.nc, jetstream.StreamConfig{Name: name, Subjects: []string{name}})
			_, err := wire.PublishBatch(b.ctx, b.nc, []*nats.Msg{nats.NewMsg(name)})
			if wire.Number(err) == 0 || wire.IsWrongLastSequence(err) {
				t.Errorf("got %v", err)
			}
		},
	})
}

func TestReadOne(t *testing.T) {
	t.Parallel()
	type read func(context.Context, *nats.Conn, string, string) (wire.Message, error)
	next := func(
		f func(context.Context, *nats.Conn, string, string, uint64) (wire.Message, error), from uint64,
	) read {
		return func(ctx context.Context, nc *nats.Conn, stream, subject string) (wire.Message, error) {
			return f(ctx, nc, stream, subject, from)
		}
	}
	both(t, map[string]func(*testing.T, *bundle){
		"WholeMessage": func(t *testing.T, b *bundle) {
			data := []byte{0, 1, 0xff, '\n'}
			before := time.Now()
			sent := &nats.Msg{
				Subject: b.subject("a.1"), Data: data,
				Header: nats.Header{"Rossby-Commit": {"c1"}, "odd-Case": {"x", "y"}},
			}
			ack, err := b.send(t, sent)
			if err != nil {
				t.Fatal(err)
			}
			b.everywhere(t, ack.Sequence)
			for name, f := range map[string]read{
				"DirectLast": wire.DirectLast, "LeaderLast": wire.LeaderLast,
				"DirectNext": next(wire.DirectNext, 1), "LeaderNext": next(wire.LeaderNext, 1),
			} {
				m, err := f(b.ctx, b.nc, b.stream, sent.Subject)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if m.Subject != sent.Subject || m.Sequence != ack.Sequence || !bytes.Equal(m.Data, data) {
					t.Errorf("%s: %+v", name, m)
				}
				if m.Time.Before(before.Add(-time.Minute)) || m.Time.After(time.Now().Add(time.Minute)) {
					t.Errorf("%s: stored at %v", name, m.Time)
				}
				if got := m.Header["Rossby-Commit"]; !slices.Equal(got, []string{"c1"}) {
					t.Errorf("%s: commit %q", name, got)
				}
				if got := m.Header["odd-Case"]; !slices.Equal(got, []string{"x", "y"}) {
					t.Errorf("%s: odd %q", name, got)
				}
			}
		},
		"LastAndNext": func(t *testing.T, b *bundle) {
			for _, tokens := range []string{"a.1", "b.1", "a.2", "a.1", "b.1"} {
				b.publish(t, tokens, "")
			}
			b.everywhere(t, 5)
			for _, tc := range []struct {
				name   string
				f      read
				tokens string
				want   uint64
			}{
				{"DirectLast", wire.DirectLast, "a.1", 4},
				{"LeaderLast", wire.LeaderLast, "a.1", 4},
				{"LeaderLast wildcard", wire.LeaderLast, "a.*", 4},
				{"DirectNext 1", next(wire.DirectNext, 1), "a.1", 1},
				{"LeaderNext 1", next(wire.LeaderNext, 1), "a.1", 1},
				{"DirectNext 2", next(wire.DirectNext, 2), "a.1", 4},
				{"LeaderNext 2", next(wire.LeaderNext, 2), "a.1", 4},
				{"DirectNext wildcard", next(wire.DirectNext, 2), "a.>", 3},
				{"LeaderNext wildcard", next(wire.LeaderNext, 2), "a.>", 3},
			} {
				if m, err := tc.f(b.ctx, b.nc, b.stream, b.subject(tc.tokens)); err != nil || m.Sequence != tc.want {
					t.Errorf("%s %s: sequence %d, %v, want %d", tc.name, tc.tokens, m.Sequence, err, tc.want)
				}
			}
			for name, f := range map[string]read{
				"DirectNext": next(wire.DirectNext, 5), "LeaderNext": next(wire.LeaderNext, 5),
				"DirectNext beyond": next(wire.DirectNext, 99), "LeaderNext beyond": next(wire.LeaderNext, 99),
			} {
				if m, err := f(b.ctx, b.nc, b.stream, b.subject("a.1")); !errors.Is(err, wire.ErrNotFound) {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
			}
		},
		"NotFound": func(t *testing.T, b *bundle) {
			for name, f := range map[string]read{
				"DirectLast": wire.DirectLast, "LeaderLast": wire.LeaderLast,
				"DirectNext": next(wire.DirectNext, 1), "LeaderNext": next(wire.LeaderNext, 1),
			} {
				if m, err := f(b.ctx, b.nc, b.stream, b.subject("a")); !errors.Is(err, wire.ErrNotFound) {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
			}
		},
		"NoStream": func(t *testing.T, b *bundle) {
			none := natstest.Name(t)
			for name, f := range map[string]read{
				"DirectLast": wire.DirectLast, "DirectNext": next(wire.DirectNext, 1),
			} {
				if _, err := f(b.ctx, b.nc, none, none+".a"); !errors.Is(err, nats.ErrNoResponders) {
					t.Errorf("%s: %v", name, err)
				}
			}
			for name, f := range map[string]read{
				"LeaderLast": wire.LeaderLast, "LeaderNext": next(wire.LeaderNext, 1),
			} {
				_, err := f(b.ctx, b.nc, none, none+".a")
				if wire.Number(err) != wire.CodeStreamNotFound {
					t.Errorf("%s: %v", name, err)
				}
			}
		},
		"LeaderHasWhatItAcknowledged": func(t *testing.T, b *bundle) {
			for range 100 {
				ack := b.publish(t, "a", "")
				m, err := wire.LeaderLast(b.ctx, b.nc, b.stream, b.subject("a"))
				if err != nil || m.Sequence != ack.Sequence {
					t.Fatalf("acknowledged %d, read %d, %v", ack.Sequence, m.Sequence, err)
				}
			}
		},
	})
}

func TestBatch(t *testing.T) {
	t.Parallel()
	both(t, map[string]func(*testing.T, *bundle){
		"Pages": func(t *testing.T, b *bundle) {
			for i := range 10 {
				b.publish(t, "a", strconv.Itoa(i))
				b.publish(t, "b", "")
			}
			b.everywhere(t, 20)
			got := make([]uint64, 0, 10)
			from, pending := uint64(0), []uint64{7, 4, 1, 0}
			for i := range pending {
				page, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a"), from, 3, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if page.Pending != pending[i] {
					t.Errorf("page %d: %d pending, want %d", i, page.Pending, pending[i])
				}
				for _, m := range page.Messages {
					if want := strconv.Itoa(len(got)); string(m.Data) != want || m.Subject != b.subject("a") {
						t.Errorf("got %+v, want data %q", m, want)
					}
					got = append(got, m.Sequence)
					from = m.Sequence + 1
				}
			}
			if want := []uint64{1, 3, 5, 7, 9, 11, 13, 15, 17, 19}; !slices.Equal(got, want) {
				t.Errorf("got %v", got)
			}
			page, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a"), from, 3, 1<<20)
			if err != nil || len(page.Messages) != 0 {
				t.Errorf("after the end: %+v, %v", page, err)
			}
		},
		"BoundedInBytes": func(t *testing.T, b *bundle) {
			for range 4 {
				b.publish(t, "a", string(make([]byte, 1000)))
			}
			b.everywhere(t, 4)
			page, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a"), 1, 10, 1500)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(page.Messages); n == 0 || n == 4 || int(page.Pending) != 4-n {
				t.Errorf("%d messages, %d pending", n, page.Pending)
			}
		},
		"Nothing": func(t *testing.T, b *bundle) {
			page, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a"), 1, 10, 1<<20)
			if err != nil || len(page.Messages) != 0 || page.Pending != 0 {
				t.Errorf("got %+v, %v", page, err)
			}
		},
		"NoStream": func(t *testing.T, b *bundle) {
			none := natstest.Name(t)
			if _, err := wire.Batch(b.ctx, b.nc, none, none+".a", 1, 1, 1); !errors.Is(err, nats.ErrNoResponders) {
				t.Errorf("got %v", err)
			}
		},
		"LeavesNoSubscription": func(t *testing.T, b *bundle) {
			b.publish(t, "a", "")
			if _, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a"), 1, 1, 1<<20); err != nil {
				t.Fatal(err)
			}
			before := b.nc.NumSubscriptions()
			ctx, cancel := context.WithCancel(b.ctx)
			cancel()
			if _, err := wire.Batch(ctx, b.nc, b.stream, b.subject("a"), 1, 1, 1<<20); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if _, err := wire.MultiLast(b.ctx, b.nc, b.stream, b.subject("a")); err != nil {
				t.Error(err)
			}
			if after := b.nc.NumSubscriptions(); after != before {
				t.Errorf("%d subscriptions, %d before", after, before)
			}
		},
	})
}

func TestMultiLast(t *testing.T) {
	t.Parallel()
	both(t, map[string]func(*testing.T, *bundle){
		"LastOfEach": func(t *testing.T, b *bundle) {
			for i, tokens := range []string{"a.1", "a.2", "b.1", "a.1", "c.1"} {
				b.publish(t, tokens, strconv.Itoa(i))
			}
			b.everywhere(t, 5)
			for _, tc := range []struct {
				tokens []string
				want   []uint64
			}{
				{[]string{"a.1"}, []uint64{4}},
				{[]string{"b.1", "a.1"}, []uint64{3, 4}},
				{[]string{"a.*", "b.1", "none"}, []uint64{2, 3, 4}},
				{[]string{">"}, []uint64{2, 3, 4, 5}},
				{[]string{"none"}, nil},
			} {
				subjects := make([]string, len(tc.tokens))
				for i, s := range tc.tokens {
					subjects[i] = b.subject(s)
				}
				page, err := wire.MultiLast(b.ctx, b.nc, b.stream, subjects...)
				if err != nil {
					t.Errorf("%v: %v", tc.tokens, err)
					continue
				}
				got := make([]uint64, 0, len(page.Messages))
				for _, m := range page.Messages {
					got = append(got, m.Sequence)
				}
				if !slices.Equal(got, tc.want) || page.Pending != 0 {
					t.Errorf("%v: got %v, %d pending, want %v", tc.tokens, got, page.Pending, tc.want)
				}
				if len(got) > 0 && page.UpTo != 5 {
					t.Errorf("%v: taken at %d", tc.tokens, page.UpTo)
				}
			}
		},
		"TooMany": func(t *testing.T, b *bundle) {
			const most = 1024
			msgs := make([]*nats.Msg, most)
			for i := range msgs {
				msgs[i] = wire.Expect(b.msg("a."+strconv.Itoa(i), ""), 0)
			}
			for part := range slices.Chunk(msgs, 512) {
				if _, err := b.batch(t, part); err != nil {
					t.Fatal(err)
				}
			}
			b.everywhere(t, most)
			page, err := wire.MultiLast(b.ctx, b.nc, b.stream, b.subject("a.*"))
			if err != nil || len(page.Messages) != most {
				t.Errorf("%d subjects: %d messages, %v", most, len(page.Messages), err)
			}
			b.publish(t, "a.more", "")
			b.everywhere(t, most+1)
			if _, err := wire.MultiLast(b.ctx, b.nc, b.stream, b.subject("a.*")); !errors.Is(err, wire.ErrTooMany) {
				t.Errorf("%d subjects: %v", most+1, err)
			}
		},
	})
}

// TestStepDown: a publish repeated under its expectation until it is decided is
// stored once, whatever happens to the leader meanwhile.
func TestStepDown(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	nc := c.Conn(t)
	name := natstest.Name(t)
	natstest.CreateStream(t, nc, jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"}, Replicas: 3, AllowDirect: true, AllowAtomicPublish: true,
	})
	subject := name + ".a"
	const rounds, perRound = 3, 20
	var last uint64
	for round := range rounds {
		var wg sync.WaitGroup
		wg.Go(func() { c.StepDown(t, name) })
		for i := range perRound {
			text := fmt.Sprintf("%d/%d", round, i)
			natstest.Retry(t, "append "+text, func(ctx context.Context) error {
				ack, err := wire.Publish(ctx, nc, wire.Expect(&nats.Msg{Subject: subject, Data: []byte(text)}, last))
				if err == nil {
					last = ack.Sequence
					return nil
				}
				found, lookErr := wire.LeaderNext(ctx, nc, name, subject, last+1)
				if lookErr != nil {
					return errors.Join(err, lookErr)
				}
				if string(found.Data) != text {
					t.Errorf("%s: found %q after %d", text, found.Data, last)
				}
				last = found.Sequence
				return nil
			})
		}
		wg.Wait()
	}
	if last != rounds*perRound {
		t.Errorf("last sequence %d after %d appends", last, rounds*perRound)
	}
	m, err := wire.LeaderLast(t.Context(), nc, name, subject)
	if err != nil || m.Sequence != last {
		t.Errorf("last: %+v, %v", m, err)
	}
}

func wantNumber(t *testing.T, err error, number int) {
	t.Helper()
	if wire.Number(err) != number {
		t.Errorf("got %v, want error %d", err, number)
	}
}
