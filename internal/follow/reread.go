package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rossby-go/rossby/internal/wire"
)

const (
	// A page is small at first, because a lane that failed probably fails
	// again, and grows while the lane works. The server stops the stream's
	// writers while it gathers a page.
	pageMin, pageMax = 4, 32
	pageBytes        = 1 << 20
	// missesQuiet is the number of incomplete answers that replicas may give
	// before the leader is asked.
	missesQuiet = 3
	// missWaitMin to missWaitMax is waited after an incomplete answer.
	missWaitMin, missWaitMax = 20 * time.Millisecond, time.Second
	// rereadsMax is the number of reads under way at once. The server answers them
	// one after the other on a connection, and so what comes behind them: more would
	// keep the lease from being renewed in time, after a take-over of many lanes.
	rereadsMax = 2
)

// reread fills a running lane from the stream, or makes it wait.
func (t *tenure) reread(l *lane) {
	t.mu.Lock()
	from, to, misses := l.from, l.to, l.misses
	l.page = min(max(2*l.page, pageMin), pageMax)
	page := l.page
	t.mu.Unlock()

	t.rereads <- struct{}{}
	defer func() { <-t.rereads }()
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.TTL/2)
	defer cancel()
	var msgs []wire.Message
	var next uint64
	var err error
	if misses <= missesQuiet {
		msgs, next, err = t.readReplica(ctx, l.key, from, to, page)
	} else {
		msgs, next, err = t.readLeader(ctx, l.key, from, to)
	}

	missing := errors.Is(err, ErrEventMissing)
	failure := Failure{Message: wire.Message{Subject: l.key, Sequence: from}, Err: err}
	var verdict Verdict
	if missing {
		t.mu.Lock()
		failure.Attempt = l.tries + 1
		t.mu.Unlock()
		verdict, err = t.decide(failure)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(msgs) > 0:
		if msgs[0].Sequence > l.from {
			l.from = msgs[0].Sequence
		}
		t.table.fill(l, msgs)
		t.table.again(l)
	case missing && verdict.Action == SkipEvent:
		failure.Message.Sequence = to
		t.failed(l, failure.Message, verdict, err)
	case missing:
		t.failed(l, failure.Message, verdict, err)
	case err == nil && next > to:
		// Everything left in the range is not followed (any more). Events may
		// have been accepted in the meantime.
		l.from = next
		if l.from > l.to {
			t.table.drop(l)
		} else {
			t.table.again(l)
		}
	default:
		if next > l.from {
			l.from = next
		}
		l.misses++
		if err != nil && t.ctx.Err() == nil {
			t.cfg.Logger.Warn("lane not read", "lane", l.key, "from", from, "to", to, "error", err)
			t.f.failed(err)
		}
		wait := min(missWaitMin<<min(l.misses, 10), missWaitMax)
		t.table.wait(l, time.Now(), wait)
		kick(t.dueNow)
	}
}

// readReplica reads up to limit of the lane's events in [from, to] from any
// replica. Without events, next is where to go on: beyond to when the range
// holds none that is followed.
func (t *tenure) readReplica(
	ctx context.Context, key string, from, to uint64, limit int,
) ([]wire.Message, uint64, error) {
	next := from
	if t.cfg.Lane != nil {
		limit = 4 * pageMax // most of a scan belongs to other lanes
	}
	var msgs []wire.Message
	for next <= to {
		page, err := wire.Batch(ctx, t.cfg.Conn, t.cfg.Stream, t.source(key), next, limit, pageBytes)
		if err != nil {
			return nil, next, fmt.Errorf("read lane: %w", err)
		}
		for _, m := range page.Messages {
			if m.Sequence > to {
				next = to + 1
				break
			}
			next = m.Sequence + 1
			mine, err := t.followed(&m, key)
			if err != nil {
				return nil, from, err
			}
			if mine {
				msgs = append(msgs, m)
			}
		}
		if len(msgs) > 0 {
			return msgs, next, nil
		}
		if next <= to && page.Pending == 0 {
			// The replica does not have what the cursor has shown: it lags.
			return nil, next, nil
		}
	}
	return nil, next, nil
}

// readLeader reads the lane's next event in [from, to] from the stream's leader.
// It returns [ErrEventMissing] when there is none although there must be.
func (t *tenure) readLeader(ctx context.Context, key string, from, to uint64) ([]wire.Message, uint64, error) {
	next := from
	for next <= to {
		m, err := wire.LeaderNext(ctx, t.cfg.Conn, t.cfg.Stream, t.source(key), next)
		if errors.Is(err, wire.ErrNotFound) || (err == nil && m.Sequence > to) {
			return nil, next, fmt.Errorf("%w: lane %q from %d to %d", ErrEventMissing, key, next, to)
		}
		if err != nil {
			return nil, next, fmt.Errorf("read lane at the leader: %w", err)
		}
		mine, err := t.followed(&m, key)
		if err != nil {
			return nil, from, err
		}
		if mine {
			return []wire.Message{m}, m.Sequence + 1, nil
		}
		next = m.Sequence + 1
	}
	return nil, next, nil
}

// source is the subject under which a lane's events are found.
func (t *tenure) source(key string) string {
	switch {
	case t.cfg.Lane == nil:
		return key
	case t.cfg.Filter != "":
		return t.cfg.Filter
	default:
		return ">"
	}
}

// followed tells whether a message that was read is the lane's; an error ends
// the tenure.
func (t *tenure) followed(m *wire.Message, key string) (bool, error) {
	at, skip, ok := t.classify(m)
	if !ok {
		return false, ErrPanic
	}
	return !skip && at == key, nil
}
