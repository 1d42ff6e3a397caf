package follow_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// patience is how long a condition may take; reaching it is a failure.
const patience = natstest.Patience

// leaseKept is a lease that no machine is too slow to renew: where owners change only
// when a test makes them, nothing is done twice.
const leaseKept = 20 * time.Second

// leaseShort is one that a test waits for, or that a slow machine may lose.
const leaseShort = 2 * time.Second

// leaseNoticed lets an owner notice in a second or two that its cursor is silent: that
// takes a part of the lease. A machine that stands still may lose it.
const leaseNoticed = 4 * time.Second

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

// bench is one store with its server.
type bench struct {
	tb     testing.TB
	url    string
	nc     *nats.Conn
	js     jetstream.JetStream
	stream string
	bucket string
}

func setup(tb testing.TB) *bench {
	tb.Helper()
	return newBench(tb, natstest.Run(tb).URL(), 1)
}

func newBench(tb testing.TB, url string, replicas int) *bench {
	tb.Helper()
	name := strings.NewReplacer("/", "-", "#", "-", "=", "-").Replace(tb.Name())
	b := &bench{tb: tb, url: url, stream: name, bucket: name + "-followers"}
	b.nc = b.connect()
	b.js = natstest.JetStream(tb, b.nc)
	b.makeStream(replicas)
	return b
}

func (b *bench) makeStream(replicas int) {
	b.tb.Helper()
	until(b.tb, "the stream is made", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: b.stream, Subjects: []string{"t.>"}, AllowDirect: true, Replicas: replicas,
		})
		return err == nil
	})
}

// connect makes a connection that ends with the test, as Rossby makes them.
func (b *bench) connect() *nats.Conn {
	b.tb.Helper()
	nc, err := nats.Connect(b.url, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.Timeout(patience),
		nats.ReconnectWait(20*time.Millisecond), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() { shut(nc) })
	return nc
}

// shut closes the connection and waits for its goroutines.
func shut(nc *nats.Conn) {
	if nc.IsClosed() {
		return
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	nc.Close()
	<-closed
}

// publish stores one event, however often it has to be sent.
func (b *bench) publish(subject string) uint64 {
	b.tb.Helper()
	var seq uint64
	id := nats.Header{nats.MsgIdHdr: {nuid.Next()}}
	until(b.tb, "an event is stored", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ack, err := wire.Publish(ctx, b.nc, &nats.Msg{Subject: subject, Header: id})
		seq = ack.Sequence
		return err == nil
	})
	return seq
}

// publishLanes stores rounds events on each of lanes subjects, in turn.
func (b *bench) publishLanes(lanes, rounds int) {
	b.tb.Helper()
	for range rounds {
		for l := range lanes {
			b.publish(fmt.Sprintf("t.%d", l))
		}
	}
}

// publishMany is publishLanes with many events on their way at a time. What has to be
// sent again comes behind the others.
func (b *bench) publishMany(lanes, rounds int) {
	b.tb.Helper()
	ids := make([]string, lanes*rounds)
	for i := range ids {
		ids[i] = nuid.Next()
	}
	until(b.tb, "the events are stored", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return wire.PublishEach(ctx, b.nc, len(ids), 64, func(i int) (*nats.Msg, error) {
			header := nats.Header{nats.MsgIdHdr: {ids[i]}}
			return &nats.Msg{Subject: fmt.Sprintf("t.%d", i%lanes), Header: header}, nil
		}, func(int, wire.Ack) {}) == nil
	})
}

// until waits for a condition about things in other processes or servers; it
// polls, because nobody tells.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			tb.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// config is a follower of the whole stream from its beginning.
func (b *bench) config(j *journal) follow.Config {
	return follow.Config{
		Conn: b.nc, Stream: b.stream, Bucket: b.bucket, Name: "f", StoreID: "store", Version: 1, Definition: "d",
		Start:  func(context.Context) (uint64, error) { return 0, nil },
		Handle: j.handle,
		Decide: follow.Backoff(time.Millisecond, 20*time.Millisecond),
		TTL:    leaseKept,
		Grace:  patience,
	}
}

// status is what the servers know of the follower.
func (b *bench) status() follow.Status {
	b.tb.Helper()
	var s follow.Status
	until(b.tb, "the status is read", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var err error
		s, err = follow.ReadStatus(ctx, b.nc, b.stream, b.bucket, "f")
		return err == nil
	})
	return s
}

// instance is a running follower.
type instance struct {
	*follow.Follower
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(tb testing.TB, cfg follow.Config) *instance {
	tb.Helper()
	f, err := follow.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{Follower: f, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(i.done)
		i.err = f.Run(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-i.done
	})
	return i
}

// stop ends the follower gracefully.
func (i *instance) stop(tb testing.TB) {
	tb.Helper()
	i.cancel()
	if err := i.wait(tb); err != nil {
		tb.Errorf("stopped with %v", err)
	}
}

func (i *instance) wait(tb testing.TB) error {
	tb.Helper()
	select {
	case <-i.done:
		return i.err
	case <-time.After(patience):
		tb.Fatal("the follower does not end")
		return nil
	}
}

func (i *instance) active(tb testing.TB) *instance {
	tb.Helper()
	until(tb, "active", func() bool {
		select {
		case <-i.done:
			tb.Fatalf("ended: %v", i.err)
		default:
		}
		return i.Status().State == follow.StateActive
	})
	return i
}

func (i *instance) caughtUp(tb testing.TB, head uint64) {
	tb.Helper()
	until(tb, fmt.Sprintf("caught up with %d", head), func() bool {
		select {
		case <-i.done:
			tb.Fatalf("ended: %v", i.err)
		default:
		}
		s := i.Status()
		return s.CaughtUp && s.Position >= head
	})
}

// journal records what handlers did and checks the order per subject.
type journal struct {
	tb   testing.TB
	fail func(d follow.Delivery) error
	gate func(ctx context.Context, d follow.Delivery)

	mu      sync.Mutex
	running map[string]bool
	last    map[string]uint64
	done    map[uint64]int
	starts  []follow.Delivery
	repeats int
}

func newJournal(tb testing.TB) *journal {
	return &journal{tb: tb, running: map[string]bool{}, last: map[string]uint64{}, done: map[uint64]int{}}
}

func (j *journal) handle(ctx context.Context, d follow.Delivery) error {
	j.mu.Lock()
	if j.running[d.Subject] {
		j.tb.Errorf("two events of %s at once", d.Subject)
	}
	j.running[d.Subject] = true
	j.starts = append(j.starts, d)
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.running[d.Subject] = false
	}()
	if j.gate != nil {
		j.gate(ctx, d)
	}
	if j.fail != nil {
		if err := j.fail(d); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.done[d.Sequence]++; j.done[d.Sequence] > 1 {
		j.repeats++
	}
	j.last[d.Subject] = max(j.last[d.Subject], d.Sequence)
	return nil
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.done)
}

// once checks that all events are done, and none twice but for those that an owner
// more than there have to be repeats.
func (j *journal) once(i *instance, owners, events int) {
	j.tb.Helper()
	lost := int(i.Status().Epoch) - owners
	if j.count() != events || j.repeated() > lost*follow.MaxUnrecordedDefault {
		j.tb.Errorf("%d of %d done, %d repeated, with %d leases lost", j.count(), events, j.repeated(), lost)
	}
}

func (j *journal) repeated() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.repeats
}

// ordered checks that per subject and epoch the events began in order, retries
// of the same one apart, and that no event began before one that precedes it.
func (j *journal) ordered() {
	j.tb.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	type key struct {
		subject string
		epoch   uint64
	}
	at := map[key]uint64{}
	bySubject := map[string][]uint64{}
	for _, d := range j.starts {
		if !slices.Contains(bySubject[d.Subject], d.Sequence) {
			bySubject[d.Subject] = append(bySubject[d.Subject], d.Sequence)
		}
		k := key{d.Subject, d.Epoch}
		if d.Sequence < at[k] {
			j.tb.Errorf("%s epoch %d: %d after %d", d.Subject, d.Epoch, d.Sequence, at[k])
		}
		at[k] = d.Sequence
	}
	for subject, seqs := range bySubject {
		for i := 1; i < len(seqs); i++ {
			if seqs[i] < seqs[i-1] {
				j.tb.Errorf("%s: %d first began after %d: a gap", subject, seqs[i], seqs[i-1])
			}
		}
	}
}

var errTest = errors.New("test")

type wireMessage = wire.Message

func goexit() { runtime.Goexit() }
