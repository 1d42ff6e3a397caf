package wire_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// answering is a connection to a server without JetStream, whose part the test plays.
func answering(t *testing.T) *nats.Conn {
	t.Helper()
	return natstest.Conn(t, natstest.RunBare(t))
}

// part is the message at a sequence in an answer of several, as the server sends it
// with so many after it.
func part(seq, before, pending int) *nats.Msg {
	return &nats.Msg{Data: []byte("x"), Header: nats.Header{
		nats.JSSequence: {strconv.Itoa(seq)}, nats.JSSubject: {"a." + strconv.Itoa(seq)},
		nats.JSTimeStamp: {time.Now().Format(time.RFC3339Nano)}, "Nats-Stream": {"s"},
		"Nats-Num-Pending": {strconv.Itoa(pending)}, "Nats-Last-Sequence": {strconv.Itoa(before)},
	}}
}

// TestAnswersThatLoseMessages: an answer of several messages crosses connections that
// may break and be made again while the server is gathering it. What got lost must
// not pass for what is not there.
func TestAnswersThatLoseMessages(t *testing.T) {
	t.Parallel()
	nc := answering(t)
	end := &nats.Msg{Header: nats.Header{
		"Status": {"204"}, "Description": {"EOB"}, "Nats-Num-Pending": {"7"}, "Nats-Last-Sequence": {"40"},
	}}
	all := []*nats.Msg{part(10, 0, 10), part(20, 10, 9), part(30, 20, 8), part(40, 30, 7), end}
	for name, tc := range map[string]struct {
		lost    []int
		want    []uint64 // of a batch
		pending uint64
		gap     bool // a batch has nothing to return
	}{
		"Nothing":   {want: []uint64{10, 20, 30, 40}, pending: 7},
		"First":     {lost: []int{0}, gap: true},
		"FirstTwo":  {lost: []int{0, 1}, gap: true},
		"Middle":    {lost: []int{1}, want: []uint64{10}, pending: 10},
		"Middles":   {lost: []int{1, 2}, want: []uint64{10}, pending: 10},
		"Last":      {lost: []int{3}, want: []uint64{10, 20, 30}, pending: 8},
		"AllButEnd": {lost: []int{0, 1, 2, 3}, gap: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := natstest.Name(t)
			_, err := nc.Subscribe("$JS.API.DIRECT.GET."+stream, func(m *nats.Msg) {
				for i, msg := range all {
					if slices.Contains(tc.lost, i) {
						continue
					}
					// Who hears nothing fails the test; the last answer may come after its end.
					_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: msg.Header, Data: msg.Data})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
			defer cancel()
			page, err := wire.Batch(ctx, nc, stream, "a.*", 1, 4, 1<<20)
			got := make([]uint64, 0, len(page.Messages))
			for _, m := range page.Messages {
				got = append(got, m.Sequence)
			}
			if errors.Is(err, wire.ErrGap) != tc.gap || !tc.gap && err != nil ||
				!slices.Equal(got, tc.want) || page.Pending != tc.pending {
				t.Errorf("a batch: %v, %d pending, %v", got, page.Pending, err)
			}
			// It is one moment's: a part of it says nothing of the rest.
			page, err = wire.MultiLast(ctx, nc, stream, "a.10", "a.20", "a.30", "a.40")
			if whole := tc.lost == nil; errors.Is(err, wire.ErrGap) == whole || whole != (len(page.Messages) == 4) {
				t.Errorf("the last of each: %d messages, %v", len(page.Messages), err)
			}
		})
	}
}

// TestStoredHeadersOfTheServersNames: what somebody stored under the name of a header
// that the server adds stands before it.
func TestStoredHeadersOfTheServersNames(t *testing.T) {
	t.Parallel()
	both(t, map[string]func(*testing.T, *bundle){
		"Read": func(t *testing.T, b *bundle) {
			for i := range 3 {
				m := b.msg("a."+strconv.Itoa(i), "x")
				m.Header = nats.Header{
					nats.JSSequence: {"700"}, nats.JSSubject: {"forged"}, nats.JSTimeStamp: {"2001-01-01T00:00:00Z"},
					"Nats-Last-Sequence": {"9"}, "Nats-Num-Pending": {"50"},
				}
				if _, err := b.send(t, m); err != nil {
					t.Fatal(err)
				}
			}
			b.everywhere(t, 3)
			check := func(what string, msgs []wire.Message, err error, want ...int) {
				t.Helper()
				if err != nil || len(msgs) != len(want) {
					t.Fatalf("%s: %d messages, %v", what, len(msgs), err)
				}
				for i, m := range msgs {
					if subject := b.subject(fmt.Sprint("a.", want[i]-1)); int(m.Sequence) != want[i] || m.Subject != subject ||
						m.Time.Year() == 2001 {
						t.Errorf("%s: %d %q %v", what, m.Sequence, m.Subject, m.Time)
					}
				}
			}
			page, err := wire.Batch(b.ctx, b.nc, b.stream, b.subject("a.*"), 1, 10, 1<<20)
			check("a batch", page.Messages, err, 1, 2, 3)
			page, err = wire.MultiLast(b.ctx, b.nc, b.stream, b.subject("a.*"))
			check("the last of each", page.Messages, err, 1, 2, 3)
			m, err := wire.DirectLast(b.ctx, b.nc, b.stream, b.subject("a.1"))
			check("the last", []wire.Message{m}, err, 2)
		},
	})
}
