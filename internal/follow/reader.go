package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

const (
	resetWaitMin, resetWaitMax = 20 * time.Millisecond, 500 * time.Millisecond
	// attemptQuick bounds most attempts. What is asked while there is no leader is never
	// answered; a server that is slow gets longer every attemptPatient-th time.
	attemptQuick   = time.Second
	attemptPatient = 3
	patientMin     = 3 * time.Second
	// beyondMin is how long at least the stream must end before the position.
	beyondMin = 3 * time.Second
)

// read runs sessions with the cursor until the tenure ends. A session ends at
// the first thing that is not as it should be; the next one starts with a reset.
func (t *tenure) read() {
	failures := 0
	var beyondSince time.Time
	for t.ctx.Err() == nil {
		before := t.position()
		err := t.session(attemptFor(failures, t.cfg.TTL))
		if t.ctx.Err() != nil {
			return
		}
		t.f.failed(err)
		if t.position() > before {
			failures = 0
		}
		switch {
		case t.cfg.Conn.IsClosed():
			t.end(lostf("%v", ErrConnectionClosed))
			return
		case !errors.Is(err, ErrBeyondHead) && !errors.Is(err, ErrNoStream):
			beyondSince = time.Time{}
		case beyondSince.IsZero():
			beyondSince = time.Now()
		case time.Since(beyondSince) > max(t.cfg.TTL/2, beyondMin):
			// A leader that was just replaced may not know for a moment; this is not that.
			t.end(err)
			return
		}
		failures++
		wait := backoff(failures, resetWaitMin, resetWaitMax)
		t.cfg.Logger.Warn("cursor reset", "position", t.position(), "wait", wait, "error", err)
		if !pause(t.ctx, wait) {
			return
		}
	}
}

// attemptFor is how long an attempt may take after so many that failed.
func attemptFor(failures int, ttl time.Duration) time.Duration {
	if failures%attemptPatient == attemptPatient-1 {
		return max(ttl, patientMin)
	}
	return attemptQuick
}

func (t *tenure) position() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.position
}

// session resets the cursor to the position and reads until something is wrong.
func (t *tenure) session(within time.Duration) error {
	position := t.position()
	info, err := t.prepare(position, within)
	if err != nil {
		return err
	}
	// Where nothing is left to read, that is known without a heartbeat.
	t.heard(info.State.LastSeq, 0, position == info.State.LastSeq, time.Time{})

	// More than can ever be outstanding, with room for heartbeats and statuses:
	// overflowing would be a gap.
	incoming := make(chan *nats.Msg, t.cfg.Window+256)
	s := &session{
		t: t, inbox: t.cfg.Conn.NewInbox(), incoming: incoming,
		expires: t.cfg.TTL / 2, beat: t.cfg.TTL / 6,
		reconnects: t.cfg.Conn.Stats().Reconnects, heard: time.Now(),
	}
	sub, err := t.cfg.Conn.ChanSubscribe(s.inbox, incoming)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	// Before any further reset: what the server still sends must not reach us.
	defer func() { _ = sub.Unsubscribe() }()
	return s.loop()
}

// prepare makes sure of the stream and the consumer and resets the latter.
func (t *tenure) prepare(position uint64, within time.Duration) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(t.ctx, within)
	defer cancel()
	info, err := t.f.streamInfo(ctx)
	if err != nil {
		return nil, err
	}
	if position > info.State.LastSeq {
		return nil, fmt.Errorf("%w: %q is at %d, the last message of %q is %d: was the stream restored or made again?",
			beyond(info), t.cfg.Name, position, t.cfg.Stream, info.State.LastSeq)
	}
	err = t.f.api(ctx, t.cfg.Stream, func(ctx context.Context) error {
		if _, err := t.f.js.CreateOrUpdateConsumer(ctx, t.cfg.Stream, jetstream.ConsumerConfig{
			Durable: t.cfg.Name, FilterSubject: t.cfg.Filter,
			DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy,
		}); err != nil {
			return fmt.Errorf("make consumer: %w", err)
		}
		if mutate.On(mutate.IgnoreGaps) {
			return nil
		}
		if _, err := t.f.js.ResetConsumerToSequence(ctx, t.cfg.Stream, t.cfg.Name, position+1); err != nil {
			return fmt.Errorf("reset consumer: %w", err)
		}
		return nil
	})
	return info, err
}

// beyond is what a position beyond a stream's last message means: what a leader does
// not have is lost only if the other replicas follow it.
func beyond(info *jetstream.StreamInfo) error {
	if info.Cluster == nil {
		return ErrBeyondHead
	}
	heard := make([]time.Duration, len(info.Cluster.Replicas))
	for i, r := range info.Cluster.Replicas {
		heard[i] = r.Active
	}
	if !wire.Followed(heard) {
		return wire.ErrNoLeader
	}
	return ErrBeyondHead
}

// moveTo moves the position over a tail that is not followed.
func (t *tenure) moveTo(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq > t.table.position {
		t.table.position, t.table.dirty = seq, true
	}
}

// heard keeps what the cursor says for the status.
func (t *tenure) heard(head, pending uint64, known bool, last time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known && pending == 0 && head < t.cursor.head {
		// A paused consumer beats too.
		pending = t.cursor.head - head
	}
	t.cursor.head = max(t.cursor.head, head)
	t.cursor.pending, t.cursor.known = pending, known
	if !last.IsZero() {
		t.cursor.lastTime = last
	}
}
