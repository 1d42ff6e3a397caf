package follow

import (
	"context"
	"errors"
	"strings"

	"github.com/rossby-go/rossby/internal/wire"
)

// txEnd is the sequence of the last message of a message's transaction.
func txEnd(m *wire.Message) uint64 {
	index, count := wire.TxPlace(m.Header)
	return m.Sequence + count - index
}

// whole is the number of messages up to the end of the last transaction that is
// known to be there completely: a transaction's messages have consecutive
// sequences, so any message beyond it proves that.
func whole(msgs []wire.Message) int {
	n := len(msgs)
	index, count := wire.TxPlace(msgs[n-1].Header)
	if index == count {
		return n
	}
	first := msgs[n-1].Sequence - index + 1
	for n > 0 && msgs[n-1].Sequence >= first {
		n--
	}
	return n
}

// nothingFollowed looks at the rest of a message's transaction and tells whether
// none of it will be delivered. Without, the next heartbeat tells, but it is the
// length of a beat away. Only what was found counts: a replica that lags finds less.
func (s *session) nothingFollowed(last *wire.Message) bool {
	filter := s.t.cfg.Filter
	if filter == "" || strings.Contains(filter, "*") {
		return false
	}
	ctx, cancel := context.WithTimeout(s.t.ctx, s.t.cfg.TTL/2)
	defer cancel()
	const pageBytes = 1 << 20
	first, rest := last.Sequence+1, txEnd(last)-last.Sequence
	page, err := wire.Batch(ctx, s.t.cfg.Conn, s.t.cfg.Stream, wire.Everything, first,
		int(rest), pageBytes) //nolint:gosec // at most a batch
	if err != nil || uint64(len(page.Messages)) < rest {
		return false
	}
	prefix, wildcard := strings.CutSuffix(filter, ">")
	for i, m := range page.Messages {
		matches := m.Subject == filter || wildcard && strings.HasPrefix(m.Subject, prefix)
		if matches || m.Sequence != first+uint64(i) {
			return false
		}
	}
	return true
}

// inside tells whether a sequence stands in a transaction that goes on behind it.
// What cannot be read now counts as inside.
func (s *session) inside(seq uint64) bool {
	ctx, cancel := context.WithTimeout(s.t.ctx, s.t.cfg.TTL/2)
	defer cancel()
	m, err := wire.LeaderNext(ctx, s.t.cfg.Conn, s.t.cfg.Stream, wire.Everything, seq)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return false // nothing stands there, and nothing behind it
	case err != nil:
		return true
	}
	return m.Sequence == seq && txEnd(&m) > seq
}
