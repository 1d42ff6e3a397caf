package follow

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// acceptMax is how many messages are taken in under one lock.
const acceptMax = 64

// session is one undisturbed time with the cursor, on an inbox of its own.
type session struct {
	t             *tenure
	inbox         string
	incoming      chan *nats.Msg
	expires, beat time.Duration
	reconnects    uint64
	heard         time.Time
	// delivered is the consumer sequence of the last message, outstanding the
	// number of messages asked for and not yet sent.
	delivered   uint64
	outstanding int
	batch       []wire.Message
	// held are the last messages when more of their transaction is to come: the
	// position never stands inside one.
	held []wire.Message
}

func (s *session) loop() error {
	ticker := time.NewTicker(s.beat / 2)
	defer ticker.Stop()
	for {
		if err := s.pull(); err != nil {
			return err
		}
		select {
		case <-s.t.ctx.Done():
			return s.t.ctx.Err()
		case <-s.t.roomNow:
		case <-ticker.C:
			if n := s.t.cfg.Conn.Stats().Reconnects; n != s.reconnects && !mutate.On(mutate.IgnoreGaps) {
				return errors.New("the connection was made again")
			}
			if silence := time.Since(s.heard); s.outstanding > 0 && silence > 5*s.beat/2 && len(s.incoming) == 0 {
				return fmt.Errorf("nothing heard from the consumer for %v", silence)
			}
		case msg := <-s.incoming:
			if err := s.take(msg); err != nil {
				return err
			}
		}
	}
}

// pull asks for more when there is room for a worthwhile number.
func (s *session) pull() error {
	t := s.t
	t.mu.Lock()
	room := t.cfg.Window - t.table.queued - s.outstanding
	lanes := len(t.table.lanes)
	full := lanes+s.outstanding >= t.cfg.MaxLanes || int64(t.table.bytes) > t.cfg.recordMax()*3/4
	room = min(room, t.cfg.MaxLanes-lanes-s.outstanding)
	wasFull := t.cursor.full
	t.cursor.full = full && s.outstanding == 0
	isFull := t.cursor.full
	enough := room >= t.cfg.Window/2 || (room > 0 && s.outstanding == 0)
	t.readerWaits = !enough
	t.mu.Unlock()
	if isFull != wasFull {
		if isFull {
			t.cfg.Logger.Error("too many unfinished lanes: the reader stops until some are done", "lanes", lanes)
		} else {
			t.cfg.Logger.Info("the reader goes on", "lanes", lanes)
		}
		t.f.changed()
	}
	if full || !enough {
		return nil
	}
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`,
		room, s.expires.Nanoseconds(), s.beat.Nanoseconds())
	if s.outstanding == 0 {
		s.heard = time.Now()
	}
	subject := "$JS.API.CONSUMER.MSG.NEXT." + t.cfg.Stream + "." + t.cfg.Name
	if err := t.cfg.Conn.PublishRequest(subject, s.inbox, body); err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	s.outstanding += room
	return nil
}

// take handles a message and those that are there already.
func (s *session) take(msg *nats.Msg) error {
	s.heard = time.Now()
	s.batch = s.batch[:0]
	var pending uint64
	for {
		if status := one(msg.Header, "Status"); status != "" && len(msg.Data) == 0 && msg.Subject == s.inbox {
			if err := s.accept(pending); err != nil {
				return err
			}
			return s.status(status, msg.Header)
		}
		md, err := msg.Metadata()
		if err != nil {
			return errors.Join(fmt.Errorf("message without delivery data: %w", err), s.accept(pending))
		}
		if mutate.On(mutate.IgnoreGaps) {
			s.delivered = md.Sequence.Consumer - 1
		}
		if md.Sequence.Consumer != s.delivered+1 {
			// What came before the gap is good.
			err := fmt.Errorf("gap: consumer sequence %d after %d", md.Sequence.Consumer, s.delivered)
			return errors.Join(err, s.accept(pending))
		}
		if s.delivered == 0 {
			if err := s.verify(md.Sequence.Stream); err != nil {
				return err
			}
		}
		s.delivered++
		s.outstanding--
		pending = md.NumPending
		s.batch = append(s.batch, wire.Message{
			Subject: msg.Subject, Sequence: md.Sequence.Stream, Time: md.Timestamp,
			Header: msg.Header, Data: msg.Data,
		})
		if len(s.batch) == acceptMax {
			return s.accept(pending)
		}
		select {
		case msg = <-s.incoming:
		default:
			return s.accept(pending)
		}
	}
}

// accept hands the collected messages to the lanes, but for those of a transaction
// of which more is to come.
func (s *session) accept(pending uint64) error {
	if len(s.batch) == 0 {
		return nil
	}
	msgs := s.batch
	if len(s.held) > 0 {
		s.held = append(s.held, s.batch...)
		msgs = s.held
	}
	last := msgs[len(msgs)-1]
	n := whole(msgs)
	if n < len(msgs) && len(s.incoming) == 0 && s.nothingFollowed(&last) {
		n = len(msgs)
	}
	if err := s.admit(msgs[:n]); err != nil {
		return err
	}
	s.held = append([]wire.Message(nil), msgs[n:]...)
	s.t.heard(last.Sequence+pending, pending, true, last.Time)
	clear(s.batch)
	s.batch = s.batch[:0]
	return nil
}

// admit gives messages to the lanes and moves the position behind them: behind all
// of the last one's transaction, the rest of which is not followed.
func (s *session) admit(msgs []wire.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	t := s.t
	type placed struct {
		key  string
		skip bool
	}
	var few [acceptMax]placed
	places := few[:0]
	for i := range msgs {
		key, skip, ok := t.classify(&msgs[i])
		if !ok {
			return ErrPanic
		}
		places = append(places, placed{key, skip})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	ready := 0
	for i := range msgs {
		if t.table.accept(&msgs[i], places[i].key, places[i].skip) {
			ready++
		}
	}
	if end := txEnd(&msgs[len(msgs)-1]); end > t.table.position {
		t.table.position, t.table.dirty = end, true
	}
	t.wakeWorkers(ready)
	return nil
}

// status handles a message of the server about a pull.
func (s *session) status(status string, h nats.Header) error {
	switch status {
	case "100":
		return s.heartbeat(h)
	case "408":
		// A pull ran out; the rest of it will not come.
		n, err := strconv.Atoi(one(h, "Nats-Pending-Messages"))
		if err != nil {
			return fmt.Errorf("status 408: %w", err)
		}
		s.outstanding = max(s.outstanding-n, 0)
		return nil
	case "503":
		return fmt.Errorf("pull: %w", nats.ErrNoResponders)
	default:
		return fmt.Errorf("pull: status %s %s", status, one(h, "Description"))
	}
}

// heartbeat compares the server's count with ours. If they agree, nothing is
// under way, and the position moves to what the server has scanned.
func (s *session) heartbeat(h nats.Header) error {
	consumer, err := strconv.ParseUint(one(h, "Nats-Last-Consumer"), 10, 64)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	stream, err := strconv.ParseUint(one(h, "Nats-Last-Stream"), 10, 64)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if mutate.On(mutate.IgnoreGaps) {
		s.delivered = consumer
	}
	if consumer != s.delivered {
		return fmt.Errorf("gap: the consumer is at %d, we got %d", consumer, s.delivered)
	}
	if n := len(s.held); n > 0 {
		if stream < txEnd(&s.held[n-1]) {
			return nil
		}
		// What was looked at and not delivered is not followed.
		if err := s.admit(s.held); err != nil {
			return err
		}
		s.held = nil
	}
	if stream > s.t.position() {
		// The head comes first: what it covers cannot be published any more
		// while verify looks. A cursor may be reset beyond it.
		if err := s.covered(stream); err != nil {
			return err
		}
		if err := s.verify(stream + 1); err != nil {
			return err
		}
		if s.inside(stream) {
			return nil // the next heartbeat is further
		}
		s.t.moveTo(stream)
	}
	s.t.heard(stream, 0, true, time.Time{})
	return nil
}

// covered makes sure that the stream has reached seq.
func (s *session) covered(seq uint64) error {
	ctx, cancel := context.WithTimeout(s.t.ctx, s.t.cfg.TTL/2)
	defer cancel()
	info, err := s.t.f.streamInfo(ctx)
	if err != nil {
		return err
	}
	if head := info.State.LastSeq; seq > head {
		return fmt.Errorf("gap: the cursor was moved to %d, beyond the head %d", seq, head)
	}
	return nil
}

// verify makes sure that no event lies between the position and seq. Another
// client's reset right after ours would otherwise go unseen: consumer sequences
// start anew with it. It costs a leader read per session and per move over a
// tail that is not followed.
func (s *session) verify(seq uint64) error {
	ctx, cancel := context.WithTimeout(s.t.ctx, s.t.cfg.TTL/2)
	defer cancel()
	filter := s.t.cfg.Filter
	if filter == "" {
		filter = ">"
	}
	position := s.t.position()
	if seq <= position+1 || mutate.On(mutate.IgnoreGaps) {
		return nil
	}
	m, err := wire.LeaderNext(ctx, s.t.cfg.Conn, s.t.cfg.Stream, filter, position+1)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("verify the cursor: %w", err)
	case m.Sequence < seq:
		return fmt.Errorf("gap: the cursor was moved to %d, sequence %d is next after %d", seq, m.Sequence, position)
	}
	return nil
}

// one reads a header as the server spells it.
func one(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
