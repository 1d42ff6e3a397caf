package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
)

// What an owner does last takes slow longer than half of a lease of brief, and less than
// a request may.
const (
	brief = 40 * time.Millisecond
	slow  = 100 * time.Millisecond
)

// slowly lets a key of the bucket be written, which takes a while.
func (p *played) slowly(subject string, asked func()) {
	p.t.Helper()
	p.answer(subject, func(m *nats.Msg) {
		asked()
		time.AfterFunc(slow, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.log = append(p.log, m)
			p.respond(m, map[string]any{"stream": p.stream, "seq": len(p.log)})
		})
	})
}

// last is the last write to a key, which is read into a value, and its sequence.
func (p *played) last(subject string, into any) uint64 {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.matching(p.log, 0, subject)
	if err := json.Unmarshal(found[0].Data, into); err != nil {
		p.t.Error(err)
	}
	return found[0].seq
}

// owner is one whose lease is brief, as the checkpoint says.
func (p *played) owner() (*Updater, *flusher) {
	u := &Updater{
		cfg: UpdaterConfig{LeaseTTL: brief}, b: p.bucket, board: board{log: slog.New(slog.DiscardHandler)},
	}
	fl := &flusher{
		b: p.bucket, gen: 1, ttl: brief, log: u.log, shared: new(atomic.Uint64), pos: new(atomic.Uint64), step: u.done,
	}
	fl.rev = p.last(p.checkpointSubject(1), &fl.cp)
	fl.cp.Owner, fl.cp.Epoch, fl.cp.Flush = "me", fl.cp.Epoch+1, 0
	return u, fl
}

// TestPartingTakesAsLongAsARequest: an owner whose lease is brief has the time of a request
// to finish what it writes, and to give the view free. It had half of the lease, and the
// next owner waited for the end of it. One of several must succeed: the machine may stand
// still for a moment.
func TestPartingTakesAsLongAsARequest(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) *played {
		t.Helper()
		p := play(t)
		p.generations(1)
		p.at(1, 10)
		return p
	}
	t.Run("free", func(t *testing.T) {
		t.Parallel()
		p := start(t)
		p.slowly(p.checkpointSubject(1), func() {})
		natstest.Eventually(t, "the view is given free", func() error {
			u, fl := p.owner()
			u.free(fl, context.Canceled)
			var cp checkpoint
			if rev := p.last(p.checkpointSubject(1), &cp); fl.undecided || fl.rev != rev || cp.State != StateFree || cp.Owner != "" {
				return fmt.Errorf("undecided %v, %+v", fl.undecided, cp)
			}
			return nil
		})
	})
	t.Run("what is being written", func(t *testing.T) {
		t.Parallel()
		p := start(t)
		var end atomic.Pointer[context.CancelFunc]
		p.slowly(p.checkpointSubject(1), func() { (*end.Load())() })
		natstest.Eventually(t, "it is finished", func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end.Store(&cancel)
			_, fl := p.owner()
			pages, done := make(chan *page, 1), make(chan *page, 1)
			pages <- newPage(12)
			if err := fl.run(ctx, pages, done); !errors.Is(err, context.Canceled) || fl.undecided || fl.cp.Position != 12 {
				return fmt.Errorf("undecided %v, at %d: %w", fl.undecided, fl.cp.Position, err)
			}
			return nil
		})
	})
	t.Run("free in a database", func(t *testing.T) {
		t.Parallel()
		natstest.Eventually(t, "the view is given free", func() error {
			u := &SinkUpdater{
				cfg: UpdaterConfig{LeaseTTL: brief}, board: board{log: slog.New(slog.DiscardHandler)}, name: "s_v",
			}
			cp := sinkCheckpoint{checkpoint: checkpoint{Format: checkpointFormat, Owner: "me", Epoch: 3}}
			data, err := json.Marshal(cp)
			if err != nil {
				return err
			}
			s := &slowSink{rec: SinkRecord{Revision: 5, Data: data}}
			u.sink = s
			u.free(&sinkOwnership{cp: &cp}, context.Canceled)
			now, err := decodeSinkCheckpoint(s.rec)
			if err != nil || now.Owner != "" || now.State != StateFree {
				return fmt.Errorf("%+v, %w", now, err)
			}
			return nil
		})
	})
}

// slowSink is a database that takes its time to read a record.
type slowSink struct{ rec SinkRecord }

func (s *slowSink) load(ctx context.Context, _ string) (SinkRecord, error) {
	return s.rec, sleep(ctx, slow)
}

func (s *slowSink) transact(
	ctx context.Context, _ string, expected uint64, data []byte, _ func(tx any) error,
) error {
	if ctx.Err() == nil && expected == s.rec.Revision {
		s.rec = SinkRecord{Revision: expected + 1, Data: data}
	}
	return ctx.Err()
}

func (s *slowSink) transient(error) bool { return true }

// TestRebuildIsRecordedSlowly: what came of a partial rebuild is recorded although that
// takes longer than a brief lease. It was not, and the rebuild began again.
func TestRebuildIsRecordedSlowly(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.generations(1)
	p.at(1, 10)
	asked := rebuild{Number: "n", AggregateRebuild: AggregateRebuild{Type: "account", ID: "a1"}}
	p.store(p.message(p.controlSubject(), control{Format: checkpointFormat, Rebuilds: []rebuild{asked}}, 0))
	p.slowly(p.controlSubject(), func() {})
	natstest.Eventually(t, "the outcome is recorded", func() error {
		u, _ := p.owner()
		outcome := asked
		outcome.Keys = 7
		if err := u.record(t.Context(), &outcome); !errors.Is(err, errAgain) {
			return fmt.Errorf("record: %w", err)
		}
		return nil
	})
	var c control
	if p.last(p.controlSubject(), &c); c.Rebuilds[0].Keys != 7 || c.Rebuilds[0].Done.IsZero() {
		t.Errorf("%+v", c)
	}
}
