package wire

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// PublishEach stores messages one by one, many of them on their way at a time,
// and calls acked for each with its number. It returns the first error, which
// are those of [Publish]: then any of the messages that were not acknowledged may
// be stored, or may be yet.
//
// On an unreplicated stream a message costs a fourth of what it costs in a batch,
// which stores it twice.
func PublishEach(
	ctx context.Context, nc *nats.Conn, count, window int, message func(int) (*nats.Msg, error), acked func(int, Ack),
) error {
	var bucket atomic.Value // what all subjects begin with, once there is one
	bucket.Store("")
	a := &asked{match: func(subject string) bool {
		begin, _ := bucket.Load().(string)
		return begin != "" && strings.HasPrefix(subject, begin)
	}}
	return a.told(publishEach(a.watch(ctx, nc), nc, count, window, func(i int) (*nats.Msg, error) {
		m, err := message(i)
		if err == nil && i == 0 {
			bucket.Store(firstTokens(m.Subject))
		}
		return m, err
	}, acked))
}

// firstTokens are the first two, which name a bucket, or a store and what it holds.
func firstTokens(subject string) string {
	first, rest, _ := strings.Cut(subject, ".")
	second, _, _ := strings.Cut(rest, ".")
	return first + "." + second + "."
}

func publishEach(
	ctx context.Context, nc *nats.Conn, count, window int, message func(int) (*nats.Msg, error), acked func(int, Ack),
) error {
	inbox := nc.NewInbox()
	answers := make(chan *nats.Msg, window+1)
	sub, err := nc.ChanSubscribe(inbox+".*", answers)
	if err != nil {
		return errors.Join(ErrNotSent, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for sent, open := 0, 0; sent < count || open > 0; {
		for sent < count && open < window {
			m, err := message(sent)
			if err != nil {
				return err
			}
			m.Reply = inbox + "." + strconv.Itoa(sent)
			if err := nc.PublishMsg(m); err != nil {
				return err
			}
			sent++
			open++
		}
		for more := true; open > 0 && more; more = len(answers) > 0 {
			var m *nats.Msg
			select {
			case m = <-answers:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			open--
			ack, err := Answer(m)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
			if err != nil {
				return errors.Join(ErrProtocol, err)
			}
			acked(n, ack)
		}
	}
	return nil
}
