package projection

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Headers of a view's messages.
const (
	// headerSequence names the stream sequence that a key's message reflects.
	headerSequence = "Rossby-Sequence"
	// headerKV is how the KV protocol marks deletions.
	headerKV = "KV-Operation"
	kvDelete = "DEL"
	kvPurge  = "PURGE"
)

// attemptTimeout bounds one request to the server.
const attemptTimeout = 2 * time.Second

// maxBatchKeys is the number of keys of one atomic batch, beside the checkpoint.
const maxBatchKeys = wire.MaxBatch - 1

// maxSnapshotKeys is the number of keys of one consistent read, beside the
// checkpoint and the pointer.
const maxSnapshotKeys = 1022

// bucket names the places of one view.
type bucket struct {
	nc          *nats.Conn
	store, view string
	name        string
	stream      string
	prefix      string
	// single says that the bucket is not replicated, as it was last seen.
	single atomic.Bool
	// seen, when set, remembers what readers decode again and again.
	seen *decoded
	// trouble, when set, is told why nothing can be written, nil when it can again.
	trouble func(error)
}

func newBucket(nc *nats.Conn, store, view string) *bucket {
	name := store + "_" + view
	return &bucket{nc: nc, store: store, view: view, name: name, stream: "KV_" + name, prefix: "$KV." + name + "."}
}

func (b *bucket) pointerSubject() string { return protocol.ViewPointer(b.store, b.view) }

func (b *bucket) checkpointSubject(gen int) string {
	return b.prefix + "_rossby." + strconv.Itoa(gen)
}

// keyPrefix begins the subjects of a generation's keys.
func (b *bucket) keyPrefix(gen int) string { return b.prefix + strconv.Itoa(gen) + "." }

// hintSubject is where an owner that leaves says so.
func (b *bucket) hintSubject() string { return b.store + ".hint." + b.view }

// config is the bucket's stream: shaped as nats.go's KV shapes it, but with
// atomic batches allowed, which the KV helpers would drop.
func (b *bucket) config(replicas int, indexed bool) natsjs.StreamConfig {
	return natsjs.StreamConfig{
		Name:               b.stream,
		Description:        "Rossby view " + b.view + " of store " + b.store,
		Subjects:           []string{b.prefix + ">"},
		Retention:          natsjs.LimitsPolicy,
		Discard:            natsjs.DiscardNew,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		MaxMsgsPerSubject:  1,
		Storage:            natsjs.FileStorage,
		Replicas:           replicas,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		AllowMsgTTL:        indexed,
	}
}

// ensure makes the bucket, or checks the one that is there. With indexes it lets
// messages have a time to live, for the markers of entries that were taken out.
func (b *bucket) ensure(ctx context.Context, replicas int, indexed bool) error {
	js, err := natsjs.New(b.nc)
	if err != nil {
		return err
	}
	var stream natsjs.Stream
	err = wire.API(ctx, b.nc, b.stream, func(ctx context.Context) error {
		// Who makes streams and tells of them may be missing: then it is asked again.
		once, cancel := context.WithTimeout(ctx, attemptTimeout)
		var err error
		stream, err = js.Stream(once, b.stream)
		cancel()
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			stream, err = js.CreateStream(ctx, b.config(replicas, indexed))
			if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
				stream, err = js.Stream(ctx, b.stream)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("bucket %q: %w", b.name, err)
	}
	live := stream.CachedInfo().Config
	if indexed && !live.AllowMsgTTL {
		live.AllowMsgTTL = true
		err = wire.API(ctx, b.nc, b.stream, func(ctx context.Context) error {
			stream, err = js.UpdateStream(ctx, live)
			return err
		})
		if err != nil {
			return fmt.Errorf("%w: stream %s: indexes need allow_msg_ttl: %w", ErrBucket, b.stream, err)
		}
		live = stream.CachedInfo().Config
	}
	b.single.Store(live.Replicas == 1)
	var errs []error
	must := func(ok bool, field string, want, got any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: stream %s: %s is %v, not %v: "+
				"correct it with `nats stream edit`, or delete the bucket and let it be rebuilt",
				ErrBucket, b.stream, field, got, want))
		}
	}
	must(len(live.Subjects) == 1 && live.Subjects[0] == b.prefix+">", "subjects", b.prefix+">", live.Subjects)
	must(live.MaxMsgsPerSubject == 1, "max_msgs_per_subject", 1, live.MaxMsgsPerSubject)
	must(live.AllowAtomicPublish, "allow_atomic", true, live.AllowAtomicPublish)
	must(live.AllowDirect, "allow_direct", true, live.AllowDirect)
	must(live.MaxMsgs <= 0 && live.MaxBytes <= 0 && live.MaxAge == 0, "limits", "none",
		fmt.Sprintf("max_msgs=%d max_bytes=%d max_age=%v", live.MaxMsgs, live.MaxBytes, live.MaxAge))
	must(live.Storage == natsjs.FileStorage, "storage", natsjs.FileStorage, live.Storage)
	return errors.Join(errs...)
}

// snapshot is several keys of a view as they stood together at one moment on one
// replica.
type snapshot struct {
	// messages are the keys' messages by subject, deletion markers too.
	messages map[string]*wire.Message
	// checkpoint is that of the generation asked for, revision its sequence.
	checkpoint *checkpoint
	revision   uint64
	// pointer is the view's, pointed its sequence.
	pointer *pointer
	pointed uint64
	// floor is where the revision of what is served is remembered.
	floor *atomic.Uint64
	// upTo is the last sequence that the replica had.
	upTo uint64
}

// read takes a snapshot in one request. It may be old: the caller looks at upTo.
func (b *bucket) read(ctx context.Context, gen int, subjects []string) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	all := make([]string, 0, len(subjects)+2)
	all = append(all, subjects...)
	all = append(all, b.pointerSubject())
	cp := ""
	if gen > 0 {
		cp = b.checkpointSubject(gen)
		all = append(all, cp)
	}
	page, err := wire.MultiLast(ctx, b.nc, b.stream, all...)
	if errors.Is(err, nats.ErrMaxPayload) {
		return nil, fmt.Errorf("%w: their names do not fit into one request", wire.ErrTooMany)
	}
	if err != nil {
		return nil, err
	}
	if page.Pending > 0 {
		return nil, fmt.Errorf("%w: %d of the keys did not fit into one answer", wire.ErrTooMany, page.Pending)
	}
	s := &snapshot{messages: make(map[string]*wire.Message, len(page.Messages)), upTo: page.UpTo}
	for i := range page.Messages {
		m := &page.Messages[i]
		switch m.Subject {
		case b.pointerSubject():
			s.pointed = m.Sequence
			s.pointer, err = b.seen.pointerOf(m)
		case cp:
			s.revision = m.Sequence
			s.checkpoint, err = b.seen.checkpointOf(m)
		default:
			s.messages[m.Subject] = m
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// leader reads one subject from the bucket's leader.
func (b *bucket) leader(ctx context.Context, subject string) (*wire.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	m, err := wire.LeaderLast(ctx, b.nc, b.stream, subject)
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// end is the revision of the last message that the bucket's leader has.
func (b *bucket) end(ctx context.Context, gen int) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	end, err := wire.LeaderEnd(ctx, b.nc, b.stream)
	if err != nil {
		return 0, err
	}
	_, err = wire.LeaderAt(ctx, b.nc, b.stream, end)
	if !errors.Is(err, wire.ErrNotFound) {
		return end, err
	}
	// It was removed with a generation, or overwritten since. Nobody writes keys
	// without a checkpoint after them.
	var last uint64
	for _, subject := range []string{b.pointerSubject(), b.checkpointSubject(gen)} {
		m, err := wire.LeaderLast(ctx, b.nc, b.stream, subject)
		if err != nil && !errors.Is(err, wire.ErrNotFound) {
			return 0, err
		}
		last = max(last, m.Sequence)
	}
	return last, nil
}

// deleted tells whether a key's message says that the key is not there.
func deleted(m *wire.Message) bool {
	op := head(m.Header, headerKV)
	return op == kvDelete || op == kvPurge
}

// reflects is the stream sequence that a key's message reflects.
func reflects(m *wire.Message) uint64 {
	n, _ := strconv.ParseUint(head(m.Header, headerSequence), 10, 64)
	return n
}

// validateNames checks the names of a store and a view.
func validateNames(store, view string) error {
	return errors.Join(jetstream.ValidateName("store name", store), jetstream.ValidateName("view name", view))
}

// head reads a header as it is spelt.
func head(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// backoff is the wait between attempts: jittered, doubling from first to last.
type backoff struct{ wait, last time.Duration }

func newBackoff(first, last time.Duration) *backoff { return &backoff{wait: first, last: last} }

func (b *backoff) next(ctx context.Context) error { return sleep(ctx, b.jittered()) }

// jittered is how long to wait this time.
func (b *backoff) jittered() time.Duration {
	d := b.wait/2 + rand.N(b.wait/2+1)
	b.wait = min(2*b.wait, b.last)
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// absent is the error for a view without a bucket.
func (b *bucket) absent() error {
	return fmt.Errorf("%w: store %q has no view %q (bucket %s): run its updater first",
		ErrViewNotFound, b.store, b.view, b.name)
}

// missing tells errors of a stream that does not exist.
func missing(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || wire.Number(err) == wire.CodeStreamNotFound
}

// keyOf is the view's key of a subject, given the generation's prefix.
func keyOf(subject, prefix string) (string, bool) {
	stored, ok := strings.CutPrefix(subject, prefix)
	if !ok {
		return "", false
	}
	key, err := decodeKey(stored)
	return key, err == nil
}
