package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

var (
	// errLost says that another owner has taken the view over.
	errLost = errors.New("another instance owns the view now")
	// errUndecided says that it is not known what became of the write before.
	errUndecided = errors.New("the checkpoint's last write is undecided")
)

// batchBytes bounds the values of one batch of a keyed view.
const batchBytes = 8 << 20

// troubling is how often a write is tried before the status says why it fails.
const troubling = 4

// flusher is the owner's only writer: pages, and the lease when there are none.
// It is one goroutine.
type flusher struct {
	b     *bucket
	gen   int
	keyed bool
	ttl   time.Duration
	log   *slog.Logger
	// cp is the checkpoint as last written, at rev.
	cp  checkpoint
	rev uint64
	// shared is rev, for the folder; pos the position, for the status.
	shared *atomic.Uint64
	pos    *atomic.Uint64
	wrote  time.Time
	step   func(string)
	// looked is when idle was called last.
	looked time.Time
	// measured and from are where the rate was measured last.
	measured time.Time
	from     uint64
	// each says that large pages are stored key by key: see writeEach.
	each bool
	// undecided says that the last write failed, or may have.
	undecided bool
	// idle, when set, is called when there is nothing to write, and between pages.
	idle func(ctx context.Context) error
}

// run writes pages until ctx ends. What is being written then is finished, for a
// moment, so that the view can be given free.
func (f *flusher) run(ctx context.Context, pages <-chan *page, done chan<- *page) error {
	fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	grace := make(chan struct{})
	defer close(grace)
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(parting(f.ttl))
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-grace:
		}
	})()
	tick := time.NewTicker(max(min(f.ttl, LeaseTTLDefault)/12, 20*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p := <-pages:
			if err := f.write(fctx, ctx, p); err != nil {
				return err
			}
			select {
			case done <- p:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if f.idle != nil && time.Since(f.looked) > flipEvery {
				if err := f.idle(fctx); err != nil {
					return err
				}
				f.looked = time.Now()
			}
		case <-tick.C:
			if time.Since(f.wrote) >= f.ttl/4 {
				if err := f.put(fctx, nil, f.cp); err != nil {
					return err
				}
			}
			if f.idle != nil {
				if err := f.idle(fctx); err != nil {
					return err
				}
			}
		}
	}
}

// write stores a page: in one batch if it fits, in several for a keyed view, of
// which only the last moves the position.
func (f *flusher) write(ctx, stop context.Context, p *page) error {
	end := f.cp
	end.Position, end.Skipped = p.pos, end.Skipped+p.skipped
	if p.last.Sequence > end.Last.Sequence {
		end.Last = p.last
	}
	keys := p.changed
	if mutate.On(mutate.CheckpointFirst) {
		return f.checkpointFirst(ctx, keys, end)
	}
	if f.keyed && len(keys) == 1 && !keys[0].moves() && f.single(ctx, keys[0]) {
		f.step("key")
		return f.put(ctx, nil, end)
	}
	if f.keyed && f.each && len(keys) > maxBatchKeys {
		// What changes an index goes with it, in one batch.
		plain, moving := parted(keys)
		left, err := f.writeEach(ctx, stop, plain)
		if err != nil {
			return err
		}
		keys = slices.Concat(moving, left)
	}
	for {
		n, size := 0, 0
		msgs := make([]*nats.Msg, 0, min(len(keys), maxBatchKeys)+1)
		for n < len(keys) && (!f.keyed || size < batchBytes || n == 0) {
			s := keys[n]
			if len(msgs)+s.writes() > maxBatchKeys {
				break
			}
			m, err := f.message(s)
			if err != nil {
				return err
			}
			msgs = append(msgs, m)
			if s.moves() {
				msgs = append(msgs, f.entryMessages(s, m.Subject[len(f.b.keyPrefix(f.gen)):])...)
			}
			size += len(m.Data)
			n++
		}
		next := f.cp
		if n == len(keys) {
			next = end
		}
		if err := f.put(ctx, msgs, next); err != nil {
			return err
		}
		f.step("batch")
		if keys = keys[n:]; len(keys) == 0 {
			return nil
		}
		if stop.Err() != nil {
			return context.Cause(stop)
		}
	}
}

// message is what the bucket gets for a key.
func (f *flusher) message(s *slot) (*nats.Msg, error) {
	stored, err := encodeKey(s.key)
	if err != nil {
		return nil, err
	}
	h := make(nats.Header, 5)
	h[headerSequence] = []string{strconv.FormatUint(s.seq, 10)}
	if s.out == nil {
		h[headerKV] = []string{kvDelete}
	}
	if len(s.index) > 0 {
		h[headerIndex] = s.index
	}
	return &nats.Msg{Subject: f.b.keyPrefix(f.gen) + stored, Header: h, Data: s.out}, nil
}

// single stores one key by a plain publish, which on an unreplicated stream costs
// a tenth of a batch. The checkpoint follows; in between the key is ahead of the
// position, and says so in its header. It is fenced as a batch is: see
// [flusher.writeEach]. False is any doubt: then a batch decides.
func (f *flusher) single(ctx context.Context, s *slot) bool {
	m, err := f.message(s)
	if err != nil {
		return false
	}
	m.Header[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(f.rev, 10)}
	m.Header[natsjs.ExpectedLastSubjSeqSubjHeader] = []string{f.b.checkpointSubject(f.gen)}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	_, err = wire.Publish(ctx, f.b.nc, m)
	return err == nil
}

// put stores messages together with a checkpoint, all or nothing, expecting that
// nobody else has written the checkpoint. It sends them unchanged until it knows:
// nil, stored; [errLost], another owner came before; or the server's refusal.
func (f *flusher) put(ctx context.Context, msgs []*nats.Msg, cp checkpoint) error {
	if f.undecided {
		return errUndecided // That one may land yet, and would be taken for this one.
	}
	now := time.Now()
	cp.Flush, cp.Time = f.cp.Flush+1, now.UTC()
	cp.passed()
	if took := now.Sub(f.measured); took > 2*time.Second {
		if !f.measured.IsZero() {
			cp.Rate = float64(cp.Position-f.from) / took.Seconds()
		}
		f.measured, f.from = now, cp.Position
	}
	f.step("put")
	rev, err := putCheckpoint(ctx, f.b, f.gen, msgs, &cp, f.rev)
	if err != nil {
		f.undecided = true
		return err
	}
	f.step("stored")
	f.cp, f.rev, f.wrote = cp, rev, time.Now()
	f.shared.Store(rev)
	f.pos.Store(cp.Position)
	return nil
}

func putCheckpoint(
	ctx context.Context, b *bucket, gen int, msgs []*nats.Msg, cp *checkpoint, expected uint64,
) (uint64, error) {
	body, err := json.Marshal(cp)
	if err != nil {
		return 0, err
	}
	m := wire.Expect(nats.NewMsg(b.checkpointSubject(gen)), expected)
	m.Data = body
	msgs = append(msgs, m)
	for wait, tries := newBackoff(5*time.Millisecond, 500*time.Millisecond), 1; ; tries++ {
		rev, err := send(ctx, b, msgs)
		if err == nil {
			if tries > troubling && b.trouble != nil {
				b.trouble(nil)
			}
			return rev, nil
		}
		if tries == troubling && b.trouble != nil {
			b.trouble(fmt.Errorf("%w: %w", ErrNotTaken, err))
		}
		if refused(err) {
			return 0, fmt.Errorf("the server refuses to store: %w", err)
		}
		rev, decided, found := settle(ctx, b, gen, cp, expected)
		if decided {
			if found == nil && tries >= troubling && b.trouble != nil {
				b.trouble(nil)
			}
			return rev, found
		}
		if b.nc.IsClosed() {
			return 0, errors.Join(err, closedError(b.nc))
		}
		if stop := wait.next(ctx); stop != nil {
			return 0, fmt.Errorf("%w: the checkpoint's write is undecided: %w", stop, err)
		}
	}
}

func send(ctx context.Context, b *bucket, msgs []*nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var ack wire.Ack
	var err error
	if len(msgs) == 1 {
		ack, err = wire.Publish(ctx, b.nc, msgs[0])
	} else {
		ack, err = wire.PublishBatch(ctx, b.nc, msgs)
	}
	return ack.Sequence, err
}

// settle finds out what became of a write of the checkpoint: the leader's
// checkpoint is ours, another owner's, or still the one before, which decides
// nothing.
func settle(
	ctx context.Context, b *bucket, gen int, cp *checkpoint, expected uint64,
) (rev uint64, decided bool, err error) {
	m, err := b.leader(ctx, b.checkpointSubject(gen))
	switch {
	case wire.Number(err) == wire.CodeStreamNotFound:
		return 0, true, fmt.Errorf("%w: was it deleted?", ErrBucket)
	case errors.Is(err, wire.ErrNotFound) && expected > 0:
		return 0, true, ErrSuperseded // sealed, and removed since
	}
	if err != nil || m.Sequence <= expected {
		return 0, false, nil //nolint:nilerr // a failed look decides nothing
	}
	found, err := decodeCheckpoint(m)
	switch {
	case err != nil:
		return 0, true, err
	case found.Owner == cp.Owner && found.Epoch == cp.Epoch && found.Flush == cp.Flush:
		return m.Sequence, true, nil
	case found.State == StateSealed:
		return 0, true, ErrSuperseded
	}
	return 0, true, errLost
}

// refused tells answers that sending again cannot change: the message itself is
// not acceptable. Everything else – no space, no leader, a lost batch – may pass.
func refused(err error) bool {
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) ||
		errors.Is(err, nats.ErrHeadersNotSupported) {
		return true
	}
	switch wire.Number(err) {
	case 10054, 10097, 10109, 10174, 10177, 10199:
		return true
	}
	return false
}

// checkpointFirst is a deliberate defect: see package mutate.
func (f *flusher) checkpointFirst(ctx context.Context, keys []*slot, end checkpoint) error {
	if err := f.put(ctx, nil, end); err != nil {
		return err
	}
	for _, s := range keys {
		m, err := f.message(s)
		if err != nil {
			return err
		}
		if _, err := send(ctx, f.b, []*nats.Msg{m}); err != nil {
			f.log.Warn("value not written", "error", err)
		}
	}
	return nil
}
