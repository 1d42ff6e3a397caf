package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// maxPeak is the most memory that an updater may take, in bytes.
const maxPeak = 512 << 20

// catchup builds a new keyed view from all events, in a process of its own, in
// turns with a process that only pulls them.
func catchup(ctx context.Context, e *env) (*result, error) {
	events, keys, turns := e.scaled(200_000), e.scaled(20_000), 9
	if e.full && !e.short {
		events, keys, turns = 1_000_000, 100_000, 5
	}
	return e.catchup(ctx, events, keys, turns)
}

// locality is [catchup] with so many events of each key, in no order.
func locality(each int) func(context.Context, *env) (*result, error) {
	return func(ctx context.Context, e *env) (*result, error) {
		events := e.scaled(200_000)
		return e.catchup(ctx, events, max(events/each, 1), 5)
	}
}

func (e *env) catchup(ctx context.Context, events, keys, turns int) (*result, error) {
	begin := time.Now()
	counts, err := e.fill(ctx, events, keys)
	if err != nil {
		return nil, err
	}
	filled := time.Since(begin)
	head, err := e.store.LastSequence(ctx)
	if err != nil {
		return nil, err
	}
	last := strconv.FormatUint(head, 10)
	view, peak, checked := 0, int64(0), 0
	ours := func(ctx context.Context, _ int) (time.Duration, error) {
		view++
		name := "view-" + strconv.Itoa(view)
		rep, err := measured(ctx, "updater", e.url, name, last)
		if err != nil {
			return 0, err
		}
		peak = max(peak, rep.Peak)
		n, err := e.checkView(ctx, name, counts)
		checked += n
		return rep.Elapsed, errors.Join(err, e.js.DeleteStream(ctx, "KV_"+storeName+"_"+name))
	}
	raw := func(ctx context.Context, _ int) (time.Duration, error) {
		rep, err := measured(ctx, "puller", e.url, "consume", last)
		return rep.Elapsed, err
	}
	batches := func(ctx context.Context, _ int) (time.Duration, error) {
		rep, err := measured(ctx, "puller", e.url, "window", last)
		return rep.Elapsed, err
	}
	p := e.plan(turns, events)
	p.ops, p.cold = int(head)-1, true //nolint:gosec // a few million
	r, err := measure(ctx, e, p, contender{"ours", ours}, contender{"raw", raw}, contender{"window", batches})
	if err != nil {
		return nil, err
	}
	r.rate = true
	r.notef("raw is Consumer.Consume of nats.go with 16 Ki messages asked for ahead; window asks for as many by hand")
	r.notef("exactly once: %d keys checked after %d builds; filled %d commits in %.1f s",
		checked, view, events, filled.Seconds())
	verdict := "ok"
	if peak > maxPeak {
		verdict = "short"
	}
	r.notef("updater's process: %d MB at most, target %d %s", peak>>20, maxPeak>>20, verdict)
	return r, nil
}

// checkView compares every key of a view with the number of commits.
func (e *env) checkView(ctx context.Context, view string, counts []int) (int, error) {
	reader, err := projection.NewReader[accountView](ctx, e.nc, storeName, view,
		projection.ReaderConfig{OpenWait: time.Minute, Wait: time.Minute})
	if err != nil {
		return 0, err
	}
	n := 0
	ids := make([]string, len(counts))
	for i := range ids {
		ids[i] = aggregateID(i)
	}
	for some := range slices.Chunk(ids, 500) {
		entries, err := reader.GetMany(ctx, some)
		if err != nil {
			return n, err
		}
		if len(entries) != len(some) {
			return n, fmt.Errorf("view %s holds %d of %d keys", view, len(entries), len(some))
		}
		for _, entry := range entries {
			if err := entry.Value.check(entry.Key, uint64(counts[n])); err != nil { //nolint:gosec // counts
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// update runs an updater until its view holds everything, as a child.
func update(url, view, last string) error {
	return runUpdater(url, view, last, func(_ context.Context, _ *nats.Conn, begin time.Time) (time.Duration, error) {
		return time.Since(begin), nil
	})
}

// runUpdater runs an updater until its view holds everything, then looks at it,
// and prints how long that says it took.
func runUpdater(
	url, view, last string, look func(ctx context.Context, nc *nats.Conn, begin time.Time) (time.Duration, error),
) error {
	target, err := strconv.ParseUint(last, 10, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := orphaned()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: url})
	if err != nil {
		return err
	}
	defer nc.Close()
	store, err := jetstream.Attach(ctx, nc, storeName)
	if err != nil {
		return err
	}
	stopProfile, err := childProfile("updater")
	if err != nil {
		return err
	}
	updater, err := projection.NewUpdater(store, definition(view), projection.UpdaterConfig{})
	if err != nil {
		return err
	}
	begin := time.Now()
	ran := make(chan error, 1)
	go func() { ran <- updater.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ran:
			return fmt.Errorf("updater of %s ended: %w", view, err)
		case <-done:
			cancel()
			return errors.Join(errors.New("told to stop"), <-ran)
		case <-tick.C:
		}
		at, err := store.Sequence(updater.Status().Position)
		if err != nil {
			return err
		}
		if at >= target {
			break
		}
	}
	go func() { <-done; cancel() }()
	elapsed, err := look(ctx, nc, begin)
	cancel()
	if err := errors.Join(err, stopProfile(), <-ran); err != nil {
		return err
	}
	return report{Elapsed: elapsed}.print()
}

// window is the number of messages that the raw side asks for ahead, as much as
// the updater does.
const window = projection.WindowDefault

// pull reads the store's stream by a consumer without acknowledgements, as a
// child. It looks at the place of each message, as anything that folds must.
func pull(url, how, last string) error {
	target, err := strconv.ParseUint(last, 10, 64)
	if err != nil {
		return err
	}
	done := orphaned()
	ctx := context.Background()
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	for tries := 1; ; tries++ {
		took, err := pullOnce(ctx, js, how, target, done)
		if errors.Is(err, errLost) && tries < 10 {
			continue
		}
		if err != nil {
			return err
		}
		return report{Elapsed: took}.print()
	}
}

// errLost says that the consumer did not answer. Of three servers, not all hear of a new
// one at once: what is asked meanwhile finds nobody, and the consumer goes away, unused.
var errLost = errors.New("the consumer does not answer")

// pullOnce is one attempt, and how long it took.
func pullOnce(
	ctx context.Context, js natsjs.JetStream, how string, target uint64, done <-chan struct{},
) (time.Duration, error) {
	begin := time.Now()
	cons, err := js.CreateConsumer(ctx, storeName, natsjs.ConsumerConfig{AckPolicy: natsjs.AckNonePolicy})
	if err != nil {
		return 0, err
	}
	finished, failed := make(chan struct{}), make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // one is enough
		}
	}
	if how == "consume" {
		cc, err := cons.Consume(func(m natsjs.Msg) {
			meta, err := m.Metadata()
			if err != nil {
				fail(err)
			} else if meta.Sequence.Stream == target {
				close(finished)
			}
		}, natsjs.PullMaxMessages(window), natsjs.PullHeartbeat(5*time.Second),
			natsjs.ConsumeErrHandler(func(_ natsjs.ConsumeContext, err error) { fail(fmt.Errorf("%w: %w", errLost, err)) }))
		if err != nil {
			return 0, err
		}
		defer cc.Stop()
	} else {
		go func() {
			if err := pullWindow(js.Conn(), cons.CachedInfo().Name, target); err != nil {
				fail(err)
				return
			}
			close(finished)
		}()
	}
	select {
	case <-finished:
	case err := <-failed:
		return 0, err
	case <-done:
		return 0, errors.New("told to stop")
	}
	took := time.Since(begin)
	return took, js.DeleteConsumer(ctx, storeName, cons.CachedInfo().Name)
}

// pullWindow asks for the next messages when half of them are there.
func pullWindow(nc *nats.Conn, consumer string, target uint64) error {
	inbox := nc.NewInbox()
	incoming := make(chan *nats.Msg, 2*window)
	sub, err := nc.ChanSubscribe(inbox, incoming)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	body, err := json.Marshal(map[string]any{"batch": window / 2, "expires": time.Minute})
	if err != nil {
		return err
	}
	idle := time.NewTicker(10 * time.Second)
	defer idle.Stop()
	asked, heard := 0, -1
	for {
		for asked <= window/2 {
			if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+storeName+"."+consumer, inbox, body); err != nil {
				return err
			}
			asked += window / 2
		}
		var m *nats.Msg
		select {
		case m = <-incoming:
		case <-idle.C:
			if heard == asked {
				return errLost
			}
			heard = asked
			continue
		}
		if m.Subject == inbox {
			return fmt.Errorf("%w: %v", errLost, m.Header)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream == target {
			return nil
		}
		asked--
	}
}
