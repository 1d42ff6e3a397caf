package projection

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/wire"
)

// Bounds of [flusher.writeEach].
const (
	// eachKeys is how many keys are stored between two looks at the lease.
	eachKeys = 4096
	// eachBytes bounds the values that are on their way.
	eachBytes = 4 << 20
	// eachWindow is how many keys are on their way at a time.
	eachWindow = 1024
)

// writeEach stores the keys of a page that no single batch can hold by plain
// publishes, and returns those that are left to batches, of which there is always
// one: it moves the position.
//
// Each message expects the checkpoint's revision, not its own subject's: that is
// the same fence as a batch's. On an unreplicated stream, where messages are
// checked and stored one after the other, none lands after somebody else, or this
// owner, has written the checkpoint, however late it comes. (A replicated stream
// refuses a second message that expects the same subject while the first is on its
// way, so there batches are used.) Until the position has moved the keys are ahead
// of it, and say so in their headers, as with several batches.
func (f *flusher) writeEach(ctx, stop context.Context, keys []*slot) ([]*slot, error) {
	for wait := newBackoff(5*time.Millisecond, 500*time.Millisecond); len(keys) > maxBatchKeys; {
		n, size := 0, 0
		for n < len(keys)-1 && n < eachKeys && size < eachBytes {
			size += len(keys[n].out)
			n++
		}
		open, err := f.some(ctx, keys[:n])
		if err != nil {
			if refused(err) {
				return nil, err
			}
			if open == n || wire.IsWrongLastSequence(err) || f.b.nc.IsClosed() {
				return keys, nil // A batch finds out.
			}
			if err := wait.next(ctx); err != nil {
				return nil, err
			}
			continue
		}
		f.step("each")
		keys = keys[n:]
		if time.Since(f.wrote) >= f.ttl/4 {
			if err := f.put(ctx, nil, f.cp); err != nil {
				return nil, err
			}
		}
		if stop.Err() != nil {
			return nil, context.Cause(stop)
		}
	}
	return keys, nil
}

// some stores a few keys. After an error any of them may be stored, with the
// value that it gets when it is stored again; open is how many were not
// acknowledged.
func (f *flusher) some(ctx context.Context, keys []*slot) (open int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*attemptTimeout)
	defer cancel()
	fence := []string{strconv.FormatUint(f.rev, 10)}
	subject := []string{f.b.checkpointSubject(f.gen)}
	open = len(keys)
	err = wire.PublishEach(ctx, f.b.nc, len(keys), eachWindow,
		func(i int) (*nats.Msg, error) {
			m, err := f.message(keys[i])
			if err == nil {
				m.Header[nats.ExpectedLastSubjSeqHdr] = fence
				m.Header[natsjs.ExpectedLastSubjSeqSubjHeader] = subject
			}
			return m, err
		},
		func(int, wire.Ack) { open-- })
	return open, err
}
