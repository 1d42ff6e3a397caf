package aggregate

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Bounds of what waits to be written to the bucket of states, and of waiting for
// it. What does not fit is left out: a later load replays some more.
const (
	waitingStates  = 1024
	waitingBytes   = 16 << 20
	bucketPatience = time.Second
	// bucketPause follows a failure: whoever may not use the bucket, or finds it
	// without a leader, does not lose time with every load.
	bucketPause = 30 * time.Second
	// writePause follows a first failure to write, for which nobody waits: a new bucket on
	// slow servers may not be there in time. It doubles up to bucketPause.
	writePause = time.Second
	// bucketRetry is how often a new bucket is asked whether it has a leader.
	bucketRetry = 50 * time.Millisecond
	// stateOverhead is more than the headers of a state take.
	stateOverhead = 1 << 10
)

// states is the bucket of the states that commits do not carry: large ones, and
// those of another fingerprint than the writer's. It is a cache: whatever happens
// to it, a load replays more.
//
// It writes behind, one state after the other, in a goroutine that runs only while
// there is something to write, and gives up at the first failure. So there is
// nothing to close.
type states struct {
	store       eventStore
	logger      *slog.Logger
	bucket      string
	typ         string
	fingerprint string

	mu      sync.Mutex
	waiting map[string]base
	bytes   int
	writing bool
	// What fails is left alone for a while, each kind by itself: a program may be
	// permitted one and not another.
	reads, leaderReads, writes outage
	// tooLarge tells that it was logged.
	tooLarge bool
}

// outage is a kind of request that has failed.
type outage struct {
	until time.Time
	wait  time.Duration // that is over at until
	told  bool
}

func (o *outage) lasts() bool { return time.Now().Before(o.until) }

// newStates returns nil for a repository that uses no bucket.
func newStates(store eventStore, fingerprint, typ string, cfg RepositoryConfig) *states {
	if store.Conn() == nil || cfg.StateEvery < 0 {
		return nil
	}
	return &states{
		store: store, logger: cfg.Logger, bucket: store.Name() + "__state", typ: typ, fingerprint: fingerprint,
		waiting: map[string]base{},
	}
}

func (s *states) stream() string { return protocol.StateStream(s.store.Name()) }

// subject is that of an aggregate's state under the repository's fingerprint:
// $KV.<store>__state.<type>.<fingerprint>.<id>.
func (s *states) subject(id string) string {
	return protocol.StateSubject(s.store.Name(), s.typ, s.fingerprint, id)
}

// message is what is stored of a state.
func (s *states) message(id string, b *base) *nats.Msg {
	msg := nats.NewMsg(s.subject(id))
	follows := fmt.Sprintf("%s %d %d %d", b.head.CommitID, b.head.Sequence, b.head.Ordinal, b.head.Version)
	msg.Header[protocol.HeaderStateFormat] = []string{protocol.StateFormat}
	msg.Header[protocol.HeaderStateFollows] = []string{follows}
	msg.Header[protocol.HeaderStateChecksum] = []string{checksum(msg.Subject, follows, b.data)}
	msg.Header[protocol.HeaderContentType] = []string{s.store.Codec().ContentType()}
	msg.Data = b.data
	return msg
}

// checksum covers the place, too: a value copied to another key is not its state.
func checksum(subject, follows string, data []byte) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum([]byte(subject+"\n"+follows+"\n"), table), table, data)
	return strconv.FormatUint(uint64(sum), 16)
}

// errPaused is a read that was not tried because the last one failed.
var errPaused = errors.New("the bucket is left alone for a while")

// errNoState is a value that is not a state of this program.
var errNoState = errors.New("it is not a state that was written here")

// parse reads a state back.
func (s *states) parse(m *wire.Message) (base, error) {
	one := func(name string) string {
		if v := m.Header[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	var b base
	b.data = m.Data
	text := one(protocol.HeaderStateFollows)
	fields := strings.Split(text, " ")
	if one(protocol.HeaderStateFormat) != protocol.StateFormat || len(fields) != 4 || fields[0] == "" ||
		one(protocol.HeaderContentType) != s.store.Codec().ContentType() {
		return base{}, errNoState
	}
	b.head.CommitID = fields[0]
	for i, to := range []*uint64{&b.head.Sequence, &b.head.Ordinal, &b.head.Version} {
		n, err := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil || n == 0 {
			return base{}, errNoState
		}
		*to = n
	}
	if one(protocol.HeaderStateChecksum) != checksum(m.Subject, text, m.Data) {
		return base{}, fmt.Errorf("%w: its checksum is wrong", errNoState)
	}
	b.kept = b.head.Ordinal
	return b, nil
}

// get returns the state in the bucket, if there is one that can be read. Only when
// much depends on it is the leader asked for what a replica does not have.
func (s *states) get(ctx context.Context, id string, much bool) (base, bool) {
	if s == nil {
		return base{}, false
	}
	b, err := s.read(ctx, id, wire.DirectLast, &s.reads)
	if errors.Is(err, wire.ErrNotFound) && much && s.store.Replicas() > 1 {
		b, err = s.read(ctx, id, wire.LeaderLast, &s.leaderReads)
	}
	return b, err == nil
}

type lastFunc func(ctx context.Context, nc *nats.Conn, stream, subject string) (wire.Message, error)

func (s *states) read(ctx context.Context, id string, last lastFunc, o *outage) (base, error) {
	s.mu.Lock()
	lasts := o.lasts()
	s.mu.Unlock()
	if lasts {
		return base{}, errPaused
	}
	attempt, cancel := context.WithTimeout(ctx, bucketPatience)
	defer cancel()
	m, err := last(attempt, s.store.Conn(), s.stream(), s.subject(id))
	switch {
	case err == nil:
		s.mu.Lock()
		o.told = false
		s.mu.Unlock()
		return s.parse(&m)
	case errors.Is(err, wire.ErrNotFound):
	case errors.Is(err, nats.ErrNoResponders), wire.Number(err) == wire.CodeStreamNotFound:
		return base{}, wire.ErrNotFound // no bucket, as long as nobody needed one
	case ctx.Err() == nil:
		s.fail("read", err, o)
	}
	return base{}, err
}

// fail leaves a kind of request alone for a while, and says so once until it
// works again.
func (s *states) fail(what string, err error, o *outage) {
	s.mu.Lock()
	before := o.wait
	o.wait = bucketPause
	if o == &s.writes {
		if !wire.Denied(err) {
			o.wait = min(max(2*before, writePause), bucketPause)
		}
		clear(s.waiting)
		s.bytes = 0
	}
	o.until = time.Now().Add(o.wait)
	told := o.told
	o.told = true
	s.mu.Unlock()
	if !told && !s.store.Conn().IsClosed() {
		s.logger.Warn("the bucket of states cannot be used: aggregates are replayed instead",
			"bucket", s.bucket, "type", s.typ, "what", what, "error", err)
	}
}

// offer puts a state among those that wait to be written, in place of an older one
// of the same aggregate. It never waits.
func (s *states) offer(id string, b base) {
	if nc := s.store.Conn(); int64(len(b.data)+stateOverhead) > nc.MaxPayload() {
		s.skip(id, &b, nc.MaxPayload())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.waiting[id]
	if there && old.head.Sequence > b.head.Sequence || s.writes.lasts() {
		return
	}
	size := s.bytes - len(old.data) + len(b.data)
	if size > waitingBytes || !there && len(s.waiting) >= waitingStates {
		return
	}
	s.waiting[id], s.bytes = b, size
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// skip says once that states are too large to be kept.
func (s *states) skip(id string, b *base, most int64) {
	s.mu.Lock()
	told := s.tooLarge
	s.tooLarge = true
	s.mu.Unlock()
	if !told {
		s.logger.Warn("a state is too large for a message: aggregates like it are replayed whenever they are loaded",
			"type", s.typ, "id", id, "version", b.head.Version, "bytes", len(b.data), "max_payload", most)
	}
}

// write writes what waits, until nothing does or something fails.
func (s *states) write() {
	for {
		id, b, ok := s.next()
		if !ok {
			return
		}
		if err := s.put(id, &b); err != nil {
			s.fail("write", err, &s.writes)
		}
	}
}

// next takes one of the waiting states.
func (s *states) next() (string, base, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range s.waiting {
		delete(s.waiting, id)
		s.bytes -= len(b.data)
		return id, b, true
	}
	s.writing = false
	return "", base{}, false
}

// put writes a state, and makes the bucket when there is none: most programs need
// none, and some may only write to it.
func (s *states) put(id string, b *base) error {
	ctx, cancel := context.WithTimeout(context.Background(), jetstream.AttemptTimeoutDefault)
	defer cancel()
	msg := s.message(id, b)
	for made := false; ; made = true {
		_, err := wire.Publish(ctx, s.store.Conn(), msg)
		switch {
		case err == nil:
			s.mu.Lock()
			s.writes.told, s.writes.wait = false, 0
			s.mu.Unlock()
			return nil
		case !errors.Is(err, nats.ErrNoResponders):
			return err
		case !made:
			if err := s.create(ctx); err != nil {
				return err
			}
		default: // a bucket that has no leader yet
			t := time.NewTimer(bucketRetry)
			select {
			case <-ctx.Done():
				t.Stop()
				return err
			case <-t.C:
			}
		}
	}
}

func (s *states) create(ctx context.Context) error {
	js, err := natsjs.New(s.store.Conn())
	if err != nil {
		return err
	}
	err = wire.Ensure(ctx, s.store.Conn(), s.stream(), func(ctx context.Context) error {
		_, err := js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket: s.bucket, Description: "Rossby: states of aggregates, a cache", History: 1,
			Storage: natsjs.FileStorage, Replicas: s.store.Replicas(),
		})
		return err
	})
	if errors.Is(err, natsjs.ErrBucketExists) {
		return nil
	}
	return err
}

// dropOthers removes the states of the type that stand under other fingerprints.
func (s *states) dropOthers(ctx context.Context) (dropped int, err error) {
	js, err := natsjs.New(s.store.Conn())
	if err != nil {
		return 0, err
	}
	kv, err := js.KeyValue(ctx, s.bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	keys, err := kv.ListKeysFiltered(ctx, s.typ+".*.*")
	if err != nil {
		return 0, err
	}
	others := map[string]int{} // fingerprints: few
	for key := range keys.Keys() {
		rest, _ := strings.CutPrefix(key, s.typ+".")
		if fingerprint, _, _ := strings.Cut(rest, "."); fingerprint != s.fingerprint {
			others[fingerprint]++
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, s.stream())
	if err != nil {
		return 0, err
	}
	for fingerprint, n := range others {
		if err := stream.Purge(ctx, natsjs.WithPurgeSubject("$KV."+s.bucket+"."+s.typ+"."+fingerprint+".>")); err != nil {
			return dropped, err
		}
		dropped += n
	}
	return dropped, nil
}
